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

import torch
from torch import Tensor, nn

from monai_ext.adapters.base import Adapter, AdapterLayer


class SharedRefactoring(Adapter):
    r"""
    One pair of projections that all blocks share, with a scale and a bias for each block, as SAMIHS tunes SAM.

    .. math:: y = n + ((n D) \odot s_i) D^T + b_i, \qquad n = \operatorname{norm}_i(x),\ D \in R^{d \times r}

    with s = 0 and b = 0 at first. Layers of one name and one width share D: one for attention (``norm1``) and one for
    the MLP (``norm2``), as in the paper. SAM's blocks are all of one width, Hiera's are not: each width has a D of its
    own. In a block that changes the width, Hiera takes its shortcut behind ``norm1``, so that is changed, too.

    Args:
        targets: patterns of module names; layer norms can be adapted (``image_encoder.trunk.blocks.*.norm[12]``).
        rank: r, 100 at SAM's width of 768 in the paper.
        name: see :class:`Adapter`.

    Raises:
        ValueError: ``rank`` is below 1.

    Source:
        Wang et al., SAMIHS, ISBI 2024, https://arxiv.org/abs/2311.08190.

    Example:
        >>> net = nn.ModuleDict({"0": nn.LayerNorm(8), "1": nn.LayerNorm(8)})
        >>> one, other = SharedRefactoring(targets=["*"], rank=2).layers(net, ["0", "1"]).values()
        >>> one.down.shape
        torch.Size([8, 2])
    """

    def __init__(self, *, targets: Sequence[str], rank: int = 100, name: str = "default") -> None:
        super().__init__(targets=targets, name=name)
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be a whole number of at least 1, not {rank!r}.")
        self.rank = rank

    def layer(self, base: nn.Module) -> AdapterLayer:
        if not isinstance(base, nn.LayerNorm) or len(base.normalized_shape) != 1 or base.weight is None:
            raise TypeError(f"SharedRefactoring adapts LayerNorm, not {type(base).__name__}; narrow the targets.")
        return RefactoringLayer(base.normalized_shape[0], self.rank).to(base.weight.device, base.weight.dtype)

    def layers(self, network: nn.Module, names: Sequence[str]) -> dict[str, AdapterLayer]:
        layers = super().layers(network, names)
        shared: dict[tuple[str, torch.Size], nn.Parameter] = {}
        for name, layer in layers.items():
            kind = name.rpartition(".")[2]
            layer.down = shared.setdefault((kind, layer.down.shape), layer.down)
        return layers


class RefactoringLayer(AdapterLayer):
    """Scale and bias of one norm, and the projection that it shares with others."""

    down: Any

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(channels, rank))
        nn.init.xavier_uniform_(self.down)
        self.scale = nn.Parameter(torch.zeros(rank))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, base: Any, x: Tensor) -> Tensor:
        n = base(x)
        return n + ((n @ self.down) * self.scale) @ self.down.T + self.bias
