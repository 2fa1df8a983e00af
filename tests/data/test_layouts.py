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
import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_ext.data.layouts import LAYOUTS
from monai_ext.data.pictures import pictures_by_affix
from monai_ext.data.splits import SegmentationData, hold_out_subjects, write_datalist

CHASE = [f"{n:02}{eye}" for n in range(1, 15) for eye in "LR"]
STARE = [1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324]
HRF = [f"{n:02}_{kind}" for kind in ("h", "dr", "g") for n in range(1, 16)]
DRIVE = [(n, "test" if n < 21 else "training") for n in range(1, 41)]

# layout, the files of the set as it is distributed, images to train and test on, persons, with field of view or not
DISTRIBUTED = {
    "CHASE_DB1, one folder": (
        "chase_db1",
        [f"Image_{n}{end}" for n in CHASE for end in (".jpg", "_1stHO.png", "_2ndHO.png")],
        (20, 8),
        (10, 4),
        False,
    ),
    "CHASE_DB1, training and test folders": (
        "chase_db1",
        [
            name
            for n in CHASE
            for split in ["training" if int(n[:2]) <= 10 else "test"]
            for name in (
                f"{split}/images/Image_{n}.jpg",
                f"{split}/mask/Image_{n}_1stHO.png",
                f"second_observer/Image_{n}_2ndHO.png",
                f"fov/Image_{n}.gif",
            )
        ],
        (20, 8),
        (10, 4),
        True,
    ),
    "DRIVE": (
        "drive",
        [f"{split}/images/{n:02}_{split}.tif" for n, split in DRIVE]
        + [f"{split}/1st_manual/{n:02}_manual1.gif" for n, split in DRIVE]
        + [f"test/2nd_manual/{n:02}_manual2.gif" for n in range(1, 21)]
        + [f"{split}/mask/{n:02}_{split}_mask.gif" for n, split in DRIVE],
        (20, 20),
        (20, 20),
        True,
    ),
    "STARE, two folders": (
        "stare",
        [name for n in STARE for name in (f"stare-images/im{n:04}.ppm", f"labels-ah/im{n:04}.ah.ppm")]
        + [f"labels-vk/im{n:04}.vk.ppm" for n in STARE],
        (10, 10),
        (10, 10),
        False,
    ),
    "STARE, one folder": (
        "stare",
        [f"im{n:04}{end}" for n in STARE for end in (".ppm", ".ah.ppm", ".vk.ppm")],
        (10, 10),
        (10, 10),
        False,
    ),
    "HRF": (
        "hrf",
        [f"images/{n}.{'JPG' if n[-1] == 'r' else 'jpg'}" for n in HRF]
        + [f"manual1/{n}.tif" for n in HRF]
        + [f"mask/{n}_mask.tif" for n in HRF],
        (15, 30),
        (15, 30),
        True,
    ),
    "HRF, vessels in mask/": (
        "hrf",
        [name for n in HRF if int(n[:2]) <= 5 for name in (f"images/{n}.jpg", f"mask/{n}.tif")],
        (15, 0),
        (15, 0),
        False,
    ),
    "FIVES": (
        "fives",
        [
            f"{split}/{folder}/{n}_{kind}.png"
            for split, per_kind in (("train", 3), ("test", 2))
            for kind in "ADGN"
            for n in range(1, per_kind + 1)
            for folder in ("Original", "Ground truth")
        ],
        (12, 8),
        (12, 8),
        False,
    ),
    "own": (
        "folders",
        [f"{folder}/{n}{eye}.png" for n in (1, 2, 3) for eye in "LR" for folder in ("images", "masks")],
        (6, 0),
        (3, 0),
        False,
    ),
    "own, with training, test and fields of view": (
        "folders",
        [
            f"{split}/{name}"
            for split, people in (("training", (1, 2)), ("test", (3,)))
            for n in people
            for name in (f"images/p{n}_left.jpg", f"labels/p{n}_left_mask.png", f"fov/p{n}_left_fov.png")
        ],
        (2, 1),
        (2, 1),
        True,
    ),
}


def write_pictures(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.diag(np.full(4, 255, np.uint8))).save(path)
    return root


def persons(records: list[dict[str, str]]) -> set[str]:
    return {record["subject"] for record in records}


@pytest.mark.parametrize("case", DISTRIBUTED)
def test_layout_as_distributed(case: str, tmp_path: Path):
    layout, names, images, people, fov = DISTRIBUTED[case]
    data = SegmentationData(root=write_pictures(tmp_path, *names), validation=0)
    assert data.layout == layout
    assert (len(data.training), len(data.test)) == images
    assert (len(persons(data.training)), len(persons(data.test))) == people
    assert data.validation == []
    for record in data.training + data.test:
        assert set(record) == {"image", "label", "subject"} | ({"fov"} if fov else set())
        for name in set(record) - {"subject"}:
            assert Path(record[name]).is_absolute() and Path(record[name]).is_file()
        key = Path(record["image"]).stem.removesuffix("_training").removesuffix("_test")
        assert all(key in Path(record[name]).stem for name in set(record) - {"subject"})
        assert "2nd" not in record["label"] and ".vk" not in record["label"]
    assert SegmentationData(root=tmp_path, layout=layout, validation=0).training == data.training


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folders"])
def test_public_sets_name_their_source(layout: str):
    entry = LAYOUTS[layout]
    assert entry.page.startswith("https://") and entry.source and entry.licence and entry.split


def test_splits_of_the_literature(tmp_path: Path):
    chase = SegmentationData(root=write_pictures(tmp_path / "c", *DISTRIBUTED["CHASE_DB1, one folder"][1]))
    assert persons(chase.test) == {"11", "12", "13", "14"} and persons(chase.validation) == {"09", "10"}
    hrf = SegmentationData(root=write_pictures(tmp_path / "h", *DISTRIBUTED["HRF"][1]), validation=0)
    assert persons(hrf.training) == {f"0{n}_{kind}" for n in range(1, 6) for kind in ("h", "dr", "g")}
    stare = SegmentationData(root=write_pictures(tmp_path / "s", *DISTRIBUTED["STARE, one folder"][1]), validation=0)
    assert persons(stare.training) == {f"im{n:04}" for n in STARE[:10]}


def test_real_sets(shared_data: Path):
    chase = SegmentationData(root=shared_data / "chase_db1")
    assert (chase.layout, len(chase.training), len(chase.validation), len(chase.test)) == ("chase_db1", 16, 4, 8)
    assert all("fov" in record for record in chase.training + chase.test)
    hrf = SegmentationData(root=shared_data / "hrf", validation=0)
    assert (hrf.layout, len(hrf.training), len(hrf.test)) == ("hrf", 15, 0)
    disc = SegmentationData(root=shared_data / "idrid_disc")
    assert (disc.layout, len(disc.training), len(disc.validation)) == ("idrid", 9, 3)
    nuclei = SegmentationData(root=shared_data / "dsb2018_stained")
    assert (nuclei.layout, len(nuclei.training), len(nuclei.validation)) == ("dsb2018", 63, 16)


def test_packed_pictures_say_how_to_unpack(tmp_path: Path):
    (tmp_path / "stare-images").mkdir()
    (tmp_path / "stare-images" / "im0001.ppm.gz").touch()
    with pytest.raises(ValueError, match=r"im0001\.ppm\.gz is packed.*gunzip"):
        SegmentationData(root=tmp_path)


def test_unknown_folder_lists_the_layouts(tmp_path: Path):
    with pytest.raises(ValueError) as error:
        SegmentationData(root=tmp_path)
    assert all(f"{name}: {layout.looks_for}" in str(error.value) for name, layout in LAYOUTS.items())
    with pytest.raises(ValueError, match="drive: training/") as error:
        SegmentationData(root=tmp_path, layout="drive")
    assert "stare" not in str(error.value)
    with pytest.raises(ValueError, match=r"`layout` must be one of chase_db1, .* not 'kaggle'"):
        SegmentationData(root=tmp_path, layout="kaggle")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        SegmentationData(root=tmp_path / "nowhere")


names = st.text("ab1LR_-", min_size=1, max_size=6)


@given(names=st.sets(names, min_size=1, max_size=12), tested=st.sets(names, max_size=6), share=st.floats(0, 0.99))
@settings(max_examples=40, deadline=None)
def test_no_subject_is_in_two_splits_whatever_the_names(names: set[str], tested: set[str], share: float):
    with tempfile.TemporaryDirectory() as folder:
        for split, stems in (("", names), ("test/", tested)):
            for path in (Path(folder, f"{split}{kind}/{stem}.png") for stem in stems for kind in ("images", "masks")):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        try:
            data = SegmentationData(root=folder, validation=share)
        except ValueError as error:
            assert "is in training and test" in str(error) or "holds out all" in str(error)
            return
    splits = [persons(split) for split in (data.training, data.validation, data.test)]
    assert sum(map(len, splits)) == len(set.union(*splits))
    assert len(data.training + data.validation) == len(names) and len(data.test) == len(tested)
    assert bool(data.validation) == (share > 0)


@given(subjects=st.sets(names, min_size=2, max_size=9), percent=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_last_subjects_are_held_out(subjects: set[str], percent: int):
    records = [{"subject": name, "image": f"{name}{eye}"} for name in subjects for eye in "LR"]
    stay, held = hold_out_subjects(records, percent / 100)
    assert len(stay) + len(held) == len(records)
    assert len(persons(held)) == -(-percent * len(subjects) // 100)
    assert not held or max(persons(stay)) < min(persons(held))


def test_shares_are_not_rounded_up_by_floating_point():
    records = [{"subject": f"{n:03}"} for n in range(100)]
    assert [len(hold_out_subjects(records, share)[1]) for share in (0.07, 0.14, 0.28, 0.55, 0.001)] == [
        7,
        14,
        28,
        55,
        1,
    ]


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("images/Image_01L.jpg", "Image_01"),
        ("images/12_R.png", "12"),
        ("images/7-OD.png", "7"),
        ("images/10_left.jpeg", "10"),
        ("images/01_dr.jpg", "01_dr"),
        ("images/RADAR.png", "RADAR"),
        ("training/images/scan.2024.tif", "scan.2024"),
    ],
)
def test_own_subjects_are_names_up_to_the_eye(path: str, subject: str):
    assert LAYOUTS["folders"].subject_of(path) == subject


def test_own_subjects_by_regular_expression(tmp_path: Path):
    write_pictures(tmp_path, *(f"{d}/s{n}_visit{v}.png" for n in "123" for v in "12" for d in ("images", "masks")))
    data = SegmentationData(root=tmp_path, subject=r"(s\d)_visit")
    assert persons(data.training) == {"s1", "s2"} and persons(data.validation) == {"s3"}
    with pytest.raises(ValueError, match=r"'patient' finds none in images/s1_visit1\.png"):
        SegmentationData(root=tmp_path, subject="patient")
    with pytest.raises(ValueError, match=r"`subject` must be a regular expression, not '\('"):
        SegmentationData(root=tmp_path, subject="(")


@pytest.mark.parametrize("affix", ["{}_mask", "{}_1stHO", "{}.ah", "seg-{}", "manual 1 {}", "{}_vessel_mask", "{}"])
def test_own_masks_carry_one_prefix_or_suffix(affix: str, tmp_path: Path):
    images = ["1", "1_2", "b-3"]
    write_pictures(tmp_path, *(f"{affix.format(name)}.png" for name in images[1:]))
    found = pictures_by_affix(tmp_path, images)
    assert {name: path.stem for name, path in found.items()} == {name: affix.format(name) for name in images[1:]}


def test_masks_of_two_observers_are_refused(tmp_path: Path):
    write_pictures(tmp_path, "images/1.png", "masks/1_first.png", "masks/1_second.png")
    with pytest.raises(ValueError, match=r"several masks for an image .*_first.*_second"):
        SegmentationData(root=tmp_path)
    write_pictures(tmp_path / "b", "images/1.png", "masks/1.png", "labels/1.png")
    with pytest.raises(ValueError, match="has both masks/ and labels/"):
        SegmentationData(root=tmp_path / "b")
    write_pictures(tmp_path / "c", "images/1.png", "images/1.jpg", "masks/1.png")
    with pytest.raises(ValueError, match="have the same name"):
        SegmentationData(root=tmp_path / "c")


def test_training_image_without_mask_is_refused(tmp_path: Path):
    write_pictures(tmp_path, "images/1.png", "images/2.png", "masks/1.png")
    with pytest.raises(ValueError, match=r"images/2\.png has no mask"):
        SegmentationData(root=tmp_path)


def test_test_image_without_mask_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_pictures(tmp_path, *(f"{folder}/{n}.png" for folder in ("images", "masks") for n in "12"))
    write_pictures(tmp_path, "test/images/3.png", "test/images/4.png", "test/masks/4.png", "masks/9.png")
    with caplog.at_level(logging.WARNING):
        data = SegmentationData(root=tmp_path)
    assert persons(data.test) == {"4"} and len(data.training) == len(data.validation) == 1
    assert "test/images/3.png has no mask" in caplog.text and "masks/9.png belongs to no image" in caplog.text


def test_a_subject_in_two_splits_is_refused(tmp_path: Path):
    write_pictures(
        tmp_path,
        *(f"{split}/{d}/1{eye}.png" for split, eye in (("training", "L"), ("test", "R")) for d in ("images", "masks")),
    )
    with pytest.raises(ValueError, match="Subject 1 is in training and test"):
        SegmentationData(root=tmp_path)
    assert len(SegmentationData(root=tmp_path, subject="(.+)", validation=0).test) == 1


def test_own_validation_folder_is_used_as_it_is(tmp_path: Path):
    write_pictures(
        tmp_path,
        *(f"{split}/{d}/{split}.png" for split in ("train", "validation", "test") for d in ("images", "masks")),
    )
    data = SegmentationData(root=tmp_path)
    assert [len(split) for split in (data.training, data.validation, data.test)] == [1, 1, 1]


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_validation_must_be_a_share(share: float, tmp_path: Path):
    with pytest.raises(ValueError, match="`validation` must be a share"):
        SegmentationData(root=tmp_path, validation=share)


def test_datalist_survives_a_round_trip(tmp_path: Path):
    data = SegmentationData(root=write_pictures(tmp_path / "set", *DISTRIBUTED["DRIVE"][1]))
    write_datalist(data, tmp_path / "lists" / "drive.json")
    written = json.loads((tmp_path / "lists" / "drive.json").read_text())
    assert written["training"][0]["image"] == "../set/training/images/21_training.tif"
    assert "Staal" in written["reference"] and written["licence"]
    again = SegmentationData(root=tmp_path / "lists" / "drive.json", validation=0.9)
    assert again.layout == "drive"
    for split in ("training", "validation", "test"):
        assert getattr(again, split) == getattr(data, split)
    loaded = load_decathlon_datalist(tmp_path / "lists" / "drive.json", data_list_key="validation")
    assert [record["image"] for record in loaded] == [record["image"] for record in data.validation]


def write_datalist_of(folder: Path, content: object) -> Path:
    path = folder / "list.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_datalist_without_validation_holds_out_subjects(tmp_path: Path):
    write_pictures(tmp_path, "1_L.png", "1_R.png", "2_L.png", "3.png")
    pair = {name: {"image": f"{name}.png", "label": f"{name}.png"} for name in ("1_L", "1_R", "2_L", "3")}
    content = {"training": [pair["1_L"], pair["2_L"], pair["1_R"]], "testing": [pair["3"]]}
    data = SegmentationData(root=write_datalist_of(tmp_path, content), validation=0.5)
    assert (persons(data.training), persons(data.validation), persons(data.test)) == ({"1"}, {"2"}, {"3"})
    data = SegmentationData(root=write_datalist_of(tmp_path, {**content, "validation": []}), validation=0.5)
    assert (len(data.training), len(data.validation)) == (3, 0)
    with pytest.raises(ValueError, match="Subject 1 is in training and validation"):
        leaky = {"training": [pair["1_L"]], "validation": [pair["1_R"]]}
        SegmentationData(root=write_datalist_of(tmp_path, leaky))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "list.json must be a MONAI datalist"),
        ([], "must hold lists named training"),
        ({"train": []}, "must hold lists named training"),
        ({"training": ["1.png"]}, "`training` must be a list of"),
        ({"training": [{"label": "1.png"}]}, "`image` must be one path in all of `training`, not None"),
        ({"training": [{"image": "1.png", "label": 3}]}, "`label` must be one path in all of `training`, not 3"),
        ({"training": [{"image": "1.png"}]}, "1.png has no mask"),
        ({"training": [{"image": "1.png", "label": "gone.png"}]}, "gone.png does not exist"),
        ({"training": [{"image": "1.png", "label": "1.png"}]}, "holds out all of the training subjects"),
    ],
)
def test_bad_datalist_says_what_is_wrong(content: object, message: str, tmp_path: Path):
    write_pictures(tmp_path, "1.png")
    with pytest.raises(ValueError, match=message):
        SegmentationData(root=write_datalist_of(tmp_path, content))
