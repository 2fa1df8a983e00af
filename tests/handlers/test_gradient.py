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

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_ext.handlers.gradient import GradientClipping


def make_trainer(scale: float = 10.0, count: int = 1, max_norm: float | None = 0.5, **kwargs: Any) -> SupervisedTrainer:
    """One linear layer under plain gradient descent with rate 1: the change of the weights is the gradient."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    data = [{"image": torch.full((3,), scale), "label": torch.full((1,), 100.0)}] * count
    handlers = [] if max_norm is None else [GradientClipping(max_norm=max_norm)]
    return SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(data), batch_size=1),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=torch.nn.L1Loss(),
        train_handlers=handlers,
        **kwargs,
    )


def change(trainer: SupervisedTrainer) -> torch.Tensor:
    """How far one run moves all parameters."""
    before = torch.nn.utils.parameters_to_vector(trainer.network.parameters()).clone()
    trainer.run()
    return torch.nn.utils.parameters_to_vector(trainer.network.parameters()) - before


@pytest.fixture
def scaler_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's trainer makes a scaler for CUDA only, which does nothing on a CPU."""
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: torch.amp.GradScaler("cpu"))


def test_a_long_gradient_is_cut_to_the_norm_and_keeps_its_direction() -> None:
    clipped, free = change(make_trainer()), change(make_trainer(max_norm=None))
    assert free.norm() > 10
    torch.testing.assert_close(clipped, free * 0.5 / free.norm())


def test_a_short_gradient_is_left_alone() -> None:
    assert torch.equal(change(make_trainer(max_norm=1000)), change(make_trainer(max_norm=None)))


@pytest.mark.usefixtures("scaler_on_cpu")
@pytest.mark.parametrize("steps", [1, 2])
def test_with_amp_the_gradient_is_unscaled_before_it_is_clipped(steps: int) -> None:
    kwargs: dict[str, Any] = {"count": 3, "accumulation_steps": steps}
    torch.testing.assert_close(change(make_trainer(amp=True, **kwargs)), change(make_trainer(**kwargs)))


@pytest.mark.parametrize(("count", "steps", "updates"), [(4, 2, 2), (3, 2, 2), (3, 4, 1), (3, 1, 3)])
def test_an_accumulated_gradient_is_clipped_once(count: int, steps: int, updates: int) -> None:
    clipped = change(make_trainer(count=count, accumulation_steps=steps))
    # The gradient is the same in each iteration, so each update is as long as max_norm.
    assert clipped.norm().item() == pytest.approx(0.5 * updates, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_training_before_the_weights_change(bad: float) -> None:
    trainer = make_trainer(count=3)
    before: list[torch.Tensor] = []

    @trainer.on(Events.ITERATION_STARTED(once=2))
    def _spoil(engine: Any) -> None:
        engine.state.batch["image"] *= bad
        before.extend(p.detach().clone() for p in engine.network.parameters())

    with pytest.raises(FloatingPointError, match=r"norm nan|norm inf") as error:
        trainer.run()
    assert "in epoch 1, iteration 2 (loss" in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


@pytest.mark.usefixtures("scaler_on_cpu")
def test_with_amp_an_overflow_is_left_to_the_scaler() -> None:
    trainer = make_trainer(scale=1e36, amp=True)
    assert change(trainer).eq(0).all()
    assert trainer.scaler.get_scale() < 2**16


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan")])
def test_max_norm_must_be_positive(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm must be more than 0, not {max_norm}"):
        GradientClipping(max_norm=max_norm)
