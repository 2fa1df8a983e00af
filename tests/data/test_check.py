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

import numpy as np
import pytest
from PIL import Image

from monai_ext.__main__ import main
from monai_ext.data.check import check_data
from monai_ext.data.splits import SegmentationData

SIDE = 64


def photograph(number: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)


def vessels(number: int, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[number] = 255
    return mask


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three people to train on and one to test on, nothing wrong."""
    for number, split in ((1, "training"), (2, "training"), (3, "training"), (4, "test")):
        save(photograph(number), tmp_path / split / "images" / f"{number}.png")
        save(vessels(number), tmp_path / split / "masks" / f"{number}_seg.png")
    return tmp_path


def train(folder: Path, kind: str, number: int) -> Path:
    return folder / "training" / kind / (f"{number}.png" if kind == "images" else f"{number}_seg.png")


def no_mask(folder: Path) -> None:
    train(folder, "masks", 1).unlink()


def no_image(folder: Path) -> None:
    train(folder, "images", 1).unlink()


def other_size(folder: Path) -> None:
    save(vessels(1, 80), train(folder, "masks", 1))


def field_of_view_of_other_size(folder: Path) -> None:
    for number in (1, 2, 3):
        save(np.full((SIDE + (number == 1), SIDE), 255, np.uint8), folder / "training" / "fov" / f"{number}.png")


def field_of_view_missing(folder: Path) -> None:
    for number in (2, 3):
        save(np.full((SIDE, SIDE), 255, np.uint8), folder / "training" / "fov" / f"{number}.png")


def field_of_view_empty(folder: Path) -> None:
    for number in (1, 2, 3):
        save(np.full((SIDE, SIDE), 255 * (number > 1), np.uint8), folder / "training" / "fov" / f"{number}.png")


def three_values(folder: Path) -> None:
    mask = vessels(1)
    mask[10] = 128
    save(mask, train(folder, "masks", 1))


def many_values(folder: Path) -> None:
    save(photograph(1)[..., 0], train(folder, "masks", 1))


def nothing_marked(folder: Path) -> None:
    save(np.zeros((SIDE, SIDE), np.uint8), train(folder, "masks", 1))


def everything_marked(folder: Path) -> None:
    save(np.full((SIDE, SIDE), 255, np.uint8), train(folder, "masks", 1))


def cut_off(folder: Path) -> None:
    path = train(folder, "images", 1)
    path.write_bytes(path.read_bytes()[:2000])


def zero_bytes(folder: Path) -> None:
    train(folder, "masks", 1).write_bytes(b"")


def constant(folder: Path) -> None:
    save(np.full((SIDE, SIDE, 3), 7, np.uint8), train(folder, "images", 1))


def not_a_number(folder: Path) -> None:
    train(folder, "images", 1).unlink()
    save(np.full((SIDE, SIDE), np.nan, np.float32), folder / "training" / "images" / "1.tif")


def thumbnail(folder: Path) -> None:
    save(photograph(1, 20), train(folder, "images", 1))
    save(vessels(1, 20), train(folder, "masks", 1))


def person_in_two_splits(folder: Path) -> None:
    for number, split, eye in ((5, "training", "L"), (6, "test", "R")):
        save(photograph(number), folder / split / "images" / f"5{eye}.png")
        save(vessels(number), folder / split / "masks" / f"5{eye}_seg.png")


def copy_in_training(folder: Path) -> None:
    train(folder, "images", 2).write_bytes(train(folder, "images", 1).read_bytes())


def copy_in_test(folder: Path) -> None:
    (folder / "test" / "images" / "4.png").write_bytes(train(folder, "images", 1).read_bytes())


def mask_copied(folder: Path) -> None:
    train(folder, "masks", 2).write_bytes(train(folder, "masks", 1).read_bytes())


def one_test_mask_missing(folder: Path) -> None:
    save(photograph(7), folder / "test" / "images" / "7.png")


PROBLEMS = [
    (no_mask, "training/images/1.png has no mask; add its mask or take the image away."),
    (no_image, "training/masks/1_seg.png belongs to no image; name it as its image or take it away."),
    (
        other_size,
        "training/images/1.png and its mask training/masks/1_seg.png differ in size: 64x64 against 80x80; "
        "export the mask again at the image's size.",
    ),
    (
        field_of_view_of_other_size,
        "training/images/1.png and its field of view training/fov/1.png differ in size: 64x64 against 64x65; "
        "export the field of view again at the image's size.",
    ),
    (field_of_view_missing, "training/images/1.png has no field of view, others have; add it or take all away."),
    (field_of_view_empty, "training/fov/1.png marks no pixel as field of view; make it again."),
    (
        three_values,
        "training/masks/1_seg.png has 3 values (0, 128, 255) where a mask has two, background and foreground; "
        "export it without smoothing, not as JPEG, and with one label, or name its labels.",
    ),
    (
        many_values,
        "training/masks/1_seg.png has 255 values (0, 1, 2, 3, 4, ...) where a mask has two, background and foreground; "
        "export it without smoothing, not as JPEG, and with one label, or name its labels.",
    ),
    (
        nothing_marked,
        "training/masks/1_seg.png is empty: nothing is marked; mark it or take the pair away.",
    ),
    (
        everything_marked,
        "training/masks/1_seg.png marks every pixel (smallest value 255, background is 0); "
        "export it with background 0.",
    ),
    (cut_off, "training/images/1.png is damaged or cut off"),
    (zero_bytes, "training/masks/1_seg.png is empty (0 bytes)"),
    (constant, "training/images/1.png has the same colour everywhere"),
    (not_a_number, "training/images/1.tif must hold finite values"),
    (
        thumbnail,
        "training/images/1.png is only 20x20 pixels, less than 64 on a side; "
        "take the photograph in full size, not its thumbnail.",
    ),
    (person_in_two_splits, "Subject 5 is in training and test; put all images of a person into one split"),
    (
        copy_in_training,
        "training/images/2.png (training) has the same content as training/images/1.png (training); "
        "keep one of the two.",
    ),
    (
        copy_in_test,
        "test/images/4.png (test) has the same content as training/images/1.png (training); keep one of the two.",
    ),
    (
        mask_copied,
        "training/masks/2_seg.png (training) has the same content as training/masks/1_seg.png (training); "
        "keep one of the two.",
    ),
    (one_test_mask_missing, "test/images/7.png has no mask; add its mask or take the image away."),
]


@pytest.mark.parametrize(("damage", "sentence"), PROBLEMS, ids=[damage.__name__ for damage, _ in PROBLEMS])
def test_one_problem_is_one_sentence(damage, sentence: str, folder: Path):
    damage(folder)
    problems = [problem.replace(f"{folder}/", "") for problem in check_data(folder)]
    assert len(problems) == 1 and problems[0].startswith(sentence)
    assert not sentence.endswith(".") or problems[0] == sentence


def test_nothing_wrong(folder: Path):
    assert check_data(folder) == []
    assert check_data(SegmentationData(root=folder)) == []


def test_check_goes_on_after_a_problem(folder: Path):
    for damage in (cut_off, nothing_marked, person_in_two_splits, one_test_mask_missing):
        damage(folder)
    train(folder, "images", 2).unlink()
    train(folder, "images", 3).write_bytes((folder / "test" / "images" / "4.png").read_bytes())
    problems = check_data(folder)
    words = ("no image", "7.png has no mask", "Subject 5", "cut off", "nothing is marked", "same content")
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_a_test_set_published_without_masks_is_fine(folder: Path):
    (folder / "test" / "masks" / "4_seg.png").unlink()
    assert check_data(folder) == []


def test_what_was_read_is_checked_across_its_splits(folder: Path):
    data = SegmentationData(root=folder)
    data.validation.append(data.training[0])
    problems = check_data(data)
    assert any("Subject 1 is in training and validation" in problem for problem in problems)
    assert any("1.png (validation) has the same content" in problem for problem in problems)


def test_datalist_with_missing_files(folder: Path):
    entries = [{"image": "training/images/1.png", "label": "gone.png"}]
    (folder / "list.json").write_text(json.dumps({"training": entries}))
    problems = check_data(folder / "list.json")
    assert len(problems) == 1 and "gone.png is not a file" in problems[0]


def test_what_cannot_be_listed_is_one_problem(folder: Path, tmp_path: Path):
    assert check_data(folder, subject="(")[0].startswith("`subject` must be a regular expression")
    assert check_data(folder, layout="drive")[0].startswith(f"{folder} holds no images that we know how to find.")
    assert check_data(tmp_path / "nowhere")[0].startswith(f"{tmp_path / 'nowhere'} does not exist")


def test_real_photographs_are_in_order(shared_data: Path, tmp_path: Path):
    data = SegmentationData(root=shared_data / "chase_db1")
    data.training, data.validation, data.test = data.training[:1], data.validation[:1], data.test[:1]
    assert check_data(data) == []
    hrf = SegmentationData(root=shared_data / "hrf")
    hrf.training, hrf.validation = hrf.training[:1], []
    assert check_data(hrf) == []


def test_command_check(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "check", str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"{folder} is in order: 4 images with masks (folders), 3 for training, 0 for validation, 1 for test.\n"
    )
    nothing_marked(folder)
    no_image(folder)
    assert main(["data", "check", str(folder), "--layout", "folders"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and f"{train(folder, 'masks', 1)} belongs to no image" in lines[0]


def test_command_list(folder: Path, capsys: pytest.CaptureFixture[str]):
    out = folder / "lists" / "own.json"
    assert main(["data", "list", str(folder), str(out), "--validation", "0.3"]) == 0
    expected = f"{out} lists 4 images with masks (folders), 2 for training, 1 for validation, 1 for test.\n"
    assert capsys.readouterr().out == expected
    data = SegmentationData(root=out)
    assert [len(split) for split in (data.training, data.validation, data.test)] == [2, 1, 1]
    assert data.training[0]["image"] == str(train(folder, "images", 1))
    assert main(["data", "list", str(folder), str(out), "--subject", "(s)"]) == 1
    assert "error: Subject s is in" in capsys.readouterr().err
    assert SegmentationData(root=out).training == data.training


def test_command_phantoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "phantoms", str(tmp_path), "--count", "4", "--size", "64", "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"{tmp_path} holds 4 synthetic images with masks.\n"
    assert check_data(tmp_path) == []
    data = SegmentationData(root=tmp_path, validation=0.5)
    assert (len(data.training), len(data.validation)) == (2, 2)
    assert all({"image", "label", "fov"} < set(record) for record in data.training)
