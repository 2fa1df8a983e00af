# Copyright (c) monai_ext contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from monai_ext.data.atomic import atomic_path

if TYPE_CHECKING:
    from shapely import Geometry

KINDS = ("annotation", "detection")


class PolygonWriter(AbstractContextManager["PolygonWriter"]):
    """
    Write objects as polygons of a GeoJSON file that QuPath opens, one after the other, so that any number fits.

    A polygon runs along the edges of the object's pixels, with its holes; an object in several pieces becomes a
    MultiPolygon. Rasterised again (a pixel belongs to it if its centre does) it is the object, pixel by pixel.

    Args:
        path: the ``.geojson`` file; it appears when the block ends without an error.
        kind: what QuPath makes of the objects: ``annotation`` (regions, editable) or ``detection`` (many small ones).

    Raises:
        ValueError: ``kind`` is unknown.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tile.geojson"
        >>> with PolygonWriter(path, kind="detection") as polygons:
        ...     polygons.add(np.eye(1, 4, dtype=bool), label="nucleus", colour=(0, 255, 255), corner=(10, 20))
        >>> (ring,) = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"]
        >>> sorted(ring[1:])
        [[10.0, 20.0], [10.0, 21.0], [11.0, 20.0], [11.0, 21.0]]
    """

    def __init__(self, path: str | os.PathLike[str], *, kind: str = "annotation") -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be {' or '.join(KINDS)}, not {kind!r}.")
        self.path, self.kind = Path(path), kind
        self.count = 0
        self._place: AbstractContextManager[Path] = atomic_path(self.path)
        self._file: IO[str]

    def __enter__(self) -> PolygonWriter:
        self._file = self._place.__enter__().open("w", encoding="utf-8")
        self._file.write('{"type": "FeatureCollection", "features": [')
        return self

    def __exit__(self, *error: Any) -> None:
        with self._file:
            self._file.write("\n]}\n")
        self._place.__exit__(*error)

    def add(
        self,
        mask: np.ndarray,
        *,
        label: str,
        colour: Sequence[int],
        corner: tuple[float, float] = (0, 0),
        scale: float = 1.0,
    ) -> None:
        """
        Write one object; an empty mask writes nothing.

        Args:
            mask: the object, ``(H, W)`` bool.
            label: its class.
            colour: red, green and blue of its class, 0 to 255.
            corner: x and y of the mask's upper left corner, in pixels of the mask.
            scale: pixels of the full resolution in one of the mask.
        """
        from shapely import affinity
        from shapely.geometry import mapping

        if not mask.any():
            return
        polygon = mask_polygon(mask)
        x, y = corner
        placed = affinity.affine_transform(polygon, [scale, 0, 0, scale, scale * x, scale * y])
        feature = {
            "type": "Feature",
            "geometry": mapping(placed),
            "properties": {"objectType": self.kind, "classification": {"name": label, "color": list(colour)}},
        }
        self._file.write(("," if self.count else "") + "\n" + json.dumps(feature))
        self.count += 1


def mask_polygon(mask: np.ndarray) -> Geometry:
    """
    Return the polygon along the edges of a mask's pixels: valid, closed, with holes, in pieces where it must be.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        a shapely Polygon or MultiPolygon; pixel (0, 0) is the square from (0, 0) to (1, 1).

    Example:
        >>> mask_polygon(np.array([[True, True], [True, False]])).area
        3.0
    """
    from scipy.ndimage import find_objects, label
    from shapely import MultiPolygon, Polygon

    pieces = []
    # Pixels that only touch at a corner are two pieces: one ring through both would cross itself.
    numbers, _ = label(mask)
    for number, box in enumerate(find_objects(numbers), start=1):
        corner = box[1].start, box[0].start
        rings = [np.add(ring, corner) for ring in _rings(numbers[box] == number)]
        rings.sort(key=lambda ring: -np.ptp(ring, axis=0).prod())
        pieces.append(Polygon(rings[0], rings[1:]))
    return pieces[0] if len(pieces) == 1 else MultiPolygon(pieces)


def _rings(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The closed lines around a connected mask and its holes, corner by corner; each passes a corner once."""
    filled = np.pad(mask.astype(np.int8), 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    # The mask lies to the right of whoever walks: along the row below an edge, or the column left of it.
    for row, start, end in _runs(np.diff(filled, axis=0)[:, 1:-1]):
        after[start, row].append((end, row))
    for column, start, end in _runs(-np.diff(filled, axis=1)[1:-1].T):
        after[column, start].append((column, end))
    rings = []
    while after:
        path = [next(iter(after))]
        places = {path[0]: 0}
        while path:
            ways = after[path[-1]]
            corner = ways.pop()
            if not ways:
                del after[path[-1]]
            if corner in places:
                first = places[corner]
                rings.append([*path[first:], corner])
                for passed in path[first + 1 :]:
                    del places[passed]
                del path[first + 1 :]
                if corner not in after:
                    # Every corner is left as often as it is reached: this one was the first.
                    del path[first:], places[corner]
            else:
                places[corner] = len(path)
                path.append(corner)
    return rings


def _runs(steps: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Line, start and end of every run of equal steps that are not 0; backwards where they are negative."""
    edges = np.pad(steps, ((0, 0), (1, 1)))
    lines, starts = np.nonzero((steps != 0) & (steps != edges[:, :-2]))
    _, ends = np.nonzero((steps != 0) & (steps != edges[:, 2:]))
    forward = steps[lines, starts] > 0
    first, last = np.where(forward, starts, ends + 1), np.where(forward, ends + 1, starts)
    return zip(lines.tolist(), first.tolist(), last.tolist(), strict=True)


def read_polygons(path: str | os.PathLike[str]) -> list[tuple[str, Geometry]]:
    """
    Read the polygons of a GeoJSON file, as QuPath exports them.

    Args:
        path: a FeatureCollection, a Feature or a list of features.

    Returns:
        the class (empty if there is none) and the shapely polygon of each, in the file's order.

    Raises:
        ValueError: no GeoJSON, no polygon, or one that crosses itself; the message names the file and the feature.
    """
    import shapely
    from shapely.geometry import shape

    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be a GeoJSON file, but cannot be read: {error}; export it again.") from error
    if isinstance(content, dict):
        content = content.get("features", [content])
    found = []
    for number, feature in enumerate(content):
        try:
            polygon = shape(feature["geometry"])
            name = (feature.get("properties") or {}).get("classification", {}).get("name", "")
        except Exception as error:  # shapely raises every kind of exception on broken geometry
            raise ValueError(
                f"{path}: feature {number} must be a GeoJSON feature with a geometry ({error}); export it again."
            ) from error
        if polygon.geom_type not in ("Polygon", "MultiPolygon"):
            raise ValueError(
                f"{path}: feature {number} must be a Polygon or MultiPolygon, not a {polygon.geom_type}; take it away."
            )
        if not polygon.is_valid:
            raise ValueError(
                f"{path}: feature {number} is no proper polygon ({shapely.is_valid_reason(polygon)}); "
                "draw it again without crossing its own outline."
            )
        found.append((name, polygon))
    return found


def polygon_mask(polygon: Geometry, size: tuple[int, int]) -> np.ndarray:
    """
    Rasterise a polygon: a pixel belongs to it if its centre does.

    Args:
        polygon: a shapely Polygon or MultiPolygon in pixels.
        size: height and width of the mask.

    Example:
        >>> mask = np.array([[True, False], [True, True]])
        >>> bool((polygon_mask(mask_polygon(mask), (2, 2)) == mask).all())
        True
    """
    from skimage.draw import polygon as polygon_pixels

    mask = np.zeros(size, bool)
    for piece in getattr(polygon, "geoms", [polygon]):
        for ring in (piece.exterior, *piece.interiors):
            # In scikit-image the centre of a pixel has whole numbers.
            x, y = np.asarray(ring.coords)[:, :2].T - 0.5
            mask[polygon_pixels(y, x, size)] ^= True
    return mask
