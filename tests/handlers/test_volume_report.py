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


"""Scores of volumes, against what can be said of boxes without a library."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor

from monai_ext.handlers.volume_report import VOLUME_SCORES, VolumeReport, volume_scores


def box(*slices: slice) -> torch.Tensor:
    mask = torch.zeros(20, 20, 10, dtype=torch.bool)
    mask[slices] = True
    return mask


@pytest.mark.parametrize(("axis", "spacing"), [(0, 0.7), (1, 1.5), (2, 5.0)])
def test_distances_are_in_millimetres_along_every_axis(axis: int, spacing: float) -> None:
    spacings = [0.7, 1.5, 5.0]
    truth = box(slice(4, 10), slice(4, 10), slice(2, 7))
    moved = torch.roll(truth, 1, axis)
    scores = volume_scores(moved, truth, spacing=spacings, tolerance=0.1)
    assert scores["hd95"] == pytest.approx(spacing)
    assert scores["surface_dice"] < 1
    assert volume_scores(moved, truth, spacing=spacings, tolerance=spacing + 0.01)["surface_dice"] == 1
    overlap = int((truth & moved).sum())
    assert scores["dice"] == pytest.approx(overlap / int(truth.sum()))
    assert scores["iou"] == pytest.approx(overlap / int((truth | moved).sum()))
    assert scores["sensitivity"] == scores["precision"] == pytest.approx(overlap / int(truth.sum()))
    assert scores["volume_ml"] == scores["true_volume_ml"] == pytest.approx(180 * 0.7 * 1.5 * 5 / 1000)


def test_an_absent_label_is_no_hit_and_a_found_or_missed_one_is_zero() -> None:
    empty, full = box(slice(0, 0)), box(slice(2, 5))
    nothing = volume_scores(empty, empty, spacing=[1, 1, 1])
    assert list(nothing) == list(VOLUME_SCORES)
    assert all(math.isnan(nothing[name]) for name in ("dice", "iou", "hd95", "surface_dice"))
    assert nothing["volume_ml"] == nothing["true_volume_ml"] == 0
    for pred, truth in ((empty, full), (full, empty)):
        scores = volume_scores(pred, truth, spacing=[1, 1, 1])
        assert scores["dice"] == scores["iou"] == scores["surface_dice"] == 0 and math.isnan(scores["hd95"])


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        VolumeReport(output_dir="out", labels=["spleen"], tolerance=0)
    report = VolumeReport(output_dir="out", labels=["spleen"])
    mask = box(slice(2, 5))
    label = MetaTensor(mask[None], torch.diag(torch.tensor([2.0, 1, 1, 1])))
    (scores,) = report._score({"label": label}, mask[None], mask[None])
    assert scores["volume_ml"] == pytest.approx(3 * 20 * 10 * 2 / 1000)
    with pytest.raises(ValueError, match="must know its affine"):
        report._score({"label": mask[None]}, mask[None], mask[None])
