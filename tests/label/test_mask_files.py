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
from pathlib import Path

import nibabel
import numpy as np
import pytest
from label_pictures import draw_picture
from PIL import Image

from monai_ext.data.polygons import polygon_mask
from monai_ext.label import RequestRefused
from monai_ext.label.contours import contour_elements
from monai_ext.label.mask_files import PICTURES, VOLUMES, index_mask, read_mask, result_suffix, write_mask
from monai_ext.label.outlines import read_outlines
from monai_ext.label.saved_labels import SavedLabel, write_training_list

MASK = np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
LOSSLESS = [suffix for suffix in (*PICTURES, *VOLUMES) if suffix not in (".jpg", ".jpeg")]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mask{suffix}"
    write_mask(MASK, path)
    assert np.array_equal(read_mask(path, (3, 2)), MASK)


def test_jpeg_is_for_looking_at(tmp_path: Path) -> None:
    path = tmp_path / "mask.jpg"
    write_mask(np.kron(MASK, np.ones((16, 16), np.uint8)), path)
    seen = np.asarray(Image.open(path))
    assert seen.shape == (32, 48) and abs(int(seen[8, 24]) - 127) < 6 and seen[8, 40] > 240


@pytest.mark.parametrize("suffix", VOLUMES)
def test_volumes_keep_their_place(tmp_path: Path, suffix: str) -> None:
    import itk

    mask = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    affine = np.array([[0, -2.0, 0, 10], [0.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
    path = tmp_path / f"mask{suffix}"
    write_mask(mask, path, affine)
    if suffix != ".nrrd":
        assert np.allclose(nibabel.load(path).affine, affine)
    image = itk.imread(str(path))
    assert np.array_equal(itk.array_from_image(image).T, mask)
    corner = np.array(image.TransformIndexToPhysicalPoint([1, 2, 3]))
    assert np.allclose(corner * [-1, -1, 1], (affine @ [1, 2, 3, 1])[:3], atol=1e-4)


def test_later_labels_lie_over_earlier_ones() -> None:
    masks = np.array([[[1, 1, 0]], [[0, 1, 0]]], bool)
    assert index_mask(masks).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("wanted", "dimension", "found"), [(None, 2, ".png"), ("", 3, ".nii.gz"), (".seg.nrrd", 3, ".nrrd")]
)
def test_the_usual_kind_of_answer(wanted: str | None, dimension: int, found: str) -> None:
    assert result_suffix(wanted, dimension) == found


@pytest.mark.parametrize(("wanted", "dimension"), [(".exe", 2), (".png", 3), ("/../../x.png", 2), (5, 2), ("png", 2)])
def test_other_kinds_are_refused(wanted: object, dimension: int) -> None:
    with pytest.raises(RequestRefused, match="result_extension must be one of"):
        result_suffix(wanted, dimension)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"no picture", "cannot be read"),
        ("a.nii.gz", b"no volume", "cannot be read"),
        ("a.nrrd", b"no volume", "cannot be read"),
        ("a.svg", b"<svg/>", "A mask must be"),
    ],
)
def test_masks_that_are_none(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestRefused, match=sentence) as caught:
        read_mask(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_masks_of_another_size_or_of_colours(tmp_path: Path) -> None:
    write_mask(MASK, tmp_path / "a.png")
    with pytest.raises(RequestRefused, match="3 wide and 2 high, but the picture is 2 wide and 3 high"):
        read_mask(tmp_path / "a.png", (2, 3))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(RequestRefused, match="not a colour picture"):
        read_mask(tmp_path / "b.png")
    Image.fromarray(np.full((4, 4), 999, np.uint16)).save(tmp_path / "c.png")
    with pytest.raises(RequestRefused, match="from 0 to 255"):
        read_mask(tmp_path / "c.png")


def test_outlines_are_the_mask() -> None:
    from shapely import Polygon

    mask = np.zeros((30, 40), np.uint8)
    mask[2:9, 3:20], mask[15:28, 25:39], mask[20, 5] = 1, 2, 2
    elements = contour_elements(mask, {"a": 1, "b": 2}, offset=(100, 50), smallest=2)
    assert [(e["label"], len(e["contours"])) for e in elements] == [("a", 1), ("b", 1)]
    drawn = polygon_mask(Polygon(np.subtract(elements[0]["contours"][0], (100, 50))), (30, 40))
    assert np.array_equal(drawn, mask == 1)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "images" / f"{name}.png" for name in "abc"]
    for number, path in enumerate(paths):
        draw_picture(path, size=(12, 8), seed=number)
    return paths


def save(tmp_path: Path, name: str, mask: np.ndarray, suffix: str = ".png") -> Path:
    path = tmp_path / "saved" / f"{name}{suffix}"
    path.parent.mkdir(exist_ok=True)
    write_mask(mask, path)
    return path


def test_numbers_mean_what_the_client_said(tmp_path: Path, images: list[Path]) -> None:
    mask = np.zeros((8, 12), np.uint8)
    mask[:2], mask[4:] = 1, 7
    named = {"label_info": [{"name": "Cup", "idx": 1}, {"name": "optic disc", "idx": 7}]}
    other = {"label_info": [{"name": "vessel", "idx": 1}]}
    saved = [
        SavedLabel(images[0], save(tmp_path, "a", mask), named),
        SavedLabel(images[1], save(tmp_path, "b", (mask > 0).astype(np.uint8), ".nrrd"), {}),
        SavedLabel(images[2], save(tmp_path, "c", mask), other),
    ]
    path, problems = write_training_list(saved, ["optic disc", "cup"], tmp_path / "work")
    records = json.loads(path.read_text())["training"]
    assert not problems and [Path(r["image"]).name for r in records] == ["a.png", "b.png"]
    first = np.asarray(Image.open(records[0]["label"]))
    assert first[0, 0] == 2 and first[5, 0] == 1 and first[3, 0] == 0


def test_one_label_is_every_number_that_has_no_name(tmp_path: Path, images: list[Path]) -> None:
    mask = np.full((8, 12), 255, np.uint8)
    saved = [SavedLabel(image, save(tmp_path, image.stem, mask), {}) for image in images[:2]]
    path, _ = write_training_list(saved, ["vessel"], tmp_path / "work")
    assert np.asarray(Image.open(json.loads(path.read_text())["training"][0]["label"])).max() == 1


def test_bad_labels_are_left_out_and_too_few_refused(tmp_path: Path, images: list[Path]) -> None:
    good, small = np.ones((8, 12), np.uint8), np.ones((4, 4), np.uint8)
    saved = [
        SavedLabel(images[0], save(tmp_path, "a", good), {}),
        SavedLabel(images[1], save(tmp_path, "b", small), {}),
    ]
    with pytest.raises(RequestRefused, match=r"at least two pictures.*there are 1 with vessel \(b.png is left out"):
        write_training_list(saved, ["vessel"], tmp_path / "work")
    saved.append(SavedLabel(images[2], save(tmp_path, "c", good), {}))
    _, problems = write_training_list(saved, ["vessel"], tmp_path / "work")
    assert len(problems) == 1 and "4 wide" in problems[0]


def test_labels_of_volumes_keep_their_grid(tmp_path: Path) -> None:
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 1:3, 2:4] = 3
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    saved = []
    for name in "ab":
        write_mask(mask, tmp_path / f"{name}_label.nii.gz", affine)
        info = {"label_info": [{"name": "spleen", "idx": 3}]}
        saved.append(SavedLabel(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_label.nii.gz", info))
    path, problems = write_training_list(saved, ["spleen"], tmp_path / "work", volumes=True)
    written = nibabel.load(json.loads(path.read_text())["training"][1]["label"])
    assert (
        not problems and np.array_equal(np.asarray(written.dataobj), mask // 3) and np.allclose(written.affine, affine)
    )


def outline(*corners: tuple[int, int], name: str = "Nucleus") -> str:
    places = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(corners))
    return f'<Annotation Name="{name}" Type="Polygon"><Coordinates>{places}</Coordinates></Annotation>'


def test_outlines_of_qupath_train_too(tmp_path: Path, images: list[Path]) -> None:
    square = outline((2, 1), (6, 1), (6, 5), (2, 5)) + outline((0, 0), (1, 0), (1, 1), (0, 1), name="Other")
    (tmp_path / "a.xml").write_text(f"<ASAP_Annotations><Annotations>{square}</Annotations></ASAP_Annotations>")
    saved = [SavedLabel(image, tmp_path / "a.xml", {}) for image in images[:2]]
    path, _ = write_training_list(saved, ["nucleus"], tmp_path / "work")
    mask = np.asarray(Image.open(json.loads(path.read_text())["training"][0]["label"]))
    assert mask[1:5, 2:6].all() and mask.sum() == 16


@pytest.mark.parametrize("text", ["", "no xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "<a><Annotation/></a>"])
def test_xml_that_is_no_outline(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(RequestRefused):
        read_outlines(tmp_path / "a.xml", (4, 4))
