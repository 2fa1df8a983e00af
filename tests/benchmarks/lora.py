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


"""What a training step costs: our LoRA, HF PEFT's, full tuning, and the limit, where only the input has a gradient."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any

from .compare import Benchmark, Bound, Figures, Settings, seconds_of

# SAM2LoRA's placement.
TARGETS = ["*trunk*attn.qkv", "sam_mask_decoder.transformer.*attn*_proj"]
RANK = 16


def training_step(variant: str, settings: Settings) -> Callable[[], Figures]:
    """
    Forward, loss, backward and AdamW step of one image.

    Memory is the process's peak (``ru_maxrss``) less what it holds after building the network, before the first step.
    """
    return step_of(
        lora_network(variant, "micro" if settings.quick else "tiny"), settings, input_gradient=variant == "limit"
    )


def step_of(network: Any, settings: Settings, *, input_gradient: bool = False) -> Callable[[], Figures]:
    """Time and memory of one training step of a network."""
    import psutil
    import torch

    from monai_ext.losses import TverskyCompositeLoss

    torch.set_num_threads(settings.threads)
    side = 64 if settings.quick else 512
    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4) if parameters else None
    loss_function = TverskyCompositeLoss()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, side, side, generator=generator).requires_grad_(input_gradient)
    label = (torch.rand(1, 1, side, side, generator=generator) > 0.9).float()

    def step() -> None:
        network.zero_grad()
        image.grad = None
        loss_function(network(image), label).backward()
        if optimizer:
            optimizer.step()

    before = psutil.Process().memory_info().rss
    step()
    step()  # the first with AdamW's state in memory
    return lambda: {"seconds": seconds_of(step), "peak MiB": (_peak_bytes() - before) / 2**20}


def lora_network(variant: str, size: str) -> Any:
    from monai_ext.adapters import LoRA
    from monai_ext.networks import SAM2Segmenter

    if variant == "ours":
        return SAM2Segmenter(size=size, adapters=[LoRA(targets=TARGETS, rank=RANK)])
    network = SAM2Segmenter(size=size, train=["*"] if variant == "full" else [])
    if variant == "limit":
        return network.requires_grad_(False)
    return _with_peft(network) if variant == "peft" else network


def _with_peft(network: Any) -> Any:
    from peft import LoraConfig, inject_adapter_in_model

    from monai_ext.adapters import LoRA
    from monai_ext.adapters.base import find_targets

    names = find_targets(network, LoRA(targets=TARGETS))
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=names, lora_dropout=0.0)
    network = inject_adapter_in_model(config, network)
    network.class_tokens.requires_grad_(True)  # PEFT froze them; ours trains them too
    return network


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


BENCHMARKS = {
    "lora": Benchmark(
        title="LoRA training step: rank 16 on encoder qkv and decoder attention, tiny, 512 px, batch 1",
        variants=("ours", "peft", "limit", "full"),
        prepare=training_step,
        bounds=(
            Bound("seconds", "ours", 0.95, against="peft"),
            Bound("peak MiB", "ours", 1.0, against="peft"),
            Bound("seconds", "ours", 1.15, against="limit"),
        ),
    )
}
