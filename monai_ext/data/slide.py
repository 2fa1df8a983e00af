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
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import WSIReader

from monai_ext.data.images import ImageList

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff")
BACKENDS = ("openslide", "cucim")
# A thumbnail is put together from blocks of at most so many pixels on a side.
_BLOCK = 2048
# The brightest glass of a slide that is stored with the bits it claims, 0 to 255.
_DARK = 40


class Slide:
    """
    A whole-slide image, SVS or tiled TIFF (BigTIFF too), of which only regions are ever read.

    MONAI's ``WSIReader`` reads them. Its tifffile backend is not used, because it loads a whole level for every region.
    OpenSlide turns 16-bit colour, CMYK and palettes into 8-bit RGB; what was not scanned becomes white.

    Args:
        path: the file.
        level: pyramid level that is read, 0 for the full resolution.
        mpp: micrometres in a pixel instead, of the level that comes within 5 %.
        backend: ``openslide`` or, for those who have it, ``cucim``.

    Attributes:
        size: height and width of the level, in pixels.
        downsample: pixels of the full resolution in one of the level.
        mpp: micrometres in a pixel of the level; None if the file does not say.

    Raises:
        ValueError: the file is missing, empty, cut off, no TIFF, without tiles, too dark to be right, or has no such
            level or resolution.
        ImportError: the backend is not installed.

    Example:
        >>> import tempfile, tifffile
        >>> path = Path(tempfile.mkdtemp()) / "slide.tif"
        >>> tifffile.imwrite(path, np.full((300, 400, 3), 200, np.uint8), tile=(256, 256), photometric="rgb")
        >>> slide = Slide(path)
        >>> slide.size, slide.read(10, 20, 5, 6).shape
        ((300, 400), (3, 5, 6))
    """

    def __init__(
        self, path: str | os.PathLike[str], *, level: int = 0, mpp: float | None = None, backend: str = "openslide"
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(
                f"backend must be {' or '.join(BACKENDS)}, not {backend!r}; MONAI's tifffile one reads whole levels."
            )
        self.path = Path(path)
        _check_tiff(self.path)
        self._reader = WSIReader(backend=backend)
        try:
            self._file = self._reader.read(str(path))
        except ImportError:
            raise
        except Exception as error:  # each backend has exceptions of its own
            raise ValueError(
                f"{path} cannot be opened as a slide ({_words(error)}); export it as 8-bit RGB, tiled and pyramidal."
            ) from error
        self.level = self._find_level(level, mpp)
        height, width = self._reader.get_size(self._file, self.level)
        self.size = (int(height), int(width))
        self.downsample = float(self._reader.get_downsample_ratio(self._file, self.level))
        self.mpp = self._resolution(self.level)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """
        Read a region.

        Args:
            top: first row, in pixels of the level.
            left: first column.
            height: number of rows, inside the slide.
            width: number of columns.

        Returns:
            ``(3, height, width)`` float32 from 0 to 1.

        Raises:
            ValueError: the region's tiles are damaged; the message names the file.
        """
        return self._read(top, left, height, width, self.level, self.downsample)

    def thumbnail(self, longest: int = 1024) -> np.ndarray:
        """
        Make a small picture of the whole slide, in bounded memory even if the file has one level only.

        Args:
            longest: pixels of its longer side, at most.

        Returns:
            ``(3, h, w)`` float32 from 0 to 1.

        Raises:
            ValueError: the slide is nearly black everywhere, or damaged.
        """
        from skimage.transform import resize

        full = self._reader.get_size(self._file, 0)
        shrink = min(1.0, longest / max(full))
        small = tuple(max(1, round(side * shrink)) for side in full)
        level = max(
            number
            for number in range(self._reader.get_level_count(self._file))
            if number == 0 or max(self._reader.get_size(self._file, number)) >= max(small)
        )
        height, width = (int(side) for side in self._reader.get_size(self._file, level))
        ratio = float(self._reader.get_downsample_ratio(self._file, level))
        picture = np.empty((3, *small), np.float32)
        rows, columns = (_cuts(a, b) for a, b in zip(small, (height, width), strict=True))
        for (y0, y1), (top, bottom) in rows:
            for (x0, x1), (left, right) in columns:
                block = self._read(top, left, bottom - top, right - left, level, ratio)
                picture[:, y0:y1, x0:x1] = resize(block, (3, y1 - y0, x1 - x0), anti_aliasing=True)
        if picture.max() * 255 < _DARK:
            raise ValueError(
                f"{self.path} is nearly black, brightest at {picture.max() * 255:.0f} of 255, as 12-bit values in 16 "
                "bits are; export it as 8-bit RGB."
            )
        return picture.clip(0, 1)

    def _read(self, top: int, left: int, height: int, width: int, level: int, ratio: float) -> np.ndarray:
        try:
            pixels, _ = self._reader.get_data(
                self._file, (round(top * ratio), round(left * ratio)), (height, width), level=level, mode="RGBA"
            )
        except Exception as error:  # each backend has exceptions of its own
            raise ValueError(
                f"{self.path} is damaged near row {top}, column {left} ({_words(error)}); copy it again from "
                "its source."
            ) from error
        colours, alpha = pixels[:3].astype(np.float32) / 255, pixels[3:].astype(np.float32) / 255
        return colours * alpha + 1 - alpha

    def _find_level(self, level: int, mpp: float | None) -> int:
        count = self._reader.get_level_count(self._file)
        found = [self._resolution(number) for number in range(count)]
        if mpp is None:
            if not 0 <= level < count:
                raise ValueError(f"{self.path} has {count} levels, so level must be 0 to {count - 1}, not {level}.")
            return level
        if found[0] is None:
            raise ValueError(f"{self.path} does not say how large its pixels are; give level instead of mpp.")
        nearest = min(range(count), key=lambda number: abs((found[number] or 0) - mpp))
        if abs((found[nearest] or 0) - mpp) > 0.05 * mpp:
            raise ValueError(
                f"{self.path} has levels of {', '.join(f'{value:.3g}' for value in found if value)} micrometres in a "
                f"pixel, none within 5 % of {mpp:g}; give one of these."
            )
        return nearest

    def _resolution(self, level: int) -> float | None:
        try:
            values = self._reader.get_mpp(self._file, level)
        except Exception:  # the file does not say, each backend in words of its own
            return None
        # A resolution of 1 without a unit is what programs write that know none: a pixel of a metre, or of an inch.
        return float(np.mean(values)) if 0.01 < float(np.mean(values)) < 1000 else None


class SlideList(ImageList):
    """
    The slides that inference runs on: found, opened once, and sorted into good ones and bad ones.

    Args:
        source: as for :class:`monai_ext.data.ImageList`: a folder, a pattern, one slide, a datalist or a list.
        key: the key of the slide in each item of ``datalist``.

    Example:
        >>> import tempfile, tifffile
        >>> folder = Path(tempfile.mkdtemp())
        >>> pixels = np.full((300, 400, 3), 200, np.uint8)
        >>> tifffile.imwrite(folder / "good.tif", pixels, tile=(256, 256), photometric="rgb")
        >>> _ = (folder / "bad.svs").write_bytes(b"")
        >>> slides = SlideList(source=folder)
        >>> [Path(item["image"]).name for item in slides.datalist], [Path(path).name for path in slides.rejected]
        (['good.tif'], ['bad.svs'])
    """

    suffixes = SLIDE_SUFFIXES

    def open(self, path: str) -> Any:
        return Slide(path).read(0, 0, 1, 1)


def _check_tiff(path: Path) -> None:
    """Say what is wrong with a file in better words than a backend's; nothing of the pixels is read."""
    import tifffile

    if not path.is_file():
        raise ValueError(f"{path} is not a file; check the path.")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy it again from its source.")
    try:
        with tifffile.TiffFile(path) as file:
            pages = list(file.pages)
            # Pixels may lie anywhere in the file, so the end is missing if any tile's is.
            ends = [
                offset + count
                for page in pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            tiled, kind = bool(file.pages.first.is_tiled), file.pages.first.dtype
    except Exception as error:  # tifffile raises every kind of exception on broken files
        raise ValueError(
            f"{path} must be a slide ({', '.join(SLIDE_SUFFIXES)}), but is damaged, cut off or none ({_words(error)}); "
            "copy it again from its source."
        ) from error
    if not ends or max(ends) > size:
        raise ValueError(
            f"{path} is cut off: its pixels should end at byte {max(ends, default=0)}, but the file has {size} bytes; "
            "copy it again from its source."
        )
    if kind not in (np.uint8, np.uint16):
        raise ValueError(f"{path} must hold integers of 8 or 16 bits, not {kind}; export it as 8-bit RGB.")
    if not tiled:
        raise ValueError(
            f"{path} is a TIFF without tiles, of which no part can be read alone; segment it whole as an image, or "
            "tile it: vips tiffsave IN.tif OUT.tif --tile --pyramid --bigtiff."
        )


def _cuts(small: int, large: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Divide the sides of a picture and of its thumbnail alike, into blocks that may be loaded."""
    count = -(-large // _BLOCK)
    count = min(count, small)
    edges = [round(small * number / count) for number in range(count + 1)]
    places = [round(edge * large / small) for edge in edges]
    return [((edges[n], edges[n + 1]), (places[n], places[n + 1])) for n in range(count)]


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
