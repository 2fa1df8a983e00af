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

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_roc_auc

from monai_ext.metrics import ClDiceMetric, compute_cldice, pixel_auc


def line(length: int, thickness: int = 1) -> torch.Tensor:
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 8 - thickness // 2 : 9 + thickness // 2, :length] = 1
    return mask


def test_is_the_harmonic_mean_of_the_covered_skeletons():
    # One pixel wide lines are their own skeletons: precision 1, sensitivity 1/2.
    assert compute_cldice(line(8), line(16)).item() == pytest.approx(2 * 0.5 / 1.5)
    assert compute_cldice(line(16), line(8)).item() == pytest.approx(2 * 0.5 / 1.5)


def test_a_vessel_of_wrong_width_costs_dice_but_not_cldice():
    wide, thin = line(16, thickness=5), line(16)
    assert compute_dice(wide, thin).item() == pytest.approx(1 / 3)
    assert compute_cldice(wide, thin).item() > 0.9  # only the ends of the skeleton fork


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [(line(0), line(0), math.nan), (line(4), line(0), 0), (line(0), line(4), 0), (line(4), line(4), 1)],
)
def test_absent_labels(pred: torch.Tensor, truth: torch.Tensor, expected: float):
    assert compute_cldice(pred, truth).item() == pytest.approx(expected, nan_ok=True)


def test_metric_leaves_absent_labels_out_and_keeps_images_and_channels_apart():
    pred = torch.cat([torch.cat([line(8), line(0)], 1), torch.cat([line(16), line(3)], 1)])
    truth = torch.cat([torch.cat([line(16), line(0)], 1), torch.cat([line(16), line(0)], 1)])
    metric = ClDiceMetric(reduction="mean_batch", get_not_nans=True)
    for one_pred, one_truth in zip(pred, truth, strict=True):
        metric([one_pred], [one_truth])
    score, counted = metric.aggregate()
    assert score.tolist() == pytest.approx([(2 / 3 + 1) / 2, 0])
    assert counted.tolist() == [2, 1]
    assert ClDiceMetric(include_background=False)(pred, truth).shape == (2, 1)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_volumes_and_the_mask_values_of_files(width: int):
    volume = torch.zeros(1, 1, 8, 8, 8)
    volume[..., 3 : 3 + width, 3 : 3 + width, :] = 255
    assert compute_cldice(volume, volume).item() == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"not \(1, 1, 16, 16\) and \(1, 1, 8, 8\)"):
        compute_cldice(line(4), torch.zeros(1, 1, 8, 8))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_bounded_symmetric_and_one_for_itself(seed: int, density: float):
    masks = torch.from_numpy(np.random.default_rng(seed).random((2, 1, 1, 9, 7)) < density).float()
    score = compute_cldice(*masks)
    torch.testing.assert_close(score, compute_cldice(*masks.flip(0)), equal_nan=True)
    assert torch.isnan(score) or 0 <= score.item() <= 1
    assert masks[0].sum() == 0 or compute_cldice(masks[0], masks[0]).item() == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_every_pair_and_ties_one_half(pixels: list[tuple[int, bool]]):
    scores, truth = np.array([p[0] for p in pixels], np.float32), np.array([p[1] for p in pixels])
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    assert pixel_auc(scores, truth) == pytest.approx(np.mean(pairs) if pairs else math.nan, nan_ok=True)
    if pairs:
        assert pixel_auc(scores, truth) == pytest.approx(
            compute_roc_auc(torch.from_numpy(scores), torch.from_numpy(truth).double())
        )
