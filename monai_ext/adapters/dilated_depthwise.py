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

import torch.nn.functional as F
from torch import Tensor, nn

from monai_ext.adapters.base import Adapter, AdapterLayer, block_widths


class DilatedDepthwise(Adapter):
    r"""
    Depthwise convolutions of two dilations behind every block, as DD-SAM2 tunes Hiera.

    .. math::
        h = \operatorname{GELU}(W_1 y), \qquad
        y' = y + \operatorname{GELU}(W_2 (\operatorname{GELU}(D_1 h) + \operatorname{GELU}(D_3 h)))

    for the output y of a block with d channels, :math:`W_1` and :math:`W_2` pointwise to d/2 channels and back,
    :math:`D_1` and :math:`D_3` depthwise 3 x 3 of dilation 1 and 3. Here :math:`W_2` starts at zero, so that the
    network starts as it was; the published code perturbs the features of the base in the first step.

    Args:
        targets: patterns of module names; blocks of Hiera (``image_encoder.trunk.blocks.*``) can be adapted. The paper
            adapts the first six.
        name: see :class:`Adapter`.

    Source:
        DD-SAM2, Machine Learning: Science and Technology 2025, https://arxiv.org/abs/2507.14613.

    Example:
        >>> DilatedDepthwise(targets=["image_encoder.trunk.blocks.[0-5]"]).describe()["method"]
        'DilatedDepthwise'
    """

    def layer(self, base: nn.Module) -> AdapterLayer:
        _, channels = block_widths(base, "DilatedDepthwise")
        parameter = next(base.parameters())
        return DilatedDepthwiseLayer(channels).to(parameter.device, parameter.dtype)


class DilatedDepthwiseLayer(AdapterLayer):
    """The convolutions behind one block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = max(channels // 2, 1)
        self.down, self.up = nn.Conv2d(channels, half, 1), nn.Conv2d(half, channels, 1)
        self.near = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.far = nn.Conv2d(half, half, 3, padding=3, dilation=3, groups=half)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, base: Any, x: Tensor) -> Tensor:
        y = base(x)  # B, H, W, C
        h = F.gelu(self.down(y.permute(0, 3, 1, 2)))
        change = F.gelu(self.up(F.gelu(self.near(h)) + F.gelu(self.far(h))))
        return y + change.permute(0, 2, 3, 1)
