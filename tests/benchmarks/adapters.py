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


"""What a training step of every adapter costs, beside HF PEFT's LoRA, the naive singular values, and full tuning."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .compare import Benchmark, Bound, Figures, Settings
from .lora import RANK, TARGETS, lora_network, step_of

LINEAR = ["*trunk*attn.qkv", "*trunk*attn.proj", "*trunk*mlp.layers.*", "*trunk.blocks.*.proj"]
BLOCKS = [f"image_encoder.trunk.blocks.{block}" for block in range(10)]  # micro has ten, tiny two more
ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {"targets": TARGETS, "rank": RANK},
    "DoRA": {"targets": TARGETS, "rank": RANK},
    "SingularValues": {"targets": LINEAR},
    "SALT": {"targets": LINEAR, "rank": 4, "leading": 0.1},
    "BottleneckMLP": {"targets": BLOCKS},
    "DilatedDepthwise": {"targets": ["image_encoder.trunk.blocks.[0-5]"]},
    "DepthwiseSeparable": {"targets": ["image_encoder.neck.convs.1.conv"]},
    "SharedRefactoring": {"targets": ["image_encoder.trunk.blocks.*.norm[12]"], "rank": 100},
    "PromptBridge": {"targets": BLOCKS},
}
OTHERS = ("peft", "naive singular values", "limit", "full")


def adapter_step(variant: str, settings: Settings) -> Callable[[], Figures]:
    """Seconds and peak memory of a step, trained parameters, and the size of the file, where there is one."""
    import torch

    from monai_ext import adapters
    from monai_ext.networks import SAM2Segmenter

    size = "micro" if settings.quick else "tiny"
    if variant in ADAPTERS:
        adapter = getattr(adapters, variant)(**ADAPTERS[variant])
        network = SAM2Segmenter(size=size, adapters=[adapter])
    elif variant == "naive singular values":
        network = _with_naive_singular_values(SAM2Segmenter(size=size))
    else:
        network = lora_network(variant, size)
    ours = [(k, p.detach()) for k, p in network.named_parameters() if p.requires_grad]
    with tempfile.TemporaryDirectory() as folder:
        torch.save({key: value.clone() for key, value in ours}, Path(folder) / "model.pt")
        fixed = {
            "trained": float(sum(p.numel() for _, p in ours)),
            "MB": (Path(folder) / "model.pt").stat().st_size / 1e6,
        }
    measure = step_of(network, settings, input_gradient=variant == "limit")
    return lambda: measure() | fixed


def _with_naive_singular_values(network: Any) -> Any:
    """U relu(A S + B) V^T formed by autograd in every forward, as the published code of S-SAM does."""
    import torch
    from torch import nn

    from monai_ext.adapters import SingularValues
    from monai_ext.adapters.base import find_targets, replace_module

    class Naive(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            u, s, vt = torch.linalg.svd(base.weight.detach(), full_matrices=False)
            for name, value in (("u", u), ("s", s), ("vt", vt), ("bias", base.bias.detach())):
                self.register_buffer(name, value)
            self.scale, self.shift = nn.Parameter(torch.ones_like(s)), nn.Parameter(torch.zeros_like(s))

        def forward(self, x: Any) -> Any:
            weight = self.u @ torch.diag(torch.relu(self.scale * self.s + self.shift)) @ self.vt
            return nn.functional.linear(x, weight, self.bias)

    for name in find_targets(network, SingularValues(targets=LINEAR)):
        replace_module(network, name, Naive(network.get_submodule(name)))
    return network


BENCHMARKS = {
    "adapters": Benchmark(
        title="A training step of every adapter: tiny, 512 px, batch 1",
        variants=(*ADAPTERS, *OTHERS),
        prepare=adapter_step,
        bounds=(
            Bound("seconds", "SingularValues", 0.8, against="naive singular values"),
            Bound("seconds", "LoRA", 0.95, against="peft"),
            Bound("peak MiB", "LoRA", 1.0, against="peft"),
        ),
        processes=2,
        turns=6,
    )
}
