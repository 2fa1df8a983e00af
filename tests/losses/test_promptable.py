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

import pytest
import torch

from monai_ext.losses import PromptableLoss
from monai_ext.networks.segmenter import MaskCandidates


def answer(masks: torch.Tensor, iou: float = 1.0, score: float = 100.0) -> MaskCandidates:
    """Candidates (B, K, 4, H, W) that are sure of these masks."""
    logits = masks.float() * 200 - 100
    return MaskCandidates(logits, torch.full(logits.shape[:3], iou), torch.full(logits.shape[:2], score))


@pytest.fixture
def target() -> torch.Tensor:
    target = torch.zeros(2, 3, 16, 16)
    target[..., 2:9, 4:12] = 1
    return target


def test_perfect_answers_cost_nothing(target: torch.Tensor) -> None:
    perfect = answer(target.unsqueeze(2).repeat(1, 1, 4, 1, 1))
    assert PromptableLoss()([perfect, perfect], target).item() == pytest.approx(0, abs=1e-3)


def test_only_the_best_of_the_three_counts(target: torch.Tensor) -> None:
    masks = target.unsqueeze(2).repeat(1, 1, 4, 1, 1)
    masks[:, :, 1] = masks[:, :, 3] = 0
    loss = PromptableLoss(lambda_iou=0)
    assert loss([answer(masks)], target).item() == pytest.approx(0, abs=1e-3)
    masks[:, :, 0] = 0  # the single mask always counts
    assert loss([answer(masks)], target) > 1


def test_the_predicted_iou_is_measured(target: torch.Tensor) -> None:
    perfect = answer(target.unsqueeze(2).repeat(1, 1, 4, 1, 1), iou=0.25)
    assert PromptableLoss(lambda_iou=2)([perfect], target).item() == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize("empty", [0.0, -1.0], ids=["nothing", "decoy"])
def test_of_an_object_that_is_not_there_only_the_score_counts(target: torch.Tensor, empty: float) -> None:
    masks = target.unsqueeze(2).repeat(1, 1, 4, 1, 1)
    absent = target * empty
    assert PromptableLoss()([answer(masks, score=-100)], absent).item() == pytest.approx(0, abs=1e-3)
    assert PromptableLoss(lambda_score=0.5)([answer(masks, score=100)], absent).item() == pytest.approx(50, rel=0.01)


def test_rounds_are_averaged_and_gradients_finite(target: torch.Tensor) -> None:
    logits = torch.randn(2, 3, 4, 16, 16, requires_grad=True)
    iou, score = torch.rand(2, 3, 4, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    one, two = MaskCandidates(logits, iou, score), MaskCandidates(logits + 1, iou, score)
    loss = PromptableLoss()
    both = loss([one, two], target)
    assert both.item() == pytest.approx((loss([one], target) + loss([two], target)).item() / 2)
    both.backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in (logits, iou, score))


def test_errors(target: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="at least one round"):
        PromptableLoss()([], target)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 16, 16\) for \(2, 3, 8, 8\)"):
        PromptableLoss()([answer(target.unsqueeze(2).repeat(1, 1, 4, 1, 1))], target[..., :8, :8])
