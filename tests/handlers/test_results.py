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

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ext.handlers import results
from monai_ext.handlers.results import SegmentationWriter


def case(name: str = "eye.png", labels: int = 1) -> dict:
    chances = np.zeros((labels, 10, 25))
    chances[0, 2:6, 3:20] = 0.8
    chances[-1, 4:6, 3:20] = 1
    return {"name": name, "chances": chances}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Failures:
    paths = ()

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def at_end(self, action) -> None:
        pass

    def add_failure(self, path: str, reason: str) -> None:
        self.found[path] = reason


def test_one_label_gives_a_mask_people_see_a_map_and_an_overlay_upright(tmp_path, make_evaluator):
    fov = np.zeros((1, 10, 25))
    fov[:, :, :10] = 1
    make_evaluator([{**case(), "fov": fov}], [SegmentationWriter(output_dir=tmp_path, labels=["vessel"])]).run()
    chances = case()["chances"][0]
    mask, chance = pixels(tmp_path / "eye_mask.png"), pixels(tmp_path / "eye_probability.png")
    assert mask.dtype == np.uint8 and np.array_equal(mask, 255 * (chances > 0.5))
    assert chance.dtype == np.uint16 and np.abs(chance / 65535 - chances).max() < 1e-4
    assert pixels(tmp_path / "eye_overlay.jpg").shape == (10, 25, 3)
    (row,) = table(tmp_path)
    assert (row["width"], row["height"], row["label"], row["pixels"]) == ("25", "10", "vessel", "68")
    assert float(row["share"]) == pytest.approx(4 * 7 / 100)
    assert float(row["mean_probability"]) == pytest.approx(0.9, abs=1e-4)
    assert [row[key] for key in ("mask", "probability", "overlay")] == [
        "eye_mask.png",
        "eye_probability.png",
        "eye_overlay.jpg",
    ]
    assert Path(row["image"]).name == "eye.png"


def test_several_labels_are_numbered_and_have_a_map_each(tmp_path, make_evaluator):
    writer = SegmentationWriter(output_dir=tmp_path / "out", labels=["disc", "cup"], overlay=False)
    make_evaluator([case(labels=2)], [writer]).run()
    mask = pixels(tmp_path / "out" / "eye_mask.png")
    assert (mask[0, 0], mask[2, 5], mask[5, 5]) == (0, 1, 2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "eye_mask.png",
        "eye_probability_cup.png",
        "eye_probability_disc.png",
        "results.csv",
    ]
    assert [row["label"] for row in table(tmp_path / "out")] == ["disc", "cup"]


def test_an_empty_mask_has_no_mean_probability(tmp_path, make_evaluator):
    make_evaluator(
        [{"name": "a.png", "chances": np.zeros((1, 6, 8))}], [SegmentationWriter(output_dir=tmp_path, labels=["v"])]
    ).run()
    (row,) = table(tmp_path)
    assert (row["pixels"], row["share"], row["mean_probability"]) == ("0", "0.0", "")


def test_same_names_in_two_folders_keep_their_own_files(tmp_path, make_evaluator):
    writer = SegmentationWriter(output_dir=tmp_path / "out", labels=["vessel"])
    make_evaluator([case("a/x.png"), case("b/x.png")], [writer]).run()
    assert [row["mask"] for row in table(tmp_path / "out")] == ["x_mask.png", "x-2_mask.png"]


def failing(name: str):
    whole = results.write_picture

    def write(path: Path, picture: np.ndarray) -> None:
        if path.name == name:
            raise OSError(f"{path} could not be saved: no space left on device.")
        whole(path, picture)

    return write


def test_a_failed_write_is_reported_and_the_rest_goes_on(tmp_path, make_evaluator, monkeypatch):
    monkeypatch.setattr(results, "write_picture", failing("1_overlay.jpg"))
    failures = Failures()
    writer = SegmentationWriter(output_dir=tmp_path / "out", labels=["vessel"], images=failures)
    make_evaluator([case(f"{n}.png") for n in range(3)], [writer]).run()
    assert [Path(row["image"]).name for row in table(tmp_path / "out")] == ["0.png", "2.png"]
    ((path, reason),) = failures.found.items()
    assert Path(path).name == "1.png" and "1_overlay.jpg could not be saved" in reason


def test_without_a_list_of_failures_the_error_ends_the_run_but_keeps_the_rows(tmp_path, make_evaluator, monkeypatch):
    monkeypatch.setattr(results, "write_picture", failing("1_mask.png"))
    evaluator = make_evaluator(
        [case(f"{n}.png") for n in range(3)], [SegmentationWriter(output_dir=tmp_path / "out", labels=["vessel"])]
    )
    with pytest.raises(OSError, match=r"1_mask\.png could not be saved"):
        evaluator.run()
    assert len(table(tmp_path / "out")) == 1


def test_bad_arguments_are_told_before_anything_runs(tmp_path, make_evaluator):
    with pytest.raises(ValueError, match="labels must be a list of 1 to 255 names"):
        SegmentationWriter(output_dir=tmp_path, labels=[])
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        make_evaluator([case()], [SegmentationWriter(output_dir=tmp_path / "file" / "out", labels=["vessel"])])
    evaluator = make_evaluator([case()], [SegmentationWriter(output_dir=tmp_path / "out", labels=["a", "b"])])
    with pytest.raises(ValueError, match=r"eye\.png: 'pred' must have 2 channels, not 1"):
        evaluator.run()
