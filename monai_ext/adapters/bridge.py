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


class PromptBridge(Adapter):
    r"""
    A bridge from the decoder's learned tokens to prompts of the encoder, as CAT-SAM tunes both together.

    .. math:: y = \operatorname{block}_i(x + W_{2,i} \operatorname{GELU}(W_{1,i} \bar t + b_{1,i}) + b_{2,i})

    with :math:`\bar t` the mean of the labels' tokens and :math:`W_2, b_2` zero at first. One set of tokens thus tells
    the decoder what to draw and the encoder what to look for, and learns from both.

    CAT-T makes further tokens of the encoder's sequence. Hiera attends within windows and halves its grid between
    stages, where tokens without a place have none to go to: here the prompt is added at every place. Theirs starts at
    the token of HQ-SAM's decoder, which SAM 2 does not have; the labels' tokens have its role.

    Args:
        targets: patterns of module names; blocks of Hiera (``image_encoder.trunk.blocks.?``) can be adapted.
        width: channels in the middle, 64 in the paper.
        name: see :class:`Adapter`.

    Raises:
        ValueError: ``width`` is below 1.

    Source:
        Xiao et al., CAT-SAM, ECCV 2024, https://arxiv.org/abs/2402.03631.

    Example:
        >>> PromptBridge(targets=["image_encoder.trunk.blocks.?"]).describe()["width"]
        64
    """

    reads_tokens = True

    def __init__(self, *, targets: Sequence[str], width: int = 64, name: str = "default") -> None:
        super().__init__(targets=targets, name=name)
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"width must be a whole number of at least 1, not {width!r}.")
        self.width = width

    def layer(self, base: nn.Module) -> AdapterLayer:
        channels, _ = block_widths(base, "PromptBridge")
        parameter = next(base.parameters())
        return BridgeLayer(channels, self.width).to(parameter.device, parameter.dtype)

    def layers(self, network: nn.Module, names: Sequence[str]) -> dict[str, AdapterLayer]:
        layers = super().layers(network, names)
        for layer in layers.values():
            layer.tokens = [network.get_submodule("class_tokens")]
        return layers


class BridgeLayer(AdapterLayer):
    """The way from the tokens to one block."""

    # In a list: the tokens are the network's, not this layer's to save and to move.
    tokens: Any

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(256, width), nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, base: Any, x: Tensor) -> Tensor:
        return base(x + self.up(F.gelu(self.down(self.tokens[0]().mean(0)))))
