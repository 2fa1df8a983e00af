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

from monai_ext.adapters.base import Adapter, AdapterLayer


class DepthwiseSeparable(Adapter):
    r"""
    A residual depthwise-separable convolution behind a convolution of the neck, as TopoLoRA-SAM.

    .. math:: y' = y + W_2 \operatorname{GELU}(\operatorname{Norm}(W_1 D y))

    with D depthwise 3 x 3 and W pointwise, all of the width of y. Here :math:`W_2` starts at zero, so that the network
    starts as it was, and Norm is a group norm over all channels: batch statistics of a few crops would differ from
    those of whole images. The paper's stride-16 feature of SAM is, in SAM 2's neck,
    ``image_encoder.neck.convs.1.conv``, before the coarser feature is added.

    Args:
        targets: patterns of module names; ``nn.Conv2d`` can be adapted.
        name: see :class:`Adapter`.

    Source:
        Khazem, TopoLoRA-SAM, 2026, https://arxiv.org/abs/2601.02273.

    Example:
        >>> layer = DepthwiseSeparable(targets=["0"]).layer(nn.Conv2d(3, 4, 1))
        >>> sum(p.numel() for p in layer.parameters())
        88
    """

    def layer(self, base: nn.Module) -> AdapterLayer:
        if not isinstance(base, nn.Conv2d):
            raise TypeError(f"DepthwiseSeparable adapts Conv2d, not {type(base).__name__}; narrow the targets.")
        return DepthwiseSeparableLayer(base.out_channels).to(base.weight.device, base.weight.dtype)


class DepthwiseSeparableLayer(AdapterLayer):
    """The convolutions behind one other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.first, self.second = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.norm = nn.GroupNorm(1, channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, base: Any, x: Tensor) -> Tensor:
        y = base(x)
        return y + self.second(F.gelu(self.norm(self.first(self.spatial(y)))))
