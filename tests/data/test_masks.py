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
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from public_sets import imagescope, labelme
from scipy.io import savemat

from monai_ext.data.masks import (
    ChestXDetMask,
    ContourMask,
    DecathlonMask,
    FileMask,
    ImageScopeMask,
    LabelmeMask,
    MaskFormat,
    MatlabMask,
    ValueMask,
)
from monai_ext.data.masks.polygons import fill_polygon
from monai_ext.data.reader import PhotographReader, picture_size

SIZE = (24, 16)
SQUARE = [[2, 3], [12, 3], [12, 9], [2, 9]]
BOW_TIE = [[2, 2], [20, 12], [20, 2], [2, 12]]
DISC = LabelmeMask(shapes={"disc": "disc", "cup": "cup"}, ignored=("box",))
CONTOUR = ContourMask(patterns={"disc": "_disc"})
MATRIX = MatlabMask(variable="mask", values={"disc": [1, 2], "cup": [2]})
NUCLEUS = ImageScopeMask(label="nucleus")
FINDING = ChestXDetMask(labels=["Mass"])
COLOUR = ValueMask(values={"liver": [(100, 0, 100)]}, others=[(0, 0, 0)], between=0.1)


def json_file(content: object) -> Callable[[Path], None]:
    return lambda path: path.write_text(content if isinstance(content, str) else json.dumps(content))


def text_file(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content)


def shape(**changed: object) -> Callable[[Path], None]:
    return json_file({"shapes": [{"label": "disc", "points": SQUARE} | changed]})


def finding(**changed: object) -> Callable[[Path], None]:
    return json_file([{"file_name": "1.png", "syms": ["Mass"], "polygons": [SQUARE]} | changed])


def lines(points: list[list[float]]) -> Callable[[Path], None]:
    return text_file("".join(f"{x} {y}\n" for x, y in points))


def matrix(**variables: np.ndarray) -> Callable[[Path], None]:
    return lambda path: savemat(path, variables)


def colours(number: int) -> Callable[[Path], None]:
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels.reshape(-1, 3)[:number] = (90, 5, 100)
    return lambda path: Image.fromarray(pixels).save(path)


def moved(by: float) -> list[list[float]]:
    return [[x + by, y] for x, y in SQUARE]


BAD: list[tuple[MaskFormat, str, Callable[[Path], None], str]] = [
    (DISC, "1.json", text_file('{"shapes": ['), "must be a labelme JSON with a list of `shapes`.*copy it again"),
    (DISC, "1.json", json_file([1]), "must be a labelme JSON"),
    (DISC, "1.json", json_file({"shapes": ["disc"]}), "must be a labelme JSON"),
    (DISC, "1.json", shape(label="Disc"), "shape 1 must be called disc, cup, box, not 'Disc'"),
    (DISC, "1.json", shape(label=None), "shape 1 must be called .* not None"),
    (DISC, "1.json", shape(shape_type="circle"), "shape 1 .disc. must be a polygon, not 'circle'"),
    (DISC, "1.json", shape(points=SQUARE[:2]), "shape 1 .disc. must have three vertices"),
    (DISC, "1.json", shape(points=[[1, "a"], [2, 3], [4, 5]]), "must have three vertices x, y or more, all .* numbers"),
    (DISC, "1.json", shape(points=[[1, None], [2, 3], [4, 5]]), "must have three vertices"),
    (DISC, "1.json", shape(points=BOW_TIE), "shape 1 .disc. crosses itself, x, y 2,2 to 20,12; draw it again"),
    (DISC, "1.json", shape(points=moved(400)), "lies far outside its image of 24x16 pixels"),
    (DISC, "1.json", shape(points=moved(26)), "marks no pixel of its image of 24x16"),
    (DISC, "1.json", text_file(labelme({"disc": SQUARE}, imageWidth=48, imageHeight=32)), "image of 48x32 pixels"),
    (CONTOUR, "1_disc.txt", text_file("1 2\n3 four\n"), "must have two numbers x y in each line.*four"),
    (CONTOUR, "1_disc.txt", text_file("1 2 3\n"), "must have two numbers x y in each line"),
    (CONTOUR, "1_disc.txt", text_file(""), "must have three vertices"),
    (CONTOUR, "1_disc.txt", text_file("nan 2\n3 4\n5 6\n"), "must have three vertices"),
    (CONTOUR, "1_disc.txt", lines(BOW_TIE), "1_disc.txt crosses itself"),
    (MATRIX, "1.mat", text_file("no matrix"), "is no MATLAB file up to version 7 or is damaged.*copy it again"),
    (MATRIX, "1.mat", text_file(""), "is no MATLAB file"),
    (MATRIX, "1.mat", matrix(cupmask=np.eye(3)), "must hold a matrix `mask` of whole numbers, but holds cupmask"),
    (MATRIX, "1.mat", matrix(mask=np.eye(3) / 2), "must hold a matrix `mask` of whole numbers"),
    (MATRIX, "1.mat", matrix(mask=np.zeros((2, 2, 2))), "must hold a matrix `mask`"),
    (MATRIX, "1.mat", matrix(mask=3 * np.eye(3)), "must hold only 0, 1, 2, not 3 .3 pixels."),
    (NUCLEUS, "1.xml", text_file("<Annotations><Region>"), "must be an ImageScope XML.*copy it again"),
    (NUCLEUS, "1.xml", text_file("<annotation/>"), "its outermost element is annotation"),
    (NUCLEUS, "1.xml", text_file(imagescope([SQUARE]).replace('X="12"', 'X="a"')), "must be an ImageScope XML"),
    (NUCLEUS, "1.xml", text_file(imagescope([SQUARE]).replace('Y="9"', 'W="9"')), "must be an ImageScope XML.*'Y'"),
    (NUCLEUS, "1.xml", text_file(imagescope([SQUARE, moved(500)])), "region 2 lies far outside"),
    (FINDING, "all.json", text_file("["), "must be a JSON list of objects with `file_name`"),
    (FINDING, "all.json", finding(file_name="2.png"), "must list 1.png, but does not"),
    (FINDING, "all.json", finding(syms=["Cyst"]), "findings of 1.png must be of Mass, not 'Cyst'"),
    (FINDING, "all.json", finding(syms=["Mass", "Mass"]), "as many `polygons`"),
    (FINDING, "all.json", finding(polygons=[[[1, 2]]]), "polygon 1 of 1.png .Mass. must have three vertices"),
    (COLOUR, "1_mask.png", colours(11), "must hold only .0, 0, 0., .100, 0, 100., not .90, 5, 100. .11 pixels."),
]


@pytest.mark.parametrize(("masks", "name", "write", "sentence"), BAD)
def test_bad_file_is_one_sentence(
    masks: MaskFormat, name: str, write: Callable[[Path], None], sentence: str, tmp_path: Path
):
    Image.new("RGB", SIZE).save(tmp_path / "1.png")
    write(tmp_path / name)
    files = [tmp_path / name] + [tmp_path / "1.png"] * masks.needs_image
    with pytest.raises(ValueError, match=sentence) as error:
        masks.read(files, masks.names)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("masks", [DISC, CONTOUR, NUCLEUS, FINDING])
def test_an_image_that_is_none_is_named(masks: MaskFormat, tmp_path: Path):
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="1.png must be an image"):
        masks.read([tmp_path / "any", tmp_path / "1.png"], masks.names)


def test_numbers_of_volumes_have_the_names_of_their_dataset(tmp_path: Path):
    file = tmp_path / "1.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(4, dtype=np.uint8).reshape(1, 2, 2), np.eye(4)), file)
    named = tmp_path / "dataset.json"
    for content, sentence in (
        ("{", "dataset.json must be a JSON with `labels` as {number: name}"),
        ('{"labels": {"liver": 1}}', "dataset.json must be a JSON with `labels` as {number: name}"),
        ('{"labels": {"0": "background", "1": "liver", "2": "cancer"}}', "must hold only 0, 1, 2, not 3 .1 pixels."),
        ('{"labels": {"1": "spleen"}}', "dataset.json: `labels` must be of spleen, not liver"),
    ):
        named.write_text(content)
        with pytest.raises(ValueError, match=sentence):
            DecathlonMask().read([file, named], ["liver"])
    assert DecathlonMask().read([file], ["liver"])[0].sum() == 3 and DecathlonMask().names_in([file]) == ()


def test_files_that_bear_the_labels_names(tmp_path: Path):
    files = [tmp_path / f"{name}.png" for name in ("liver", "spleen", "spleen_cyst")]
    for number, file in enumerate(files):
        Image.fromarray(np.full((4, 4), 255 * (number == 1), np.uint8)).save(file)
    assert FileMask().read(files, ["spleen", "liver"])[0].sum((1, 2)).tolist() == [16, 0]
    with pytest.raises(ValueError, match="must hold masks of livr, but holds liver, spleen, spleen_cyst"):
        FileMask().read(files, ["livr"])


def test_smoothed_borders_take_the_nearest_colour(tmp_path: Path):
    colours(10)(tmp_path / "1.png")
    assert COLOUR.read([tmp_path / "1.png"], ["liver"])[0].sum() == 10


def test_a_changed_list_of_findings_is_read_again(tmp_path: Path):
    import os

    Image.new("L", SIZE).save(tmp_path / "1.png")
    files = [tmp_path / "all.json", tmp_path / "1.png"]
    finding()(files[0])
    assert FINDING.read(files, ["Mass"])[0].any()
    finding(syms=[], polygons=[])(files[0])
    os.utime(files[0], ns=(1, 1))
    assert not FINDING.read(files, ["Mass"])[0].any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_size_is_that_of_the_reader(orientation: int, tmp_path: Path):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8)).save(
        tmp_path / "1.jpg", exif=exif
    )
    assert picture_size(tmp_path / "1.jpg") == PhotographReader().get_data(tmp_path / "1.jpg")[0].shape[:2]


@st.composite
def star_shaped(draw: st.DrawFn) -> np.ndarray:
    """A polygon without crossings: its vertices go round a centre."""
    radii = draw(st.lists(st.floats(1, 30), min_size=3, max_size=12))
    angles = 2 * np.pi * (np.arange(len(radii)) + draw(st.floats(0, 1))) / len(radii)
    centre = np.array(draw(st.tuples(st.floats(0, 60), st.floats(0, 60))))
    return centre + np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@given(points=star_shaped(), start=st.integers(0, 11), backwards=st.booleans())
@settings(max_examples=60, deadline=None)
def test_filled_area_is_near_the_polygons(points: np.ndarray, start: int, backwards: bool):
    shifted = points + 40  # wholly inside
    x, y = shifted.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    border = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1).sum()
    mask = fill_polygon(shifted, (150, 140), name="star", strict=False)
    assert abs(mask.sum() - area) <= border + 1
    # Where a polygon begins and which way round it goes means nothing.
    turned = np.roll(shifted, start, axis=0)[:: -1 if backwards else 1]
    assert (fill_polygon(turned, (150, 140), name="star", strict=False) ^ mask).sum() <= len(points)
    # Outside the image it is cut off, not moved.
    assert np.array_equal(fill_polygon(shifted - 50, (70, 60), name="star", strict=False), shift(mask, 50, (70, 60)))


def shift(mask: np.ndarray, by: int, size: tuple[int, int]) -> np.ndarray:
    return mask[by : by + size[0], by : by + size[1]]


@given(points=star_shaped())
@settings(max_examples=40, deadline=None)
def test_what_does_not_cross_is_not_refused(points: np.ndarray):
    try:
        fill_polygon(points + 40, (150, 140), name="star")
    except ValueError as error:
        assert "marks no pixel" in str(error)


@given(order=st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_shapes_means_nothing(order: list[int], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("order")
    Image.new("RGB", SIZE).save(folder / "1.png")
    shapes = [("disc", SQUARE), ("cup", moved(3)), ("disc", moved(6)), ("box", SQUARE[:2])]
    content = {"shapes": [{"label": shapes[at][0], "points": shapes[at][1]} for at in order]}
    (folder / "1.json").write_text(json.dumps(content))
    channels, _ = DISC.read([folder / "1.json", folder / "1.png"], ["disc", "cup"])
    assert channels.sum((1, 2)).tolist() == [17 * 7, 11 * 7]


def test_crossings_of_freehand_outlines_are_filled(tmp_path: Path):
    Image.new("RGB", SIZE).save(tmp_path / "1.png")
    (tmp_path / "1.xml").write_text(imagescope([BOW_TIE, SQUARE[:2], moved(30)]))
    mask = NUCLEUS.read([tmp_path / "1.xml", tmp_path / "1.png"], ["nucleus"])[0][0]
    assert mask[3, 5] and mask[19, 5] and not mask[11, 3] and 80 < mask.sum() < 130
