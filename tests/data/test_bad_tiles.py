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

"""What is wrong with a file of tissue is said in one sentence that names it; the others are done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from bad_tiles import ALL, IMAGES, MASKS, POLYGONS, SLIDES, Bad, nuclei, pyramid, tissue
from monai.transforms import LoadImaged
from PIL import Image

from monai_ext.data import ImageList, LabelReader, PhotographReader, Slide, SlideList
from monai_ext.data.polygons import read_polygons
from monai_ext.transforms import CheckSizesd, LoadInstancesd


def names(bads: list[Bad]) -> list[str]:
    return [bad.name for bad in bads]


def check(sentence: str, path: Path, words: str) -> None:
    assert str(path) in sentence and words in sentence
    assert "\n" not in sentence and sentence.endswith(".")


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= 20 and len({bad.name for bad in ALL}) == len(ALL)


def test_every_bad_image_is_told_and_the_good_ones_are_left(tmp_path: Path) -> None:
    for bad in IMAGES:
        (tmp_path / bad.name.replace(".", "_")).mkdir()
        bad.make(tmp_path / bad.name.replace(".", "_") / bad.name)
    Image.fromarray(tissue()).save(tmp_path / "good.png")
    files = [tmp_path / bad.name.replace(".", "_") / bad.name for bad in IMAGES]
    # Results are named after files: one list for each name, and the good one in every list.
    for bad, file in zip(IMAGES, files, strict=True):
        images = ImageList(source=[str(file), str(tmp_path / "good.png")])
        assert [item["image"] for item in images.datalist] == [str(tmp_path / "good.png")]
        check(images.rejected[str(file)], file, bad.words)
        with pytest.raises(SystemExit, match="1 of the images failed"):
            images.finish()


@pytest.mark.parametrize("bad", MASKS, ids=names(MASKS))
@pytest.mark.parametrize("several", [False, True], ids=["one file", "a file for each object"])
def test_every_bad_mask_is_told(bad: Bad, several: bool, tmp_path: Path) -> None:
    Image.fromarray(tissue()).save(tmp_path / "image.png")
    Image.fromarray(nuclei()).save(tmp_path / "good.png")
    path = tmp_path / bad.name
    bad.make(path)
    item = {"image": tmp_path / "image.png", "label": [tmp_path / "good.png", path] if several else path}
    load = LoadInstancesd(keys="label", reader=PhotographReader(channels=1))
    image = LoadImaged(keys="image", reader=PhotographReader(), ensure_channel_first=True)
    with pytest.raises((ValueError, RuntimeError)) as caught:
        CheckSizesd(["image", "label"])(load(image(item)))
    error = caught.value if isinstance(caught.value, ValueError) else caught.value.__cause__
    check(str(error), path, "must have the size of the other masks" if several and "size" in bad.name else bad.words)


def test_values_outside_the_table_are_told(tmp_path: Path) -> None:
    path = tmp_path / "values.png"
    Image.fromarray(nuclei() * 3).save(path)
    with pytest.raises(ValueError) as caught:
        LabelReader(labels=["nucleus", "gland"]).get_data(path)
    check(str(caught.value), path, "6")


@pytest.mark.parametrize("bad", SLIDES, ids=names(SLIDES))
def test_every_bad_slide_is_told_and_the_good_ones_are_left(bad: Bad, tmp_path: Path) -> None:
    bad.make(tmp_path / bad.name)
    pyramid(tmp_path / "good.tif")
    slides = SlideList(source=tmp_path)
    assert [item["image"] for item in slides.datalist] == [str(tmp_path / "good.tif")]
    check(slides.rejected[str(tmp_path / bad.name)], tmp_path / bad.name, bad.words)


@pytest.mark.parametrize("bad", POLYGONS, ids=names(POLYGONS))
def test_every_bad_file_of_polygons_is_told(bad: Bad, tmp_path: Path) -> None:
    bad.make(tmp_path / bad.name)
    with pytest.raises(ValueError) as caught:
        read_polygons(tmp_path / bad.name)
    check(str(caught.value), tmp_path / bad.name, bad.words)


GOOD = {
    "rgb": lambda path: pyramid(path),
    "bigtiff": lambda path: pyramid(path, bigtiff=True),
    "one_level": lambda path: pyramid(path, levels=1),
    "16_bits": lambda path: pyramid(path, tissue(700).astype(np.uint16) * 257),
    "cmyk": lambda path: pyramid(
        path,
        np.concatenate([255 - tissue(700), np.zeros((700, 700, 1), np.uint8)], -1),
        photometric="separated",
    ),
    "alpha": lambda path: pyramid(
        path, np.dstack([tissue(700), np.full((700, 700), 255, np.uint8)]), extrasamples=["unassalpha"]
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_unusual_slides_are_read_as_rgb(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.tif"
    GOOD[kind](path)
    slide = Slide(path)
    assert slide.size == (700, 700) and slide.mpp == pytest.approx(0.5)
    expected = np.moveaxis(tissue(700)[60:90, 250:300], -1, 0) / 255
    assert np.abs(slide.read(60, 250, 30, 50) - expected).max() < 0.005
    assert slide.thumbnail(100).shape == (3, 100, 100)


def test_a_palette_is_read_as_its_colours(tmp_path: Path) -> None:
    colours = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 90)]).astype(np.uint16) * 257
    pyramid(tmp_path / "palette.tif", tissue(700)[..., 0], photometric="palette", colormap=colours)
    index = tissue(700)[60:90, 250:300, 0].astype(float)
    expected = np.stack([index, 255 - index, np.full_like(index, 90)]) / 255
    assert np.abs(Slide(tmp_path / "palette.tif").read(60, 250, 30, 50) - expected).max() < 0.005


def test_aperio(tmp_path: Path) -> None:
    described = "Aperio Image Library v11\n700x700 [0,0 700x700] (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
    pixels = tissue(700)
    with tifffile.TiffWriter(tmp_path / "one.svs") as file:
        for part in (pixels, pixels[::4, ::4]):
            file.write(
                part, tile=(256, 256), photometric="rgb", compression="zlib", description=described, metadata=None
            )
            if part is pixels:
                file.write(pixels[::8, ::8], photometric="rgb", rowsperstrip=16, metadata=None)
    slide = Slide(tmp_path / "one.svs")
    assert slide.mpp == pytest.approx(0.5) and slide.size == (700, 700)
    assert np.abs(slide.read(60, 250, 30, 50) - np.moveaxis(pixels[60:90, 250:300], -1, 0) / 255).max() < 0.02
    assert Slide(tmp_path / "one.svs", mpp=2).size == (175, 175)


def test_without_a_resolution_only_levels_can_be_asked_for(tmp_path: Path) -> None:
    pyramid(tmp_path / "one.tif", resolution=None)
    assert Slide(tmp_path / "one.tif").mpp is None and Slide(tmp_path / "one.tif", level=1).size == (350, 350)
    with pytest.raises(ValueError, match=r"one\.tif does not say how large its pixels are; give level"):
        Slide(tmp_path / "one.tif", mpp=0.5)


def test_other_resolutions_and_levels_are_told(tmp_path: Path) -> None:
    pyramid(tmp_path / "one.tif")
    with pytest.raises(ValueError, match=r"levels of 0\.5, 1, 2 micrometres in a pixel, none within 5 % of 0\.25"):
        Slide(tmp_path / "one.tif", mpp=0.25)
    with pytest.raises(ValueError, match="has 3 levels, so level must be 0 to 2, not 3"):
        Slide(tmp_path / "one.tif", level=3)
    with pytest.raises(ValueError, match="openslide or cucim, not 'tifffile'"):
        Slide(tmp_path / "one.tif", backend="tifffile")


def test_twelve_bits_in_sixteen_are_told(tmp_path: Path) -> None:
    pyramid(tmp_path / "dark.tif", tissue(700).astype(np.uint16) * 16)
    with pytest.raises(ValueError, match="nearly black, brightest at 1[0-9] of 255"):
        Slide(tmp_path / "dark.tif").thumbnail(100)
