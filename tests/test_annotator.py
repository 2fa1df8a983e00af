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


"""The simulated annotator (``tests/benchmarks/annotator.py``) works; its figures are not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from base_sources import write_sources

from tests.benchmarks import annotator
from tests.benchmarks.annotator_report import clicks_to, interval


def test_a_task_from_images_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sources(tmp_path / "data")
    for name, value in {"CLICKS": 2, "WINDOW": 32, "BATCH": 1, "ROUNDS": 2, "LR": 0.01}.items():
        monkeypatch.setattr(annotator, name, value)
    results = tmp_path / "found" / "annotator.json"
    words = [str(tmp_path / "data"), "--results", str(results), "--machine", "a test"]
    assert annotator.main([*words, "--only", "nuclei", "--steps", "3"]) == 0
    record = json.loads(results.read_text())["nuclei"]
    assert record["saved"] == 16 and record["steps"] == 3
    # One test image with two nuclei, two clicks each, and tuning has changed what they give.
    assert [[len(one) for one in image] for image in record["before"]] == [[2, 2]]
    assert record["before"] != record["after"]
    page = capsys.readouterr().out
    assert "| nuclei, the last images of DSB 2018's stained tissue: 2 in 1 images | IoU 0.8 |" in page
    assert "a test" in page and results.with_suffix(".md").read_text() == page
    assert results.with_suffix(".png").stat().st_size > 1000
    before = results.read_bytes()
    assert annotator.main([*words, "--report"]) == 0 and results.read_bytes() == before


def test_a_slice_that_is_there_several_times_counts_once() -> None:
    image = torch.rand(1, 20, 20, 6).repeat_interleave(4, -1)
    label = torch.zeros(1, 20, 20, 24)
    label[:, 3:18, 3:18, 4:] = 1  # five different slices
    saved, test = annotator.halves({"image": image, "label": label})
    assert len(saved) == len(test) == 2
    assert not [1 for a in saved for b in test if torch.equal(a["image"], b["image"])]


def test_tuning_and_test_share_no_image(tmp_path: Path) -> None:
    write_sources(tmp_path)
    data = annotator.recipe(tmp_path).get_parsed_content("data")
    for task in (task for name, task in annotator.TASKS.items() if name not in annotator.VOLUMES):
        saved = {record["image"] for record in getattr(data, task.source)}
        assert saved and not saved & {record["image"] for record in getattr(data, f"{task.source}_validation")}


def test_clicks_until_the_goal() -> None:
    scores = [[[0.5, 0.85, 0.95], [0.9, 0.1, 0.1]], [[0.1, 0.2, 0.3]]]
    assert clicks_to(0.8, scores) == [[2, 1], [3]]
    assert interval([[2, 1], [3]]) == "2.00 (1.50 .. 3.00)"
