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

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.atomic import atomic_path
from monai_ext.data.polygons import PolygonWriter
from monai_ext.handlers.overlay import LABEL_COLOURS
from monai_ext.handlers.table_writer import RunImages, TableWriter
from monai_ext.handlers.utils import item_value, upright, write_picture


class ObjectWriter(TableWriter):
    """
    Write the objects that were found: a map of their numbers, polygons for QuPath, and a row in ``objects.csv``.

    - ``<name>_instances.png``, 16 bit grey: 0 for the ground, 1, 2, ... for the objects; with more than 65535 objects
      ``<name>_instances.tif``, 32 bit. Several labels have a file each, ``<name>_instances_<label>.png``.
    - ``<name>.geojson``, the objects of all labels, in pixels, see :class:`monai_ext.data.polygons.PolygonWriter`.
    - ``objects.csv``, one row per image and label: number of objects, their median area in pixels, and the files.

    Args:
        output_dir: folder of all files; made if missing.
        labels: names of the channels.
        kind: what QuPath makes of the objects, ``detection`` or ``annotation``.
        images: is told by ``add_failure(path, reason)`` of an image whose files could not be written, while the rest
            goes on; without it the error ends the run.
        instances_key: item with the objects.

    Shape:
        `(C, W, H)` whole numbers, as MONAI's order of pictures is.

    Raises:
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> ObjectWriter(output_dir="out", labels=["nucleus"]).table_path.as_posix()
        'out/objects.csv'
    """

    columns = ("image", "label", "objects", "median_area", "instances", "polygons")

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        labels: Sequence[str],
        kind: str = "detection",
        images: RunImages | None = None,
        instances_key: str = "instances",
    ) -> None:
        super().__init__(Path(output_dir) / "objects.csv", images)
        self.labels, self.kind = list(labels), kind
        self.instances_key = instances_key

    def write_image(self, path: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        name = self.name_of(path)
        maps = upright(item_value(item, self.instances_key))
        polygons = f"{name}.geojson"
        rows = []
        with PolygonWriter(self.output_dir / polygons, kind=self.kind) as writer:
            for label, numbers, colour in zip(self.labels, maps, cycle(LABEL_COLOURS), strict=False):
                areas = np.bincount(numbers.ravel())[1:]
                areas = areas[areas > 0]
                file = self._write_map(name if len(self.labels) == 1 else f"{name}_{label}", numbers)
                write_objects(writer, numbers, label=label, colour=colour)
                rows.append(
                    {
                        "image": path,
                        "label": label,
                        "objects": len(areas),
                        "median_area": float(np.median(areas)) if len(areas) else None,
                        "instances": file,
                        "polygons": polygons,
                    }
                )
        return rows

    def _write_map(self, name: str, numbers: np.ndarray) -> str:
        if numbers.max() < 2**16:
            write_picture(self.output_dir / f"{name}_instances.png", numbers.astype(np.uint16))
            return f"{name}_instances.png"
        import tifffile

        with atomic_path(self.output_dir / f"{name}_instances.tif") as temporary:
            tifffile.imwrite(temporary, numbers.astype(np.uint32), compression="zlib")
        return f"{name}_instances.tif"


def write_objects(writer: PolygonWriter, numbers: np.ndarray, *, label: str, colour: Sequence[int]) -> None:
    """
    Add all objects of a map to a file of polygons.

    Args:
        writer: the open file.
        numbers: ``(H, W)`` whole numbers, 0 for the ground.
        label: their class.
        colour: its red, green and blue.
    """
    from scipy.ndimage import find_objects

    for number, box in enumerate(find_objects(numbers), start=1):
        if box is not None:
            rows, columns = box
            writer.add(numbers[box] == number, label=label, colour=colour, corner=(columns.start, rows.start))
