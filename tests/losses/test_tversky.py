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

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.losses import SoftclDiceLoss, TverskyLoss

from monai_ext.losses import FocalTverskyLoss, TverskyCompositeLoss

AXES = {False: (2, 3), True: (0, 2, 3)}
SURE = 30.0  # a logit whose sigmoid is 1 - 1e-13


def sample(seed: int = 0, shape: tuple[int, ...] = (2, 3, 5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randint(0, 2, shape, generator=generator).float()


def pixels(tp: int = 0, fp: int = 0, fn: int = 0, tn: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sure logits and truth of one item, one label, with so many pixels of each kind."""
    prediction = torch.tensor([1.0] * (tp + fp) + [0.0] * (fn + tn))
    truth = torch.tensor([1.0] * tp + [0.0] * fp + [1.0] * fn + [0.0] * tn)
    return SURE * (2 * prediction - 1).view(1, 1, 1, -1), truth.view(1, 1, 1, -1)


def gradient(loss: torch.nn.Module, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    input = input.clone().requires_grad_()
    loss(input, target).backward()
    assert input.grad is not None
    return input.grad


def transcribed(p: np.ndarray, y: np.ndarray, alpha: float, beta: float, gamma: float, batch: bool) -> np.ndarray:
    """(1 - TI)^gamma of every item and label, in float64."""
    tp, fp, fn = (sums.sum(AXES[batch]) for sums in (p * y, p * (1 - y), (1 - p) * y))
    return (1 - (tp + 1) / (tp + alpha * fp + beta * fn + 1)) ** gamma


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    alpha=st.floats(0.05, 2),
    beta=st.floats(0.05, 2),
    gamma=st.floats(0.2, 3),
    batch=st.booleans(),
)
def test_equals_the_formula(seed: int, alpha: float, beta: float, gamma: float, batch: bool) -> None:
    input, target = sample(seed)
    loss = FocalTverskyLoss(sigmoid=True, alpha=alpha, beta=beta, gamma=gamma, batch=batch, reduction="none")
    p = 1 / (1 + np.exp(-input.double().numpy()))
    expected = transcribed(p, target.double().numpy(), alpha, beta, gamma, batch)
    np.testing.assert_allclose(loss(input, target).numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize(
    "activation", [{}, {"sigmoid": True}, {"softmax": True}, {"softmax": True, "to_onehot_y": True}]
)
def test_arguments_mean_what_they_mean_in_monai(
    activation: dict, include_background: bool, batch: bool, reduction: str
) -> None:
    input, target = sample()
    input = input if activation else input.sigmoid()
    target = target.argmax(1, keepdim=True) if "to_onehot_y" in activation else target
    arguments = {
        **activation,
        "include_background": include_background,
        "alpha": 0.2,
        "beta": 0.9,
        "reduction": reduction,
        "smooth_nr": 0.5,
        "smooth_dr": 0.6,
        "batch": batch,
    }
    ours = FocalTverskyLoss(**arguments, gamma=1.0)(input, target)
    torch.testing.assert_close(ours, TverskyLoss(**arguments)(input, target))
    focal = FocalTverskyLoss(**{**arguments, "reduction": "none"}, gamma=0.5)(input, target)
    torch.testing.assert_close(focal, TverskyLoss(**{**arguments, "reduction": "none"})(input, target) ** 0.5)


def test_reduction_comes_after_the_exponent() -> None:
    input, target = sample()
    values, mean, total = (FocalTverskyLoss(sigmoid=True, reduction=r)(input, target) for r in ("none", "mean", "sum"))
    assert values.shape == (2, 3)
    torch.testing.assert_close(mean, values.mean())
    torch.testing.assert_close(total, values.sum())


# Bug 8: double sigmoid, missing activation.
@pytest.mark.parametrize(
    "loss", [FocalTverskyLoss(sigmoid=True), TverskyCompositeLoss(lambda_cldice=1.0)], ids=["focal", "composite"]
)
def test_perfect_logits_cost_nothing(loss: torch.nn.Module) -> None:
    _, target = sample()
    input = SURE * (2 * target - 1)
    assert loss(input, target) < 5e-4
    assert gradient(loss, input, target).isfinite().all()
    assert loss(-input, target) > 0.5


def test_perfect_probabilities_cost_nothing() -> None:
    _, target = sample()
    assert FocalTverskyLoss()(target, target) < 1e-4
    labels = target.argmax(1, keepdim=True)
    one_hot = torch.zeros_like(target).scatter_(1, labels, 1)
    assert FocalTverskyLoss(softmax=True, to_onehot_y=True)(SURE * one_hot, labels) < 1e-4


# Bug 9: asymmetry that cancels.
@settings(max_examples=20, deadline=None)
@given(tp=st.integers(0, 9), fp=st.integers(0, 9), fn=st.integers(0, 9), batch=st.booleans())
def test_swapping_errors_swaps_their_weights(tp: int, fp: int, fn: int, batch: bool) -> None:
    loss = FocalTverskyLoss(sigmoid=True, alpha=0.2, beta=0.9, batch=batch)
    swapped = FocalTverskyLoss(sigmoid=True, alpha=0.9, beta=0.2, batch=batch)
    torch.testing.assert_close(loss(*pixels(tp, fp, fn, 1)), swapped(*pixels(tp, fn, fp, 1)))


@pytest.mark.parametrize("batch", [False, True])
def test_alpha_weighs_false_positives_and_beta_false_negatives(batch: bool) -> None:
    loss = FocalTverskyLoss(sigmoid=True, batch=batch)
    assert loss(*pixels(tp=5, fn=2)) > loss(*pixels(tp=5, fp=2)) * 1.5
    torch.testing.assert_close(loss(*pixels(tp=5, fn=2)), torch.tensor((1.4 / 7.4) ** 0.75))
    torch.testing.assert_close(loss(*pixels(tp=5, fp=2)), torch.tensor((0.6 / 6.6) ** 0.75))


@pytest.mark.parametrize("batch", [False, True])
def test_asymmetry_does_not_cancel_over_exclusive_labels(batch: bool) -> None:
    # Every false positive is another label's false negative here: with pooled sums all three costs would be the same.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2]).view(1, 1, 1, 8)
    input = torch.zeros(1, 3, 1, 8)
    input[:, 0] = 2.0
    low, even, high = (
        FocalTverskyLoss(softmax=True, to_onehot_y=True, alpha=a, beta=1 - a, batch=batch, reduction="none")(
            input, labels
        ).flatten()
        for a in (0.3, 0.5, 0.7)
    )
    assert low[0] < even[0] < high[0], "label 0 is predicted too often"
    assert (low[1:] > even[1:]).all() and (even[1:] > high[1:]).all(), "labels 1 and 2 too seldom"


def test_weights_move_the_mean_over_exclusive_labels() -> None:
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]).view(1, 1, 1, 8)
    input = torch.zeros(1, 3, 1, 8)
    input[:, 0] = 2.0
    costs = [
        float(
            FocalTverskyLoss(softmax=True, to_onehot_y=True, include_background=b, alpha=a, beta=1 - a)(input, labels)
        )
        for b in (True, False)
        for a in (0.1, 0.5, 0.9)
    ]
    assert len({round(cost, 3) for cost in costs}) == 6
    assert costs[3] > costs[4] > costs[5], "the foreground is predicted too seldom"


# Bug 10: empty masks. The label is absent: the more of it is predicted, the more it costs.
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("items", [1, 2])
def test_false_positives_on_an_empty_label_are_punished(items: int, batch: bool) -> None:
    loss = FocalTverskyLoss(sigmoid=True, batch=batch)
    predictions = [pixels(fp=fp, tn=400 - fp) for fp in (0, 1, 10, 100, 400)]
    costs = [
        float(loss(input.expand(items, 1, 1, -1), target.expand(items, 1, 1, -1))) for input, target in predictions
    ]
    assert costs[0] < 1e-4
    assert costs[1] > 0.1
    assert costs == sorted(set(costs))


@pytest.mark.parametrize("batch", [False, True])
def test_an_empty_item_beside_a_full_one_is_punished(batch: bool) -> None:
    target = torch.zeros(2, 1, 4, 4)
    target[0, :, :2] = 1
    perfect = SURE * (2 * target - 1)
    wrong = perfect.clone()
    wrong[1, :, 0] = SURE
    loss = FocalTverskyLoss(sigmoid=True, batch=batch)
    assert loss(wrong, target) > loss(perfect, target) + 0.1
    assert gradient(loss, wrong * 0.1, target)[1].gt(0).all(), "less foreground must be the way down"


# Bug 16: the slope of x^gamma at 0.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("logit", [-10.0, -20.0, -100.0, -60000.0])
@pytest.mark.parametrize("kind", [FocalTverskyLoss, TverskyCompositeLoss])
def test_all_empty_batch_with_confident_background(kind: type, logit: float, batch: bool, dtype: torch.dtype) -> None:
    loss = kind(batch=batch, **({"sigmoid": True} if kind is FocalTverskyLoss else {}))
    input, target = torch.full((2, 1, 16, 16), logit, dtype=dtype), torch.zeros(2, 1, 16, 16)
    assert loss(input, target) < 0.05
    assert gradient(loss, input, target).isfinite().all()


def test_gradient_is_finite_and_bounded_all_the_way_to_perfect() -> None:
    loss = FocalTverskyLoss(gamma=0.25)
    target = torch.zeros(1, 1, 8, 8)
    target[..., :3] = 1
    for error in (1e-2, 1e-4, 1e-6, 1e-7, 0.0):
        slope = gradient(loss, (target - error).abs(), target)
        assert slope.isfinite().all()
        assert slope.abs().max() < 0.25 * 1e-6 ** (0.25 - 1)


@pytest.mark.parametrize("kind", [FocalTverskyLoss, TverskyCompositeLoss])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_counts_every_pixel(kind: type, dtype: torch.dtype) -> None:
    # 90,000 pixels overflow float16 (65,504) and stop counting in bfloat16 at 256.
    loss = kind(**({"sigmoid": True} if kind is FocalTverskyLoss else {}))
    input, target = torch.full((1, 1, 300, 300), 0.5, dtype=dtype), torch.ones(1, 1, 300, 300, dtype=dtype)
    value = loss(input, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(input.float(), target.float()))
    assert gradient(loss, input, target).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss(input, target), value)


def composite(**arguments: float) -> TverskyCompositeLoss:
    return TverskyCompositeLoss(**arguments)  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_defaults_are_the_loss_of_sam2lora(seed: int) -> None:
    logits, target = sample(seed, (2, 1, 6, 5))
    p, y = 1 / (1 + np.exp(-logits.double().numpy())), target.double().numpy()
    bce = (-y * np.log(p + 1e-6) - (1 - y) * np.log(1 - p + 1e-6)).mean()
    dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    tversky = (1 - (tp + 1) / (tp + 0.7 * fn + 0.3 * fp + 1)) ** 0.75
    loss = TverskyCompositeLoss()
    parts = {name: part.item() for name, part in loss.parts(logits, target).items()}
    assert parts == pytest.approx({"bce": bce, "dice": dice, "tversky": tversky}, abs=1e-4)
    assert loss(logits, target).item() == pytest.approx(bce + dice + tversky, abs=1e-4)


def test_cldice_is_that_of_the_probabilities() -> None:
    input, target = sample(shape=(2, 1, 12, 12))
    ours = TverskyCompositeLoss(lambda_cldice=1.0, cldice_iterations=2).parts(input, target)["cldice"]
    torch.testing.assert_close(ours, SoftclDiceLoss(iter_=2)(input.sigmoid(), target))


@settings(max_examples=20, deadline=None)
@given(weights=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 4).filter(any))
def test_forward_is_the_weighted_sum_of_the_parts(weights: tuple[float, ...]) -> None:
    named = dict(zip(("bce", "dice", "tversky", "cldice"), weights, strict=True))
    loss = composite(**{f"lambda_{name}": weight for name, weight in named.items()})
    input, target = sample(shape=(1, 2, 8, 8))
    parts = loss.parts(input, target)
    assert list(parts) == [name for name, weight in named.items() if weight], "a term of weight 0 is not computed"
    torch.testing.assert_close(loss(input, target), sum((named[n] * p for n, p in parts.items()), torch.tensor(0.0)))
    assert loss(input, target).shape == ()


@pytest.mark.parametrize(
    ("argument", "value", "moved"),
    [
        ("alpha", 0.9, {"tversky"}),
        ("beta", 0.1, {"tversky"}),
        ("gamma", 1.5, {"tversky"}),
        ("batch", False, {"dice", "tversky"}),
        ("smooth_dr", 2.0, {"dice", "tversky", "cldice"}),
        ("smooth_nr", 0.5, {"dice", "tversky", "cldice"}),
        ("cldice_iterations", 0, {"cldice"}),
    ],
)
def test_each_argument_moves_its_terms_only(argument: str, value: float, moved: set[str]) -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[0, :, 4:12] = 1
    input = 2 * target - 1 + sample(shape=target.shape)[0] / 2
    default = composite(lambda_cldice=1.0).parts(input, target)
    other = composite(lambda_cldice=1.0, **{argument: value}).parts(input, target)
    assert {name for name in default if not torch.isclose(default[name], other[name])} == moved


@pytest.mark.parametrize("shape", [(2, 1, 7, 9), (1, 3, 8, 8), (1, 2, 4, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_targets_of_any_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    input, target = sample(shape=shape)
    loss = TverskyCompositeLoss(lambda_cldice=1.0)
    expected = loss(input, target)
    torch.testing.assert_close(loss(input, target.to(dtype)), expected)
    plain = loss(MetaTensor(input), MetaTensor(target))
    assert type(plain) is torch.Tensor
    torch.testing.assert_close(plain, expected)


@pytest.mark.parametrize(
    "loss",
    [
        FocalTverskyLoss(sigmoid=True),
        FocalTverskyLoss(softmax=True, batch=True, gamma=1.3),
        TverskyCompositeLoss(),
        # without clDice's skeleton, whose max-pooling has kinks
        TverskyCompositeLoss(batch=False, lambda_bce=0.3),
    ],
    ids=["sigmoid", "softmax", "composite", "composite-by-item"],
)
def test_gradient_is_that_of_the_loss(loss: torch.nn.Module) -> None:
    input, target = sample(shape=(2, 2, 3, 3))
    assert torch.autograd.gradcheck(lambda logits: loss(logits, target), input.double().requires_grad_())


@pytest.mark.parametrize("arguments", [{}, {"lambda_cldice": 0.5}, {"lambda_bce": 0, "lambda_dice": 0}])
def test_fitting_a_toy(arguments: dict) -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[0, :, 7:9] = 1
    logits = torch.zeros_like(target).requires_grad_()
    loss, optimizer = composite(**arguments), torch.optim.Adam([logits], lr=0.5)
    before = loss(logits, target).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    assert loss(logits, target).item() < 0.2 * before
    assert torch.equal(logits > 0, target > 0)


def test_from_json_and_deep_copy() -> None:
    config = {
        "composite": {"_target_": "monai_ext.losses.TverskyCompositeLoss", "lambda_cldice": 0.5, "batch": False},
        "focal": {"_target_": "monai_ext.losses.FocalTverskyLoss", "sigmoid": True, "reduction": "sum"},
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    input, target = sample()
    state = torch.get_rng_state()
    for name, ours in {
        "composite": TverskyCompositeLoss(lambda_cldice=0.5, batch=False),
        "focal": FocalTverskyLoss(sigmoid=True, reduction="sum"),
    }.items():
        built = parser.get_parsed_content(name)
        assert not list(built.parameters())
        assert not built.state_dict()
        for loss in (built, copy.deepcopy(built)):
            torch.testing.assert_close(loss(input, target), ours(input, target))
    assert torch.equal(state, torch.get_rng_state()), "building a loss must not touch the random state"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in ("alpha", "beta", "gamma", "smooth_nr")
            for value in (-0.1, math.nan, math.inf, "1")
        ],
        *[(name, 0) for name in ("gamma", "smooth_nr")],
        ("smooth_dr", 0.5),
        ("smooth_dr", math.nan),
    ],
)
@pytest.mark.parametrize("kind", [FocalTverskyLoss, TverskyCompositeLoss])
def test_bad_numbers_are_named(kind: type, name: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*, not {value!r}"):
        kind(**{name: value})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, None])
@pytest.mark.parametrize("name", ["lambda_bce", "lambda_dice", "lambda_tversky", "lambda_cldice"])
def test_bad_weights_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*, not {value!r}"):
        composite(**{name: value})


@pytest.mark.parametrize("value", [-1, 1.5])
def test_bad_iterations_are_named(value: float) -> None:
    with pytest.raises(ValueError, match=f"cldice_iterations must be .*, not {value!r}"):
        composite(cldice_iterations=value)


def test_some_weight_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="At least one of lambda_bce"):
        composite(lambda_bce=0, lambda_dice=0, lambda_tversky=0)


def test_activations_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="sigmoid"):
        FocalTverskyLoss(sigmoid=True, softmax=True)
    with pytest.raises(ValueError, match="median"):
        FocalTverskyLoss(reduction="median")


@pytest.mark.parametrize(
    ("input", "target"),
    [((2, 1, 4, 4), (2, 4, 4)), ((2, 3, 4, 4), (2, 1, 4, 4)), ((1, 1, 4, 4), (1, 1, 4, 5)), ((1, 4, 4), (1, 4, 4))],
)
def test_bad_shapes_are_named(input: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, C, H, W\[, D\]\), not \(.*\) and \(.*\)"):
        TverskyCompositeLoss()(torch.zeros(input), torch.zeros(target))


def test_focal_tversky_never_broadcasts() -> None:
    with pytest.raises(AssertionError, match="differing shape"):
        FocalTverskyLoss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("value", [255.0, -1.0, math.nan])
def test_targets_outside_0_to_1_are_refused(value: float) -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0, 0] = value
    with pytest.raises(ValueError, match=r"target must hold values in \[0, 1\], not"):
        TverskyCompositeLoss()(torch.zeros(1, 1, 4, 4), target)
