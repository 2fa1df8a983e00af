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

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ext.losses import DistillationLoss


def maps(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> SimpleNamespace:
    """Two maps of features of different scale and the answers, student's and teacher's, all different."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.randn(*shape, generator=generator)).to(dtype)

    features = [[draw(2, 4, 2, 2, scale=100), draw(2, 3, 4, 4, scale=0.01)] for _ in range(2)]
    fields = {"features": features[0], "teacher_features": features[1]}
    return SimpleNamespace(**fields | {"logits": draw(2, 2, 8, 8), "teacher_logits": draw(2, 2, 8, 8)} | changes)


TARGET = torch.zeros(2, 2, 8, 8)


def test_the_formula() -> None:
    made, task = maps(), torch.nn.BCEWithLogitsLoss()
    errors = [
        (s - t).square().sum() / t.square().sum() for s, t in zip(made.features, made.teacher_features, strict=True)
    ]
    p, q = made.teacher_logits.sigmoid(), made.logits.sigmoid()
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    loss = DistillationLoss(loss=task, lambda_features=0.5, lambda_logits=3.0)(made, TARGET)
    torch.testing.assert_close(loss, 0.5 * sum(errors) / 2 + 3 * divergence + task(made.logits, TARGET))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_never_below_zero_and_the_scale_of_features_does_not_matter(seed: int, scale: float) -> None:
    made = maps(seed)
    loss = DistillationLoss()(made, TARGET)
    assert loss >= 0
    scaled = [[scale * map for map in side] for side in (made.features, made.teacher_features)]
    other = maps(seed, features=scaled[0], teacher_features=scaled[1])
    torch.testing.assert_close(DistillationLoss()(other, TARGET), loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_the_students(dtype: torch.dtype) -> None:
    made = maps(dtype=dtype)
    everything = [*made.features, made.logits, *made.teacher_features, made.teacher_logits]
    for value in everything:
        value.requires_grad_()
    loss = DistillationLoss()(made, TARGET)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in everything[:3])
    assert all(value.grad is None for value in everything[3:])


def test_a_term_without_weight_is_not_computed() -> None:
    broken = [torch.full((1, 1, 1, 1), torch.nan)]
    made = maps(features=broken, teacher_features=broken)
    assert DistillationLoss(lambda_features=0)(made, TARGET).isfinite()
    made = maps(logits=torch.full((1,), torch.nan))
    assert DistillationLoss(lambda_logits=0)(made, TARGET).isfinite()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_features": -1}, "lambda_features must be a number of at least 0, not -1"),
        ({"lambda_logits": float("nan")}, "lambda_logits must be a number of at least 0, not nan"),
        ({"lambda_features": 0, "lambda_logits": 0}, "or a loss be given"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**arguments)


@pytest.mark.parametrize("field", ["features", "logits"])
def test_shapes_must_be_alike(field: str) -> None:
    other = [torch.ones(1, 4, 2, 2), torch.ones(1, 3, 4, 4)] if field == "features" else torch.ones(1, 2, 8, 8)
    with pytest.raises(ValueError, match=f"{field} must be alike"):
        DistillationLoss()(maps(**{field: other}), TARGET)
