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

"""Every public set is recognised as it is distributed, and its masks come out where they were drawn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from public_sets import COPIES, INNER, OUTER, Copy, D, H, W, drishti, g1020, papila, picture, save, square

from monai_ext.__main__ import main
from monai_ext.data import LabelReader, SegmentationData
from monai_ext.data.check import check_data, examine_data
from monai_ext.data.layouts import LAYOUTS
from monai_ext.data.sheet import GAP, LINE, TILE, write_sheet
from monai_ext.data.splits import write_datalist

VESSELS = {"chase_db1", "drive", "stare", "hrf", "fives"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("set") for name in COPIES}
    for name, copy in COPIES.items():
        copy.write(folders[name])
    return folders


def split_sizes(data: SegmentationData) -> tuple[int, int, int]:
    return len(data.training), len(data.validation), len(data.test)


def everything(data: SegmentationData) -> list[dict]:
    return data.training + data.validation + data.test


def expected(copy: Copy) -> dict[str, np.ndarray]:
    outer = square(OUTER) if copy.whole else square(OUTER) & ~square(INNER)
    if copy.layout in ("totalsegmentator", "chestxdet"):  # labels with files or polygons of their own may overlap
        outer = square(OUTER)
    return {copy.outer: outer} | ({copy.inner: square(INNER)} if copy.inner else {})


def test_every_layout_has_a_copy():
    assert {copy.layout for copy in COPIES.values()} == set(LAYOUTS) - VESSELS - {"folders"}


@pytest.mark.parametrize("name", COPIES)
def test_set_as_distributed(name: str, written: dict[str, Path], tmp_path: Path):
    copy, root = COPIES[name], written[name]
    data = SegmentationData(root=root, validation=0)
    assert (data.layout, split_sizes(data)) == (copy.layout, copy.counts)
    assert {record["subject"] for record in everything(data)} == copy.subjects
    assert check_data(root) == []

    truth = expected(copy)
    reader = LabelReader(labels=list(truth), masks=data.masks)
    for record in everything(data):
        channels, meta = reader.get_data(record["label"])
        for channel, label in zip(channels, truth, strict=True):
            plane = channel[..., D - 1] if channel.ndim == 3 else channel
            wrong = plane.T.astype(bool) != truth[label]
            assert plane.shape == (W, H) and not wrong.any(), f"{label}: {np.argwhere(wrong)[:3]}"
        assert ("affine" in meta) == (channels.ndim == 4)

    write_datalist(data, tmp_path / "lists" / "all.json")
    again = SegmentationData(root=tmp_path / "lists" / "all.json", validation=0)
    assert again.layout == data.layout and everything(again) == everything(data)


@pytest.mark.parametrize("name", COPIES)
def test_no_other_layout_pairs_its_images(name: str, written: dict[str, Path]):
    for other in set(LAYOUTS) - {COPIES[name].layout}:
        try:
            found = LAYOUTS[other].find(written[name])
        except ValueError:
            continue
        assert not [r for records in found.values() for r in records if {"image", "label"} <= r.keys()], other


def test_sets_side_by_side_are_told_apart_by_name(written: dict[str, Path], tmp_path: Path):
    for name in ("AUS", "RUS"):
        COPIES[name].write(tmp_path)
    assert SegmentationData(root=tmp_path, validation=0).layout == "aus"
    assert split_sizes(SegmentationData(root=tmp_path, layout="rus", validation=0)) == (0, 0, 1)


@pytest.mark.parametrize("folder", ["", "Drishti-GS1_files"])
def test_a_set_may_lie_deeper(folder: str, tmp_path: Path):
    drishti(tmp_path)
    assert split_sizes(SegmentationData(root=tmp_path / folder, validation=0)) == (2, 0, 3)


def test_a_folder_is_walked_once(written: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    walked: list[str] = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: walked.append(str(top)) or walk(top))
    SegmentationData(root=written["DSB2018"], validation=0)
    assert walked == [str(written["DSB2018"])]


def test_idrid_has_a_flat_copy(tmp_path: Path):
    picture(tmp_path / "images/IDRiD_01.jpg")
    save(square(OUTER), tmp_path / "masks/IDRiD_01_OD.tif")
    assert SegmentationData(root=tmp_path, validation=0).layout == "idrid"


def test_a_cup_may_be_absent(tmp_path: Path):
    g1020(tmp_path)
    file = tmp_path / "G1020/Images/image_10.json"
    file.write_text(file.read_text().replace('"label": "cup"', '"label": "discLoc"'))
    problems, shown = examine_data(tmp_path)
    assert problems == [] and shown == {"optic disc": 3, "optic cup": 2}


def test_masks_of_another_size_are_an_error_not_resized(tmp_path: Path):
    drishti(tmp_path)
    picture(tmp_path / "Drishti-GS1_files/Training/Images/drishtiGS_002.png")
    wide = np.random.default_rng(0).integers(0, 255, (H + 2, W + 8, 3), dtype=np.uint8)
    save(wide, tmp_path / "Drishti-GS1_files/Training/Images/drishtiGS_004.png")
    (problem,) = check_data(tmp_path)
    assert "differ in size: 88x66 against 80x64; export the mask again" in problem


def test_without_its_table_a_set_says_what_is_known(tmp_path: Path):
    for name in ("TotalSegmentator", "GlaS"):
        COPIES[name].write(tmp_path / name)
        next((tmp_path / name).rglob("*.csv")).unlink()
    assert split_sizes(SegmentationData(root=tmp_path / "TotalSegmentator", validation=0)) == (3, 0, 0)
    glas = SegmentationData(root=tmp_path / "GlaS", validation=0)
    assert {record["subject"] for record in glas.training} == {"train_1", "train_2", "train_3"}


@pytest.mark.parametrize("content", ["image_id;part\ns0000;train\n", "image_id;split\ns0000;holdout\n", ""])
def test_a_broken_table_is_refused(content: str, tmp_path: Path):
    COPIES["TotalSegmentator"].write(tmp_path)
    (tmp_path / "meta.csv").write_text(content)
    with pytest.raises(ValueError, match=r"meta\.csv.*`split`.*copy it again"):
        SegmentationData(root=tmp_path)


def test_volumes_are_checked(tmp_path: Path):
    import nibabel

    COPIES["LiTS"].write(tmp_path)
    batch = tmp_path / "Training Batch 1"
    label = nibabel.load(batch / "segmentation-0.nii")
    nibabel.save(
        nibabel.Nifti1Image(label.get_fdata().astype(np.uint8), np.diag([1, 1, 3, 1])), batch / "segmentation-0.nii"
    )
    image = nibabel.load(batch / "volume-27.nii").get_fdata().astype(np.float32)
    image[3, 4, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(image, label.affine), batch / "volume-27.nii")
    mask = np.zeros((W, H, D + 1), np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, label.affine), tmp_path / "Training Batch 2/segmentation-130.nii")
    problems = check_data(tmp_path)
    assert len(problems) == 3
    assert "volume-0.nii and its mask" in problems[0] and "affines differ" in problems[0]
    assert "volume-27.nii must hold finite values" in problems[1]
    assert "80x64x3 against 80x64x4" in problems[2]


def test_command_check_counts_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    papila(tmp_path)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "Images that show it: optic disc 5, optic cup 5." in capsys.readouterr().out
    for n in range(3):
        picture(tmp_path / "own/images" / f"{n}.png")
        mask = np.where(square(OUTER), 1 + n % 2, 0).astype(np.uint8)
        mask[0, n] = 1
        save(mask, tmp_path / "own/masks" / f"{n}.png")
    assert main(["data", "check", str(tmp_path / "own"), "--labels", "vein", "artery"]) == 0
    assert "Images that show it: vein 3, artery 1." in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "own")]) == 1
    assert "or name its labels" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["PAPILA", "MSD", "GlaS", "ChestXDet"])
def test_sheet_shows_masks_in_the_colours_of_its_legend(name: str, written: dict[str, Path], tmp_path: Path):
    copy, out = COPIES[name], tmp_path / "sheet.png"
    labels = [copy.outer, *([copy.inner] if copy.inner else [])]
    assert write_sheet(written[name], out, labels=labels, count=1) == []
    sheet = np.asarray(Image.open(out)).astype(int)
    legend = GAP + len(labels) * LINE
    assert sheet.shape == (legend + TILE + LINE + 2 * GAP, TILE + 2 * GAP, 3)
    colours = [sheet[GAP + 5 + n * LINE, GAP + 5] for n in range(len(labels))]
    tile = sheet[legend + LINE : legend + LINE + H * TILE // W, GAP : GAP + TILE]
    # In the middle of its outline's left side each label has nearly its own colour.
    for colour, (left, _, _, bottom) in zip(colours, (OUTER, INNER), strict=False):
        x, y = round((left + 0.5) * TILE / W), round((bottom - 4) * TILE / W)
        near = tile[y, x - 3 : x + 4]
        assert np.abs(near - colour).max(axis=1).min() < 60, (name, colour, near)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_command_sheet_draws_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    papila(tmp_path / "set")
    out = tmp_path / "sheet.png"
    assert main(["data", "sheet", str(tmp_path / "set"), str(out), "--count", "9"]) == 0 and out.is_file()
    whole = np.asarray(Image.open(out)).shape
    next((tmp_path / "set").rglob("RET002OS.jpg")).write_bytes(b"")
    assert main(["data", "sheet", str(tmp_path / "set"), str(out)]) == 1
    assert "RET002OS.jpg" in capsys.readouterr().out
    assert np.asarray(Image.open(out)).shape != whole
    assert main(["data", "sheet", str(tmp_path / "set"), str(out), "--labels", "vein"]) == 1
    assert "`labels` must be of optic disc, optic cup, not vein" in capsys.readouterr().err
    assert main(["data", "sheet", str(tmp_path / "set"), str(out), "--count", "0"]) == 1
    for image in (tmp_path / "set").rglob("*.jpg"):
        image.write_bytes(b"")
    before = out.read_bytes()
    assert main(["data", "sheet", str(tmp_path / "set"), str(out)]) == 1
    assert "None of the images can be drawn" in capsys.readouterr().err and out.read_bytes() == before
