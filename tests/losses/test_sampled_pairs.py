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
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceFocalLoss
from torch import nn

from monai_ext.losses import SampledPairsLoss


class Means(nn.Module):
    """Which pairs came: every pair's mean logit, which the tests make its number, and whether it has the label."""

    def forward(self, logits, target):
        assert logits.shape == target.shape and logits.shape[1] == 1
        return torch.stack([logits.mean((1, 2, 3)), target.amax((1, 2, 3)).to(logits)])


def pairs(there: list[list[bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(len(there), len(there[0]), 4, 4)
    target[..., 1, 2] = torch.tensor(there).float()
    numbers = torch.arange(target[:, :, 0, 0].numel()).float().view(len(there), -1, 1, 1)
    return numbers.expand_as(target).clone(), target


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 5).flatmap(lambda c: st.lists(st.lists(st.booleans(), min_size=c, max_size=c), min_size=1)),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_all_positive_pairs_and_so_many_of_the_others(there, negatives):
    numbers, has_label = SampledPairsLoss(loss=Means(), negatives=negatives)(*pairs(there))
    flat = [label for item in there for label in item]
    positive = [float(place) for place, label in enumerate(flat) if label]
    assert sorted(numbers[has_label > 0].tolist()) == positive
    others = numbers[has_label == 0].tolist()
    asked = round(negatives * len(positive)) if positive else 1
    assert len(others) == len(set(others)) == min(asked, len(flat) - len(positive))
    assert not set(others) & set(positive)


def test_every_absent_label_comes_at_some_time():
    logits, target = pairs([[True, False, False, False]])
    loss = SampledPairsLoss(loss=Means())
    assert {loss(logits, target)[0, 1].item() for _ in range(60)} == {1.0, 2.0, 3.0}


def test_only_drawn_pairs_get_a_gradient():
    logits, target = pairs([[True, False, False], [False, False, False]])
    logits.requires_grad_()
    SampledPairsLoss(loss=DiceFocalLoss(sigmoid=True))(logits, target).backward()
    touched = logits.grad.flatten(2).abs().sum(2) > 0
    assert touched[0, 0] and touched.sum() == 2


def test_a_seed_repeats_the_draw():
    logits, target = pairs([[True] * 3 + [False] * 9])
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(SampledPairsLoss(loss=Means())(logits, target))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("negatives", [-1.0, float("nan"), float("inf")])
def test_a_ratio_out_of_range(negatives):
    with pytest.raises(ValueError, match="negatives must be a number of at least 0"):
        SampledPairsLoss(loss=Means(), negatives=negatives)


@pytest.mark.parametrize("shapes", [((1, 2, 4, 4), (1, 1, 4, 4)), ((2, 4, 4), (2, 4, 4))])
def test_shapes_that_differ(shapes):
    with pytest.raises(ValueError, match="must be .B, C, H, W. and alike"):
        SampledPairsLoss(loss=Means())(*(torch.zeros(shape) for shape in shapes))
