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

"""Files of tissue that are wrong, each in one way: ``python tests/data/bad_tiles.py FOLDER`` writes them all."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

SIDE = 96


class Bad(NamedTuple):
    """A file, how it is made, and what must be said of it (beside its name)."""

    name: str
    make: Callable[[Path], None]
    words: str


def tissue(side: int = SIDE) -> np.ndarray:
    """A good picture, RGB."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(90, 220, (-(-side // 8), -(-side // 8), 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:side, :side]


def nuclei() -> np.ndarray:
    """A good map of objects."""
    objects = np.zeros((SIDE, SIDE), np.uint8)
    objects[10:30, 10:30], objects[40:70, 50:80] = 1, 2
    return objects


def cut(suffix: str, part: float, **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        file = io.BytesIO()
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(file, suffix, **options)
        path.write_bytes(file.getvalue()[: int(part * len(file.getvalue()))])

    return make


def tiff(pixels: Callable[[], np.ndarray], **options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels(), **options)


def picture(pixels: Callable[[], np.ndarray], mode: str | None = None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        image = Image.fromarray(pixels())
        (image.convert(mode) if mode else image).save(path)

    return make


def text(content: str) -> Callable[[Path], None]:
    return lambda path: (path.write_text(content), None)[1]


def wrong_offsets(path: Path) -> None:
    """Tags that say that the pixels lie behind the file's end."""
    tifffile.imwrite(path, tissue(), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["StripOffsets"].overwrite([10_000_000])


def pyramid(path: Path, pixels: np.ndarray | None = None, *, levels: int = 3, **options: Any) -> None:
    """A good slide: tiles, levels and a resolution, unless the options say otherwise."""
    pixels = tissue(700) if pixels is None else pixels
    settings = {"photometric": "rgb", "compression": "zlib", "tile": (256, 256), "metadata": None, **options}
    with tifffile.TiffWriter(path, bigtiff=settings.pop("bigtiff", False)) as file:
        for level in range(levels):
            part = pixels[:: 2**level, :: 2**level]
            if settings.get("resolution", True):
                settings |= {"resolution": (20000 / 2**level,) * 2, "resolutionunit": "CENTIMETER"}
            file.write(part, subfiletype=int(level > 0), **{k: v for k, v in settings.items() if v is not None})


def cut_pyramid(path: Path) -> None:
    pyramid(path)
    path.write_bytes(path.read_bytes()[:-200])


def damaged_tile(path: Path) -> None:
    pyramid(path, levels=1)
    with tifffile.TiffFile(path) as file:
        start, count = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start + 10 : start + count] = b"\xff" * (count - 10)
    path.write_bytes(content)


def cmyk() -> np.ndarray:
    return np.concatenate([255 - tissue(), np.zeros((SIDE, SIDE, 1), np.uint8)], -1)


def feature(kind: str, coordinates: Any) -> Callable[[Path], None]:
    content = {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": coordinates}}
    return text(json.dumps({"type": "FeatureCollection", "features": [content]}))


AGAIN = "copy it again"
IMAGES = [
    Bad("empty.png", lambda path: path.touch(), "empty (0 bytes)"),
    Bad("cut.png", cut("png", 0.5), "damaged or cut off"),
    Bad("cut.jpg", cut("jpeg", 0.5), "damaged or cut off"),
    Bad("cut.tif", cut("tiff", 0.5), "damaged or cut off"),
    Bad("header_only.tif", cut("tiff", 0.0002), "damaged or cut off"),
    Bad("text.png", text("no picture"), "must be an image"),
    Bad("cmyk.jpg", picture(tissue, "CMYK"), "not CMYK"),
    Bad("cmyk.tif", tiff(cmyk, photometric="separated"), "not CMYK"),
    Bad("five_channels.tif", tiff(lambda: np.dstack([tissue(), tissue()[..., :2]]), photometric="rgb"), "must be grey"),
    Bad("too_bright.tif", tiff(lambda: tissue().astype(np.float32), photometric="rgb"), "floats in 0..1"),
    Bad("nan.tif", tiff(lambda: np.full((9, 9, 3), np.nan, np.float32), photometric="rgb"), "finite"),
    Bad("whole_numbers_of_32_bits.tif", tiff(lambda: tissue()[..., 0].astype(np.int32)), "8 or 16 bit"),
    Bad("one_colour.png", picture(lambda: np.full((SIDE, SIDE, 3), 200, np.uint8)), "same colour everywhere"),
    Bad("wrong_offsets.tif", wrong_offsets, "damaged or cut off"),
]
MASKS = [
    Bad("empty_mask.png", lambda path: path.touch(), "empty (0 bytes)"),
    Bad("fractions.tif", tiff(lambda: nuclei().astype(np.float32) / 2), "whole numbers, not of fractions"),
    Bad("coloured.png", picture(tissue), "not a colour picture"),
    Bad("cut_mask.png", cut("png", 0.5), "damaged or cut off"),
    Bad("other_size.png", picture(lambda: nuclei()[:-8]), "differ in size: 96x96 against 96x88"),
]
SLIDES = [
    Bad("empty.svs", lambda path: path.touch(), "empty (0 bytes)"),
    Bad("text.svs", text("no slide"), AGAIN),
    Bad("cut_pyramid.tif", cut_pyramid, "is cut off"),
    Bad("header.svs", lambda path: path.write_bytes(b"II*\0\x08\0\0\0") and None, AGAIN),
    Bad("strips.tif", tiff(lambda: tissue(700), photometric="rgb"), "without tiles"),
    Bad("floats.tif", lambda path: pyramid(path, tissue(700).astype(np.float32) / 255), "not float32"),
    Bad("damaged_tile.tif", damaged_tile, "is damaged near row 0, column 0"),
]
POLYGONS = [
    Bad("empty.geojson", lambda path: path.touch(), "must be a GeoJSON file"),
    Bad("text.geojson", text("{"), "must be a GeoJSON file"),
    Bad("bow_tie.geojson", feature("Polygon", [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]), "without crossing"),
    Bad("line.geojson", feature("LineString", [[0, 0], [9, 9]]), "not a LineString"),
    Bad("two_corners.geojson", feature("Polygon", [[[0, 0], [9, 9]]]), "feature 0"),
    Bad("no_geometry.geojson", text('[{"type": "Feature"}]'), "feature 0"),
]
ALL = [*IMAGES, *MASKS, *SLIDES, *POLYGONS]

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for bad in ALL:
        bad.make(folder / bad.name)
