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


"""Every method on SAM 2 itself: what may be loaded, what is saved, what the compiler takes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from monai_ext.adapters import (
    SALT,
    Adapter,
    BottleneckMLP,
    DepthwiseSeparable,
    DilatedDepthwise,
    DoRA,
    LoRA,
    PromptBridge,
    SharedRefactoring,
    SingularValues,
)
from monai_ext.adapters import __all__ as ALL
from monai_ext.networks import SAM2Segmenter
from monai_ext.networks.base_file import save_base

QKV, BLOCKS = ["*trunk*attn.qkv"], ["image_encoder.trunk.blocks.?"]
# One row a method: how it is declared, and the same with a setting that changes the answer (None: there is none).
METHODS: dict[str, tuple[Callable[[], Adapter], Callable[[], Adapter] | None]] = {
    "LoRA": (lambda: LoRA(targets=QKV, rank=2), lambda: LoRA(targets=QKV, rank=3)),
    "DoRA": (lambda: DoRA(targets=QKV, rank=2), lambda: DoRA(targets=QKV, rank=3)),
    "SingularValues": (lambda: SingularValues(targets=QKV), None),
    "SALT": (lambda: SALT(targets=QKV, rank=2), lambda: SALT(targets=QKV, rank=3)),
    "BottleneckMLP": (lambda: BottleneckMLP(targets=BLOCKS, width=4), lambda: BottleneckMLP(targets=BLOCKS, width=5)),
    "DilatedDepthwise": (lambda: DilatedDepthwise(targets=BLOCKS), None),
    "DepthwiseSeparable": (lambda: DepthwiseSeparable(targets=["image_encoder.neck.convs.1.conv"]), None),
    "SharedRefactoring": (
        lambda: SharedRefactoring(targets=["*trunk.blocks.*.norm1"], rank=2),
        lambda: SharedRefactoring(targets=["*trunk.blocks.*.norm1"], rank=3),
    ),
    "PromptBridge": (lambda: PromptBridge(targets=BLOCKS, width=4), lambda: PromptBridge(targets=BLOCKS, width=5)),
}


def picture(side: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def network(adapter: Adapter, weights: Any = "micro") -> SAM2Segmenter:
    return SAM2Segmenter(size="micro", weights=weights, adapters=[adapter]).eval()


def moved(net: SAM2Segmenter) -> SAM2Segmenter:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("base") / "other.safetensors"
    save_base(SAM2Segmenter(size="micro", seed=8), path)
    return path


def test_every_method_is_here() -> None:
    assert set(METHODS) == {name for name in ALL if not name.startswith("Adapt")}


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethodOnSAM2:
    def test_before_training_the_network_is_the_base(self, method: str) -> None:
        plain = SAM2Segmenter(size="micro", weights="micro").eval()
        with torch.no_grad():
            assert torch.equal(network(METHODS[method][0]())(picture()), plain(picture()))

    def test_only_what_is_meant_to_trains_and_all_of_it_does(self, method: str) -> None:
        net = moved(network(METHODS[method][0]()))
        net(picture()).square().mean().backward()
        for name, parameter in net.named_parameters():
            if ".adapters." in name or name.startswith("class_tokens"):
                assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name
            else:
                assert not parameter.requires_grad and parameter.grad is None, name

    def test_construction_touches_no_random_state(self, method: str) -> None:
        before = torch.get_rng_state()
        first, second = (network(METHODS[method][0]()) for _ in range(2))
        assert torch.equal(before, torch.get_rng_state())
        for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b), name

    def test_save_and_load(self, method: str) -> None:
        net, other = moved(network(METHODS[method][0]())), network(METHODS[method][0]())
        file = io.BytesIO()
        torch.save(net.trained_state_dict(), file)
        assert file.tell() < 1_500_000
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True), strict=False)
        with torch.no_grad():
            assert torch.equal(other(picture()), net(picture()))
            assert torch.equal(copy.deepcopy(net)(picture()), net(picture()))

    def test_what_belongs_elsewhere_is_refused(self, method: str, other_base: Any) -> None:
        make, make_other = METHODS[method]
        net = network(make())
        part = net.trained_state_dict()
        key = next(name for name in part if ".adapters." in name)
        wrong = {
            "other base weights": network(make(), other_base).trained_state_dict(),
            "1 missing: ": {name: value for name, value in part.items() if name != key},
            "1 unexpected: ": part | {key + "x": part[key]},
            "of another shape": part | {key: torch.zeros(7, 7, 7)},
            "not finite": part | {key: torch.full_like(part[key], torch.nan)},
        }
        if make_other is not None:
            wrong["nothing was loaded"] = network(make_other()).trained_state_dict()
        before = copy.deepcopy(net.state_dict())
        for message, state in wrong.items():
            with pytest.raises(ValueError, match=message):
                net.load_state_dict(state, strict=False)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())

    def test_switched_off_and_on_again(self, method: str) -> None:
        net = moved(network(METHODS[method][0]()))
        token = net.class_tokens.weight.detach().clone()
        with torch.no_grad():
            before = net(picture())
            net.activate(None)
            plain = SAM2Segmenter(size="micro", weights="micro").eval()
            plain.class_tokens.weight.copy_(token)
            assert torch.equal(net(picture()), plain(picture()))
            net.activate("default")
            assert torch.equal(net(picture()), before)

    def test_export(self, method: str) -> None:
        net = moved(network(METHODS[method][0]()))
        with torch.no_grad():
            expected = net(picture(32))
            exported = torch.export.export(net, (picture(32),)).module()
            torch.testing.assert_close(exported(picture(32)), expected, atol=1e-4, rtol=1e-4)
