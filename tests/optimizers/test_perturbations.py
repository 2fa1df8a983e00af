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

"""Sharpness-aware steps: every perturbation, and the handler that makes a MONAI trainer use them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

from monai_ext.handlers import GradientClipping, SharpnessAware
from monai_ext.optimizers import (
    GlobalPerturbation,
    LayerwisePerturbation,
    Perturbation,
    RandomPerturbation,
    SampledPerturbation,
    SparsePerturbation,
)

METHODS: dict[str, Callable[..., Perturbation]] = {
    "global": GlobalPerturbation,
    "layerwise": LayerwisePerturbation,
    "random": RandomPerturbation,
    "sampled": SampledPerturbation,
    "sparse": lambda **kw: SparsePerturbation(update_every=3, **kw),
}


def tensors(count: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((3, 2) if i % 2 else (5,), generator=generator) for i in range(count)]


@pytest.mark.parametrize("method", METHODS)
class TestEveryPerturbation:
    def test_is_up_the_gradient(self, method: str) -> None:
        parameters, gradients = tensors(), [g + 0.1 for g in tensors()]
        perturbation = METHODS[method](rho=0.1)
        for _ in range(5):
            steps = perturbation(parameters, gradients)
            assert len(steps) == len(parameters) and any(step is not None for step in steps)
            for step, gradient in zip(steps, gradients, strict=True):
                if step is not None:
                    assert step.shape == gradient.shape
                    assert ((step == 0) | (step.sign() == gradient.sign())).all()

    def test_scale_of_the_gradient_means_nothing(self, method: str) -> None:
        """Under mixed precision the gradients are scaled."""
        results = []
        for scale in (1.0, 65536.0):
            torch.manual_seed(0)
            perturbation = METHODS[method](rho=0.1)
            for _ in range(4):
                steps = perturbation(tensors(), [scale * g for g in tensors()])
            results.append(steps)
        for one, two in zip(*results, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                torch.testing.assert_close(one, two)

    def test_a_gradient_of_zero_moves_nothing(self, method: str) -> None:
        for step in METHODS[method](rho=0.1)(tensors(), [torch.zeros_like(t) for t in tensors()]):
            assert step is None or not step.any()

    def test_rho_must_be_above_zero(self, method: str) -> None:
        with pytest.raises(ValueError, match="rho must be above 0, not 0"):
            METHODS[method](rho=0)

    def test_goes_on_where_it_stopped(self, method: str) -> None:
        whole, first = METHODS[method](rho=0.1), METHODS[method](rho=0.1)
        runs: list[list[Any]] = [[], []]
        state: dict[str, Any] = {}
        for number in range(8):
            gradients = [g * (1 + number * i) for i, g in enumerate(tensors())]
            if number == 4:
                first = METHODS[method](rho=0.1)
                first.load_state_dict(state)
            for run, perturbation in zip(runs, (whole, first), strict=True):
                torch.manual_seed(number)
                run.append(perturbation(tensors(), gradients))
            state = copy.deepcopy(first.state_dict())
        for one, two in zip(*runs, strict=True):
            for a, b in zip(one, two, strict=True):
                assert (a is None and b is None) or torch.equal(a, b)


def test_lengths() -> None:
    gradients = tensors()
    together = torch.cat([step.flatten() for step in GlobalPerturbation(rho=0.3)(gradients, gradients)])
    assert together.norm().item() == pytest.approx(0.3)
    for step, gradient in zip(LayerwisePerturbation(rho=0.3)(gradients, gradients), gradients, strict=True):
        width = 1.0 if gradient.ndim == 1 else math.sqrt(gradient.shape[0] / gradient.shape[1])
        assert step.norm().item() == pytest.approx(0.3 * width)
    random = [step for step in RandomPerturbation(rho=0.3, beta=0.5)(gradients, gradients) if step is not None]
    assert torch.cat([step.flatten() for step in random]).norm().item() == pytest.approx(0.6)


def test_the_mask_keeps_the_largest_gradients() -> None:
    sparse = SparsePerturbation(rho=1.0, sparsity=0.75, update_every=2)
    parameters = [torch.zeros(4), torch.zeros(4)]
    gradients = [torch.tensor([1.0, 2, 3, 4]), torch.tensor([8.0, 7, 6, 5])]
    kept = [torch.cat(sparse(parameters, gradients)) != 0 for _ in range(4)]
    assert kept[0].all() and kept[1].all()
    assert kept[2].tolist() == kept[3].tolist() == [False] * 4 + [True, True, False, False]


def test_tensors_with_large_gradients_are_sampled_more_often() -> None:
    torch.manual_seed(0)
    sampled = SampledPerturbation(share=0.3)
    gradients = [torch.full((4,), 10.0 if i < 3 else 0.1) for i in range(10)]
    for _ in range(300):
        sampled(gradients, gradients)
    chances = sampled.state_dict()["chances"]
    assert chances.sum().item() == pytest.approx(3, abs=1e-3) and chances.max() <= 1
    assert chances[:3].min() > 2 * chances[3:].max()


class Product(nn.Module):
    """``(a b - 1)^2 / 2``: least wherever a b = 1, with the curvature ``a^2 + b^2`` there, flattest where a = b."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([a])), nn.Parameter(torch.tensor([b]))

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return (self.a * self.b - 1) ** 2 / 2

    @property
    def curvature(self) -> float:
        return (self.a**2 + self.b**2).item()


def make_trainer(network: nn.Module, handlers: list[Any], lr: float = 0.01, steps: int = 1, **kwargs: Any) -> Any:
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(2, 3), "label": torch.zeros(2, 1)}] * steps,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=lambda pred, label: pred.sum(),
        train_handlers=handlers,
        decollate=False,
        **kwargs,
    )


@pytest.mark.parametrize("method", ["plain", *METHODS])
def test_from_a_sharp_minimum_to_a_flat_one(method: str) -> None:
    torch.manual_seed(0)
    network = Product(3.0, 0.4)
    handlers = [] if method == "plain" else [SharpnessAware(perturbation=METHODS[method](rho=0.2))]
    make_trainer(network, handlers, lr=0.05, steps=1500).run()
    assert network(torch.zeros(1)).item() < 0.1
    if method == "plain":
        assert network.curvature > 8
    else:
        assert network.curvature < 3


def test_a_step_is_that_of_the_formula() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    reference = copy.deepcopy(network)
    images = torch.ones(2, 3, dtype=torch.float64)

    def gradient(net: nn.Module) -> list[torch.Tensor]:
        return list(torch.autograd.grad(net(images).square().sum(), list(net.parameters())))

    first = gradient(reference)
    norm = torch.cat([g.flatten() for g in first]).norm()
    away = copy.deepcopy(reference)
    with torch.no_grad():
        for parameter, g in zip(away.parameters(), first, strict=True):
            parameter += 0.2 * g / norm
    expected = [p - 0.1 * g for p, g in zip(reference.parameters(), gradient(away), strict=True)]
    trainer = make_trainer(network, [SharpnessAware(perturbation=GlobalPerturbation(rho=0.2))], lr=0.1)
    trainer.loss_function = lambda pred, label: pred.square().sum()
    trainer.data_loader = [{"image": images, "label": torch.zeros(2, 1, dtype=torch.float64)}]
    trainer.run()
    for parameter, value in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value.detach())


@pytest.fixture
def scaler_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's trainer makes a scaler for CUDA only, which does nothing on a CPU."""
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: torch.amp.GradScaler("cpu"))


@pytest.mark.usefixtures("scaler_on_cpu")
@pytest.mark.parametrize("method", METHODS)
def test_a_scaled_loss_makes_the_same_steps(method: str) -> None:
    networks = []
    for amp in (False, True):
        torch.manual_seed(0)
        networks.append(Product(3.0, 0.4))
        handlers = [SharpnessAware(perturbation=METHODS[method](rho=0.2)), GradientClipping(max_norm=1.0)]
        make_trainer(networks[-1], handlers, lr=0.05, steps=20, amp=amp).run()
    for one, two in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.usefixtures("scaler_on_cpu")
@pytest.mark.parametrize("method", METHODS)
def test_an_overflow_is_passed_over_and_not_remembered(method: str) -> None:
    """A scaler begins too large and finds its scale by overflows: what a perturbation learns must survive them."""
    network, perturbation = Product(3.0, 2.0), METHODS[method](rho=0.2)
    trainer = make_trainer(network, [SharpnessAware(perturbation=perturbation)], lr=0.05, steps=3, amp=True)
    trainer.loss_function = lambda pred, label: 1e36 * pred.sum()
    before = copy.deepcopy(network.state_dict())
    trainer.run()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    trainer = make_trainer(network, [SharpnessAware(perturbation=perturbation)], lr=0.05, steps=3)
    trainer.run()
    assert all(value.isfinite() and value != before[key] for key, value in network.state_dict().items())


def test_both_passes_drop_the_same() -> None:
    seen = []
    network = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    make_trainer(network, [SharpnessAware(perturbation=GlobalPerturbation(rho=1e-6))], steps=3).run()
    assert len(seen) == 6
    assert all(torch.equal(seen[i], seen[i + 1]) for i in (0, 2, 4)) and not torch.equal(seen[0], seen[2])


def test_weights_are_put_back_to_the_bit_even_after_an_error() -> None:
    network = nn.Linear(3, 1)
    before = copy.deepcopy(network.state_dict())
    trainer = make_trainer(network, [SharpnessAware(perturbation=GlobalPerturbation(rho=1.0))])
    calls = []

    def fail(pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        calls.append(pred)
        if len(calls) == 2:
            raise RuntimeError("second pass")
        return pred.sum()

    trainer.loss_function = fail
    with pytest.raises(RuntimeError, match="second pass"):
        trainer.run()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_later_handlers_see_the_second_gradient() -> None:
    gradients: list[torch.Tensor] = []
    network = Product(2.0, 1.0)

    class Look:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(
                IterationEvents.BACKWARD_COMPLETED, lambda _: gradients.append(network.a.grad.clone())
            )

    make_trainer(network, [Look(), SharpnessAware(perturbation=GlobalPerturbation(rho=0.5)), Look()]).run()
    assert not torch.equal(*gradients)


def test_accumulated_gradients_are_refused() -> None:
    with pytest.raises(ValueError, match="accumulation_steps of the trainer must be 1"):
        make_trainer(nn.Linear(3, 1), [SharpnessAware(perturbation=GlobalPerturbation())], accumulation_steps=2).run()


def test_json_builds_it() -> None:
    config = {
        "handler": {
            "_target_": "monai_ext.handlers.SharpnessAware",
            "perturbation": {"_target_": "monai_ext.optimizers.SparsePerturbation", "rho": 0.1, "sparsity": 0.8},
        }
    }
    handler = ConfigParser(config).get_parsed_content("handler")
    trainer = make_trainer(Product(2.0, 1.0), [handler])
    trainer.add_event_handler(Events.COMPLETED, lambda _: None)
    trainer.run()
    assert handler.state_dict()["steps"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomPerturbation(beta=0), "beta must be above 0"),
        (lambda: SparsePerturbation(sparsity=1), "sparsity must be at least 0 and below 1"),
        (lambda: SparsePerturbation(update_every=0), "update_every must be at least 1"),
        (lambda: SampledPerturbation(share=1.5), "share must be above 0"),
    ],
)
def test_settings_out_of_range(make: Callable[[], Perturbation], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
