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
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.atomic import atomic_path

_TILE = 256
_SMALLEST_LEVEL = 512


class PyramidWriter(AbstractContextManager["PyramidWriter"]):
    """
    Write a picture that does not fit into memory as tiled pyramidal BigTIFF, tile by tile, in any order.

    Tiles are compressed and laid down in a temporary file at once. When the block ends the lower levels are made from
    them, every second pixel of the level above, and the file appears under its name, whole. What was never written is
    0.

    Args:
        path: the ``.tif`` file.
        size: height and width in pixels.
        mpp: micrometres in a pixel, if known.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tifffile
        >>> path = Path(tempfile.mkdtemp()) / "mask.tif"
        >>> with PyramidWriter(path, size=(700, 1000)) as mask:
        ...     mask.write(256, 512, np.ones((256, 488), np.uint8))
        >>> with tifffile.TiffFile(path) as file:
        ...     [page.shape for page in file.pages], int(file.pages[0].asarray().sum())
        ([(700, 1000), (350, 500)], 124928)
    """

    step = _TILE

    def __init__(self, path: str | os.PathLike[str], *, size: tuple[int, int], mpp: float | None = None) -> None:
        self.path, self.size, self.mpp = Path(path), size, mpp
        self._place: AbstractContextManager[Path] = atomic_path(self.path)

    def __enter__(self) -> PyramidWriter:
        self._temporary = self._place.__enter__()
        self._spool = tempfile.TemporaryFile(dir=self.path.parent)
        self._empty = self._lay(np.zeros((_TILE, _TILE), np.uint8))
        self._levels = [self._blank(self.size)]
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        with self._spool:
            if kind is None:
                self._finish()
        self._place.__exit__(kind, *error)

    def write(self, top: int, left: int, pixels: np.ndarray) -> None:
        """
        Write a part of the picture; a later one takes the place of an earlier.

        Args:
            top: its first row, a multiple of ``step``.
            left: its first column, the same.
            pixels: ``(H, W)`` uint8; sides are multiples of ``step`` but at the picture's end.

        Raises:
            ValueError: the part does not fit.
        """
        height, width = pixels.shape
        ends = (top + height, left + width)
        if any(start % _TILE for start in (top, left)) or any(
            end > side or (end % _TILE and end < side) for end, side in zip(ends, self.size, strict=True)
        ):
            raise ValueError(
                f"A part must be made of whole tiles of {_TILE} pixels inside {self.size}, not rows {top} to {ends[0]} "
                f"and columns {left} to {ends[1]}."
            )
        for y in range(0, height, _TILE):
            for x in range(0, width, _TILE):
                tile = pixels[y : y + _TILE, x : x + _TILE]
                self._levels[0][(top + y) // _TILE, (left + x) // _TILE] = (
                    self._lay(tile) if tile.any() else self._empty
                )

    def _lay(self, tile: np.ndarray) -> tuple[int, int]:
        """Append a tile to the spool; where it is."""
        whole = np.zeros((_TILE, _TILE), np.uint8)
        whole[: tile.shape[0], : tile.shape[1]] = tile
        packed = zlib.compress(whole.tobytes(), 6)
        place = self._spool.seek(0, os.SEEK_END)
        self._spool.write(packed)
        return place, len(packed)

    def _packed(self, place: Any) -> bytes:
        self._spool.seek(int(place[0]))
        return self._spool.read(int(place[1]))

    def _tile(self, place: Any) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self._packed(place)), np.uint8).reshape(_TILE, _TILE)

    def _blank(self, size: tuple[int, int]) -> np.ndarray:
        """Where each tile of a level is in the spool: all at the empty one."""
        return np.tile(np.array(self._empty), (-(-size[0] // _TILE), -(-size[1] // _TILE), 1))

    def _finish(self) -> None:
        import tifffile

        sizes = [self.size]
        while max(sizes[-1]) > _SMALLEST_LEVEL:
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
            self._levels.append(self._halved(self._levels[-1], sizes[-1]))
        with tifffile.TiffWriter(self._temporary, bigtiff=True) as file:
            for number, (size, places) in enumerate(zip(sizes, self._levels, strict=True)):
                resolution: dict[str, Any] = {}
                if self.mpp:
                    density = 1e4 / (self.mpp * 2**number)
                    resolution = {"resolution": (density, density), "resolutionunit": "CENTIMETER"}
                file.write(
                    self._all(places),
                    shape=size,
                    dtype=np.uint8,
                    tile=(_TILE, _TILE),
                    compression="zlib",
                    photometric="minisblack",
                    subfiletype=int(number > 0),
                    metadata=None,
                    **resolution,
                )

    def _all(self, places: np.ndarray) -> Iterator[bytes]:
        for place in places.reshape(-1, 2):
            yield self._packed(place)

    def _halved(self, above: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        below = self._blank(size)
        half = _TILE // 2
        for row, column in np.ndindex(below.shape[:2]):
            four = above[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            if (four[..., 0] == self._empty[0]).all():
                continue
            tile = np.zeros((_TILE, _TILE), np.uint8)
            for y, x in np.ndindex(four.shape[:2]):
                tile[y * half : (y + 1) * half, x * half : (x + 1) * half] = self._tile(four[y, x])[::2, ::2]
            below[row, column] = self._lay(tile)
        return below
