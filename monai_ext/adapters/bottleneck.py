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

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from monai_ext.adapters.base import Adapter, AdapterLayer, block_widths


class BottleneckMLP(Adapter):
    r"""
    A narrow MLP in front of every block, as SAM2-UNet and SAM2-UNeXT tune Hiera.

    .. math:: y = \operatorname{block}(x + \operatorname{GELU}(W_2 \operatorname{GELU}(W_1 x + b_1) + b_2))

    with :math:`W_1 \in R^{h \times d}`, :math:`W_2 \in R^{d \times h}`. Here :math:`W_2` and :math:`b_2` start at zero,
    so that the network starts as it was; the published code starts near zero and moves every feature at once.

    Args:
        targets: patterns of module names; blocks of Hiera (``image_encoder.trunk.blocks.*``) can be adapted.
        width: h, 32 in both papers.
        name: see :class:`Adapter`.

    Raises:
        ValueError: ``width`` is below 1.

    Source:
        Xiong et al., SAM2-UNet, 2024, https://arxiv.org/abs/2408.08870; SAM2-UNeXT, 2025,
        https://arxiv.org/abs/2508.03566.

    Example:
        >>> BottleneckMLP(targets=["image_encoder.trunk.blocks.?"]).describe()["width"]
        32
    """

    def __init__(self, *, targets: Sequence[str], width: int = 32, name: str = "default") -> None:
        super().__init__(targets=targets, name=name)
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"width must be a whole number of at least 1, not {width!r}.")
        self.width = width

    def layer(self, base: nn.Module) -> AdapterLayer:
        channels, _ = block_widths(base, "BottleneckMLP")
        parameter = next(base.parameters())
        return BottleneckLayer(channels, self.width).to(parameter.device, parameter.dtype)


class BottleneckLayer(AdapterLayer):
    """The MLP in front of one block."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for start_at_zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start_at_zero)

    def forward(self, base: Any, x: Tensor) -> Tensor:
        return base(x + F.gelu(self.up(F.gelu(self.down(x)))))
