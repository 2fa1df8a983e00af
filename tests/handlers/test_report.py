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
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_ext.handlers.report import SCORES, EvaluationReport, label_scores, score_summary


def cases(count: int = 4, labels: int = 1, size: tuple[int, int] = (12, 20)) -> list[dict]:
    random = np.random.default_rng(3)
    made = []
    for number in range(count):
        label = random.random((labels, *size)) < 0.3
        chances = np.clip(0.4 * label + random.random(label.shape) * 0.6, 0, 1).round(2)
        made.append({"name": f"{number}.png", "chances": chances, "label": label})
    return made


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def brute_force(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    tp, fp = (pred & truth).sum(), (pred & ~truth).sum()
    fn, tn = (~pred & truth).sum(), (~pred & ~truth).sum()
    return {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
    }


def test_scores_per_image_are_those_of_the_formulas_inside_the_field_of_view(tmp_path, make_evaluator):
    data = cases()
    for case in data:
        case["fov"] = np.zeros((1, 12, 20))
        case["fov"][:, 2:9, 3:15] = 1
    evaluator = make_evaluator(data, [EvaluationReport(output_dir=tmp_path / "out", labels=["vessel"])], batch_size=2)
    evaluator.run()
    rows = read(tmp_path / "out" / "per_image_automatic.csv")
    assert [Path(row["image"]).name for row in rows] == [case["name"] for case in data]
    for row, case in zip(rows, data, strict=True):
        inside = case["fov"][0] > 0
        chances, truth = np.round(case["chances"] * 255)[0] / 255, case["label"][0]
        expected = brute_force((chances >= 0.5)[inside], truth[inside])
        pairs = [(a > b) + (a == b) / 2 for a in chances[inside & truth] for b in chances[inside & ~truth]]
        for name, value in {**expected, "auc": np.mean(pairs)}.items():
            assert float(row[name]) == pytest.approx(value, abs=1e-5), name


def test_summary_says_what_was_measured_and_is_in_the_engine(tmp_path, make_evaluator):
    report = EvaluationReport(output_dir=tmp_path, labels=["disc", "cup"], mode="5+1", bootstrap=200, seed=7)
    evaluator = make_evaluator(cases(labels=2), [report])
    evaluator.run()
    rows = read(tmp_path / "per_image_5+1.csv")
    summary = json.loads((tmp_path / "summary_5+1.json").read_text())
    assert (summary["mode"], summary["images"], summary["seed"], summary["bootstrap"]) == ("5+1", 4, 7, 200)
    assert {"date", "command", "hardware"} <= set(summary)
    assert {"monai_ext", "monai", "torch", "numpy"} <= set(summary["versions"])
    for label in ("disc", "cup"):
        for name in SCORES:
            values = [float(row[name]) for row in rows if row["label"] == label]
            score = summary["labels"][label][name]
            assert score["mean"] == pytest.approx(np.mean(values)) == evaluator.state.metrics[f"{name}_{label}"]
            assert score["std"] == pytest.approx(np.std(values, ddof=1))
            assert score["n"] == 4 and score["low"] <= score["mean"] <= score["high"]


def test_a_label_absent_from_truth_and_prediction_is_left_out(tmp_path, make_evaluator):
    nothing = np.zeros((1, 12, 20))
    data = [*cases(count=2), {"name": "empty.png", "chances": nothing, "label": nothing}]
    evaluator = make_evaluator(data, [EvaluationReport(output_dir=tmp_path, labels=["vessel"])])
    evaluator.run()
    rows = {Path(row["image"]).name: row for row in read(tmp_path / "per_image_automatic.csv")}
    assert all(rows["empty.png"][name] == "" for name in SCORES)
    scores = json.loads((tmp_path / "summary_automatic.json").read_text())["labels"]["vessel"]
    assert scores["dice"]["n"] == 2
    assert scores["dice"]["mean"] == pytest.approx(np.mean([float(rows[f"{n}.png"]["dice"]) for n in range(2)]))


def test_a_label_seen_nowhere_has_no_scores_and_the_json_stays_valid(tmp_path, make_evaluator):
    nothing = np.zeros((1, 12, 20))
    evaluator = make_evaluator(
        [{"name": "empty.png", "chances": nothing, "label": nothing}],
        [EvaluationReport(output_dir=tmp_path, labels=["vessel"])],
    )
    evaluator.run()
    assert json.loads((tmp_path / "summary_automatic.json").read_text())["labels"] == {"vessel": {}}
    assert evaluator.state.metrics == {}


@pytest.mark.parametrize("swap", [False, True])
def test_only_one_mask_empty_is_punished_and_what_is_undefined_is_left_out(swap):
    masks = torch.zeros(6, 6).bool(), torch.eye(6).bool()
    scores = label_scores(*(masks[::-1] if swap else masks), probability=torch.rand(6, 6))
    assert scores["dice"] == scores["iou"] == scores["cldice"] == 0
    assert math.isnan(scores["hd95"])
    assert math.isnan(scores["sensitivity"]) == swap == math.isnan(scores["auc"])  # no truth: nothing to find or rank


def test_distance_is_in_pixels_and_counts_only_the_field_of_view():
    pred, truth = torch.zeros(2, 20, 20).bool()
    pred[5, 5] = truth[8, 9] = True
    assert label_scores(pred, truth)["hd95"] == 5
    pred[19, 19] = True
    fov = torch.ones(20, 20).bool()
    fov[15:] = False
    assert label_scores(pred, truth, fov=fov)["hd95"] == 5


def test_interval_is_reproducible_contains_the_mean_and_narrows():
    values = np.random.default_rng(0).normal(0.8, 0.05, 40)
    summary = score_summary(values, seed=4)
    assert summary == score_summary(values, seed=4) != score_summary(values, seed=5)
    assert summary["low"] < summary["mean"] < summary["high"]
    half = (summary["high"] - summary["low"]) / 2
    assert half == pytest.approx(1.96 * values.std(ddof=1) / math.sqrt(40), rel=0.15)
    assert score_summary(np.array([0.5]))["std"] is None


def test_automatic_and_prompted_results_have_files_of_their_own(tmp_path, make_evaluator):
    reports = [EvaluationReport(output_dir=tmp_path, labels=["vessel"], mode=mode) for mode in ("none", "box")]
    make_evaluator(cases(count=1), reports).run()
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [
        "per_image_automatic.csv",
        "per_image_box.csv",
        "summary_automatic.json",
        "summary_box.json",
    ]


def test_a_second_run_starts_anew(tmp_path, make_evaluator):
    evaluator = make_evaluator(cases(count=2), [EvaluationReport(output_dir=tmp_path, labels=["vessel"])])
    evaluator.run()
    evaluator.run(2)
    assert len(read(tmp_path / "per_image_automatic.csv")) == 2


def test_bad_arguments_and_wrong_channels_are_told(tmp_path, make_evaluator):
    with pytest.raises(ValueError, match="labels must be a list of different names, not 'vessel'"):
        EvaluationReport(output_dir=tmp_path, labels="vessel")
    with pytest.raises(ValueError, match=r"mode must be a word that can stand in a file name, not '\.\./x'"):
        EvaluationReport(output_dir=tmp_path, labels=["vessel"], mode="../x")
    evaluator = make_evaluator(cases(count=1), [EvaluationReport(output_dir=tmp_path / "out", labels=["a", "b"])])
    with pytest.raises(ValueError, match=r"0\.png: .* must have 2 channels \(a, b\)"):
        evaluator.run()


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path, make_evaluator):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        make_evaluator(cases(count=1), [EvaluationReport(output_dir=tmp_path / "file" / "out", labels=["vessel"])])


def test_builds_from_json():
    config = {"_target_": "monai_ext.handlers.report.EvaluationReport", "output_dir": "out", "labels": ["vessel"]}
    assert isinstance(ConfigParser(config).get_parsed_content(""), EvaluationReport)
