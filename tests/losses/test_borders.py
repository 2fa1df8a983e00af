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


"""Losses that weigh the border of a label: properties that both have, and each against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from scipy import ndimage

from monai_ext.losses import BoundaryDoULoss, StructureLoss

LOSSES = {"structure": StructureLoss(kernel_size=5, reduction="none"), "boundary": BoundaryDoULoss(reduction="none")}


def disc(radius: float, size: int = 24) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((x - size / 2) ** 2 + (y - size / 2) ** 2 <= radius**2).float()[None, None]


def by_structure(p: np.ndarray, y: np.ndarray) -> float:
    count = ndimage.uniform_filter(np.ones_like(y), 5, mode="constant")
    w = 1 + 5 * np.abs(ndimage.uniform_filter(y, 5, mode="constant") / count - y)
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    both = (w * p * y).sum()
    return (w * entropy).sum() / w.sum() + 1 - (both + 1) / ((w * (p + y)).sum() - both + 1)


def by_boundary(p: np.ndarray, y: np.ndarray) -> float:
    inside = ndimage.binary_erosion(np.pad(y > 0, 1, mode="edge"))[1:-1, 1:-1]
    c, s, both = y.sum() - inside.sum(), max(y.sum(), 1), (p * y).sum()
    squares = (p**2).sum() + (y**2).sum()
    return (squares - 2 * both) / (squares - (1 + min(1 - 2 * c / s, 0.8)) * both + 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), filled=st.floats(0, 1))
@pytest.mark.parametrize(("name", "formula"), [("structure", by_structure), ("boundary", by_boundary)])
def test_formula(name, formula, seed, filled):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 9, 7, dtype=torch.float64, generator=generator)
    target = (torch.rand(2, 3, 9, 7, generator=generator) < filled).double()
    expected = [
        [formula(p, y) for p, y in zip(*item, strict=True)]
        for item in zip(logits.sigmoid().numpy(), target.numpy(), strict=True)
    ]
    torch.testing.assert_close(LOSSES[name](logits, target), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestBoth:
    def test_perfect_costs_nothing_and_worse_costs_more(self, loss):
        target = disc(6)
        costs = [loss(20 * disc(radius) - 10, target).item() for radius in (6, 7, 8, 9)]
        assert costs[0] < 2e-3 and costs == sorted(costs)

    @pytest.mark.parametrize("target", [disc(6), torch.zeros(1, 1, 24, 24), torch.ones(1, 1, 24, 24)])
    @pytest.mark.parametrize("logit", [-1e4, -30.0, 0.0, 30.0, 1e4])
    def test_gradients_are_finite_everywhere(self, loss, target, logit):
        logits = torch.full_like(target, logit).requires_grad_()
        value = loss(logits, target)
        value.sum().backward()
        assert torch.isfinite(value).all() and torch.isfinite(logits.grad).all()

    def test_an_absent_label_is_punished_by_what_is_invented(self, loss):
        costs = [loss(20 * disc(radius) - 10, torch.zeros(1, 1, 24, 24)).item() for radius in (-1, 2, 5)]
        assert costs == sorted(costs) and costs[0] < costs[1] < costs[2]
        logits = torch.zeros(1, 1, 24, 24, requires_grad=True)
        loss(logits, torch.zeros(1, 1, 24, 24)).sum().backward()
        assert (logits.grad > 0).all()

    def test_an_item_and_a_label_stand_for_themselves(self, loss):
        logits, target = torch.randn(2, 3, 12, 12), (torch.rand(2, 3, 12, 12) > 0.5).float()
        torch.testing.assert_close(loss(logits[1:, 2:], target[1:, 2:]), loss(logits, target)[1:, 2:])

    def test_half_precision_and_other_types(self, loss):
        logits = torch.randn(1, 1, 24, 24)
        value = loss(logits, disc(6))
        torch.testing.assert_close(loss(logits, disc(6).bool()), value)
        assert loss(logits.bfloat16(), disc(6)).dtype == torch.float32

    def test_reductions(self, loss):
        logits, target = torch.randn(2, 3, 12, 12), (torch.rand(2, 3, 12, 12) > 0.5).float()
        values = loss(logits, target)
        for reduction, expected in (("mean", values.mean()), ("sum", values.sum())):
            again = type(loss)(**({"kernel_size": 5} if isinstance(loss, StructureLoss) else {}), reduction=reduction)
            torch.testing.assert_close(again(logits, target), expected)

    def test_shapes_that_differ(self, loss):
        with pytest.raises(ValueError, match=r"alike, not \(1, 1, 4, 4\) and \(1, 2, 4, 4\)"):
            loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4))


def test_a_border_weighs_more_than_the_inside():
    """The published code lets the weights cancel in the cross-entropy: `reduce='none'` is the mean."""
    target = disc(8)
    middle, edge = (20 * target - 10 for _ in range(2))
    middle[..., 12, 12] *= -1
    edge[..., 12, 4] *= -1
    assert target[..., 12, 12] == target[..., 12, 4] == 1
    loss = StructureLoss(kernel_size=5)
    assert loss(edge, target) > 1.5 * loss(middle, target)


def test_the_larger_the_label_the_more_its_border_costs():
    """Of two predictions with the same Dice, the one of the larger label costs more than by Dice alone."""

    def relative(radius: float, size: int) -> float:
        target = disc(radius, size)
        p = (20 * target - 10).sigmoid() * 0.9
        dice = 1 - 2 * (p * target).sum() / (p.square().sum() + target.square().sum())
        return (BoundaryDoULoss(smooth=1e-6)(torch.logit(p, eps=1e-6), target) / dice).item()

    assert relative(2, 96) < relative(8, 96) < relative(30, 96)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StructureLoss(kernel_size=4), "kernel_size must be an odd number"),
        (lambda: StructureLoss(weight=-1), "weight must be a number of at least 0"),
        (lambda: BoundaryDoULoss(smooth=0), "smooth must be a number above 0"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["StructureLoss", "BoundaryDoULoss"])
def test_from_json(name):
    loss = ConfigParser({"loss": {"_target_": f"monai_ext.losses.{name}"}}).get_parsed_content("loss")
    assert loss(torch.zeros(1, 1, 40, 40), disc(6, 40)) > 0
