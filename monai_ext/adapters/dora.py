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

from monai_ext.adapters.base import Adapter, AdapterLayer, WeightLayer, require_matrix


class DoRA(Adapter):
    r"""
    Low-rank adaptation of the direction of every output's weights, and a magnitude of their own.

    .. math:: W'_i = m_i \frac{W_i + \Delta_i}{\lVert W_i + \Delta_i \rVert}, \qquad \Delta = \frac{\alpha}{r} B A

    for each row i of the weight (a convolution's is taken as out x (in h w)), with B = 0 and
    :math:`m_i = \lVert W_i \rVert` at first. As in the paper (section 4.3), the norm is a constant to the gradient.

    Args:
        targets: patterns of module names; ``nn.Linear`` and ``nn.Conv2d`` without groups can be adapted.
        rank: r; parameters grow by ``in + out`` for each unit.
        alpha: the update is scaled by ``alpha / rank``; twice the rank by default.
        name: see :class:`Adapter`.

    Raises:
        ValueError: a setting is out of its range.

    Source:
        Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, 2024, https://arxiv.org/abs/2402.09353.

    Example:
        >>> layer = DoRA(targets=["0"], rank=2).layer(nn.Linear(6, 4))
        >>> sum(p.numel() for p in layer.parameters())
        24
    """

    def __init__(
        self, *, targets: Sequence[str], rank: int = 16, alpha: float | None = None, name: str = "default"
    ) -> None:
        super().__init__(targets=targets, name=name)
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be a whole number of at least 1, not {rank!r}.")
        self.rank = rank
        self.alpha = float(2 * rank if alpha is None else alpha)

    def layer(self, base: nn.Module) -> AdapterLayer:
        require_matrix(base, "DoRA")
        return DoRALayer(base.weight, rank=self.rank, scale=self.alpha / self.rank)  # type: ignore[arg-type]


class DoRALayer(WeightLayer):
    """DoRA's part of one layer."""

    keeps_delta = True

    def __init__(self, weight: Tensor, *, rank: int, scale: float) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        factory: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        # LoRA's start, that of nn.Linear.
        self.lora_a = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, matrix.shape[1], **factory), a=5**0.5))
        self.lora_b = nn.Parameter(torch.zeros(len(matrix), rank, **factory))
        self.magnitude = nn.Parameter(matrix.norm(dim=1))
        self.scale = scale

    def change(self, base: Any) -> Tensor:
        weight = base.weight.detach().flatten(1)
        moved = weight + self.scale * self.lora_b @ self.lora_a
        # A row of zeros has no direction; the ratio at the start is one, to the last bit.
        ratio = self.magnitude / moved.detach().norm(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
        return (ratio[:, None] * moved - weight).view_as(base.weight)
