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
import torch.nn.functional as F
from torch import Tensor, nn

from monai_ext.adapters.base import Adapter, AdapterLayer

# Where in x out is at most this many times rank x (in + out), one product g^T x is as fast as the thin ones, though
# it is up to 1.75 times their work: on a CPU thin products wait for memory (widths 32 to 768, ranks 8 and 16).
_SQUARE = 3.5


class LoRA(Adapter):
    r"""
    Low-rank adaptation of linear layers and convolutions.

    .. math:: W' = W + \frac{\alpha}{r} B A, \qquad A \in R^{r \times in},\ B \in R^{out \times r}

    with B = 0 at first.

    Training forms ``W'`` and multiplies once, instead of running the low-rank branch beside the frozen layer; the
    gradients of A and B are taken directly, so that the large gradient of ``W'`` is never formed. Where there are many
    more tokens than channels, as in an image encoder, that is less work than the branch. With dropout, and under
    autocast (where ``W'`` in half precision would round small updates away), the branch is run.

    Args:
        targets: patterns of module names; ``nn.Linear`` and ``nn.Conv2d`` without groups can be adapted.
        rank: r; parameters grow by ``in + out`` for each unit.
        alpha: the update is scaled by ``alpha / rank``; twice the rank by default, as SAM2LoRA.
        dropout: probability of dropping the branch's input in training, 0..1.
        rank_stabilized: scale the update by ``alpha / sqrt(rank)`` (rsLoRA), so that it does not shrink as the rank
            grows.
        parts: of a fused ``qkv`` layer, which thirds of its output to adapt: any of ``q``, ``k`` and ``v``.
            Thirds are of the output: where Hiera changes its width, ``qkv`` maps ``dim`` to ``3 * dim_out``.
        name: see :class:`Adapter`.

    Raises:
        ValueError: a setting is out of its range.

    Source:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685; placed
        as in Mandal et al., SAM2LoRA, 2025, https://arxiv.org/abs/2510.10288. Kalajdzievski, A Rank Stabilization
        Scaling Factor for Fine-Tuning with LoRA, 2023, https://arxiv.org/abs/2312.03732.

    Example:
        >>> adapter = LoRA(targets=["0"], rank=2)
        >>> layer = adapter.layer(nn.Linear(6, 4))
        >>> sum(p.numel() for p in layer.parameters())
        20
    """

    def __init__(
        self,
        *,
        targets: Sequence[str],
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        rank_stabilized: bool = False,
        parts: str | None = None,
        name: str = "default",
    ) -> None:
        super().__init__(targets=targets, name=name)
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be a whole number of at least 1, not {rank!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {dropout!r}.")
        if parts is not None and (not parts or set(parts) - set("qkv") or len(set(parts)) < len(parts)):
            raise ValueError(f"parts must name thirds of a fused qkv, such as 'qv', not {parts!r}.")
        self.rank = rank
        self.alpha = float(2 * rank if alpha is None else alpha)
        self.dropout = dropout
        self.rank_stabilized = rank_stabilized
        self.parts = parts

    def layer(self, base: nn.Module) -> AdapterLayer:
        settings: dict[str, Any] = {"rank": self.rank, "dropout": self.dropout}
        settings["scale"] = self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)
        if isinstance(base, nn.Linear):
            return LoRALinear(base, parts=self.parts, **settings)
        if isinstance(base, nn.Conv2d) and base.groups == 1 and base.padding_mode == "zeros":
            if self.parts is not None:
                raise ValueError(f"parts={self.parts!r} is for fused qkv layers, not for a convolution.")
            return LoRAConv2d(base, **settings)
        raise TypeError(f"LoRA adapts Linear and Conv2d without groups, not {type(base).__name__}; narrow the targets.")


class LoRALinear(AdapterLayer):
    """LoRA's part of one linear layer; ``lora_b`` has rows for the adapted part of the output only."""

    def __init__(self, base: nn.Linear, *, rank: int, scale: float, dropout: float, parts: str | None) -> None:
        super().__init__()
        self.rows = _rows(base.out_features, parts)
        factory: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        rows = sum(stop - start for start, stop in self.rows)
        self.lora_a = nn.Parameter(_start(torch.empty(rank, base.in_features, **factory)))
        self.lora_b = nn.Parameter(torch.zeros(rows, rank, **factory))
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, base: Any, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type) or (self.training and self.dropout.p > 0):
            branch = self.scale * F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b)
            return base(x) + _spread(branch, self.rows, base.out_features)
        if torch.is_grad_enabled():
            return low_rank_linear(base, x, self.lora_a, self.lora_b, scale=self.scale, rows=self.rows)
        return F.linear(x, _merged(base.weight, self.lora_a, self.lora_b, self.scale, self.rows), base.bias)

    def delta(self, base: Any) -> Tensor:
        update = self.scale * (self.lora_b.detach().float() @ self.lora_a.detach().float())
        return _spread(update.T, self.rows, base.out_features).T


class LoRAConv2d(AdapterLayer):
    """LoRA's part of one convolution: a convolution to ``rank`` channels followed by a pointwise one."""

    def __init__(self, base: nn.Conv2d, *, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_a = nn.Parameter(_start(torch.empty(rank, *base.weight.shape[1:], **factory)))
        self.lora_b = nn.Parameter(torch.zeros(base.out_channels, rank, **factory))
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, base: Any, x: Tensor) -> Tensor:
        if self.training and self.dropout.p > 0:
            low = F.conv2d(self.dropout(x), self.lora_a, None, base.stride, base.padding, base.dilation)
            return base(x) + self.scale * F.conv2d(low, self.lora_b[:, :, None, None])
        update = (self.lora_b @ self.lora_a.flatten(1)).view_as(base.weight)
        return base._conv_forward(x, base.weight + self.scale * update, base.bias)

    def delta(self, base: Any) -> Tensor:
        update = self.lora_b.detach().float() @ self.lora_a.detach().float().flatten(1)
        return self.scale * update.view_as(base.weight)


def low_rank_linear(
    base: nn.Linear,
    x: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    scale: float = 1.0,
    rows: list[tuple[int, int]] | None = None,
) -> Tensor:
    """
    A linear layer whose weight is changed by ``scale * b @ a``, for training in one precision.

    Args:
        base: the layer, frozen or not.
        x: ``(..., in)``.
        a: ``(rank, in)``.
        b: ``(changed rows, rank)``.
        scale: of the change.
        rows: ranges of output rows that are changed; all by default.

    Returns:
        ``(..., out)``.
    """
    rows = [(0, base.out_features)] if rows is None else rows
    return _LowRankLinear.apply(x, base.weight, base.bias, a, b, scale, rows)  # type: ignore[no-untyped-call,no-any-return]


class _LowRankLinear(torch.autograd.Function):
    """
    ``y = x W'^T + b`` with ``W' = W + s B A`` and W frozen or not.

    With g the gradient of y (adapted rows only where B is concerned):
    ``dx = g W'``, ``dA = s (g B)^T x``, ``dB = s g^T (x A^T)``: two large products a step, as with W alone. Of a narrow
    layer ``g^T x`` is formed once instead, which is then as fast as the thin products.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        rows: list[tuple[int, int]],
    ) -> Tensor:
        # W' is formed again in the backward pass: a small product, against one copy of W a layer held in between.
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale, ctx.rows = scale, rows
        return F.linear(x, _merged(weight, a, b, scale, rows), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, a, b = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        dx = dweight = dbias = None
        if need_x:
            dx = grad @ _merged(weight, a, b, ctx.scale, ctx.rows)
        g, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        adapted = torch.cat([g[:, i:j] for i, j in ctx.rows], dim=1) if len(ctx.rows) > 1 else g[:, slice(*ctx.rows[0])]
        if a.shape[1] * b.shape[0] <= _SQUARE * a.shape[0] * (a.shape[1] + b.shape[0]):
            product = adapted.T @ flat
            da, db = ctx.scale * (b.T @ product), ctx.scale * (product @ a.T)
        else:
            # Rank times tokens, not tokens times rank: products with few columns are slow on CPUs.
            da = ctx.scale * ((b.T @ adapted.T) @ flat)
            db = ctx.scale * ((a @ flat.T) @ adapted).T
        if need_weight:
            dweight = g.T @ flat
        if need_bias:
            dbias = g.sum(0)
        return dx, dweight, dbias, da, db, None, None


def _start(weight: Tensor) -> Tensor:
    return nn.init.kaiming_uniform_(weight, a=5**0.5)  # what HF PEFT and nn.Linear use


def _rows(out_features: int, parts: str | None) -> list[tuple[int, int]]:
    """Ranges of output rows that are adapted; neighbours are joined."""
    if parts is None or len(parts) == 3:
        return [(0, out_features)]
    if out_features % 3:
        raise ValueError(f"parts={parts!r} needs a fused qkv layer, not one with {out_features} outputs.")
    third = out_features // 3
    return [(i * third, (i + 1) * third) for i, part in enumerate("qkv") if part in parts]


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, rows: list[tuple[int, int]]) -> Tensor:
    if rows == [(0, weight.shape[0])]:
        return torch.addmm(weight, b, a, alpha=scale)
    merged, taken = weight.clone(), 0
    for start, stop in rows:
        merged[start:stop].addmm_(b[taken : taken + stop - start], a, alpha=scale)
        taken += stop - start
    return merged


def _spread(branch: Tensor, rows: list[tuple[int, int]], out_features: int) -> Tensor:
    """Put the adapted part of an output, ``(..., sum of rows)``, at its place in the whole output."""
    if rows == [(0, out_features)]:
        return branch
    whole, taken = branch.new_zeros(*branch.shape[:-1], out_features), 0
    for start, stop in rows:
        whole[..., start:stop] = branch[..., taken : taken + stop - start]
        taken += stop - start
    return whole
