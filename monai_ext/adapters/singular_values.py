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

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_ext.adapters.base import Adapter, AdapterLayer, WeightLayer, require_matrix


class SingularValues(Adapter):
    r"""
    Scale and shift of all singular values of a weight, as S-SAM tunes SAM's image encoder.

    .. math::
        W = U \operatorname{diag}(S) V^T, \qquad W' = U \operatorname{diag}(\operatorname{ReLU}(A \odot S + B)) V^T

    with A = 1 and B = 0 at first, both of the length min(out, in). A convolution's weight is taken as out x (in h w).

    ``W'`` is formed as :math:`W + U \operatorname{diag}(\operatorname{ReLU}(A \odot S + B) - S) V^T`, which is W bit
    for bit at first, once for each step, and once for all steps of an evaluation. In training, the gradients of A and
    B are taken directly, through the factors or with ``W'``, whichever is less work for the layer. The factors are
    computed when they are first needed, in float32, follow the module to other devices and are not saved.

    **Values that the ReLU has clipped.** The plain ReLU has no gradient below zero: a singular value that was once
    clipped would stay zero for ever. Here the gradient passes a clipped value too if a step along it makes the value
    larger; only what would push it further below zero is stopped. This is the gradient of the projection onto
    values that are not negative.

    Args:
        targets: patterns of module names; ``nn.Linear`` and ``nn.Conv2d`` without groups can be adapted.
        name: see :class:`Adapter`.

    Source:
        Paranjape et al., S-SAM: SVD-based Fine-Tuning of Segment Anything Model for Medical Image Segmentation, 2024,
        https://arxiv.org/abs/2408.06447.

    Example:
        >>> layer = SingularValues(targets=["0"]).layer(nn.Linear(6, 4))
        >>> sum(p.numel() for p in layer.parameters())
        8
    """

    def layer(self, base: nn.Module) -> AdapterLayer:
        require_matrix(base, "SingularValues")
        return SingularValuesLayer(base.weight)  # type: ignore[arg-type]


class FactoredLayer(WeightLayer):
    """A change of a weight that is written in the weight's own singular vectors."""

    u: Tensor | None
    s: Tensor | None
    vt: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        for name in ("u", "s", "vt"):
            self.register_buffer(name, None, persistent=False)

    @abstractmethod
    def change_of_factors(self, u: Tensor, s: Tensor, vt: Tensor) -> Tensor:
        """What is added to the weight, ``(out, in)``; zero before training."""

    @abstractmethod
    def linear(self, base: nn.Linear, x: Tensor) -> Tensor:
        """The adapted linear layer with gradients that are taken directly, for training in one precision."""

    def forward(self, base: Any, x: Tensor) -> Tensor:
        one_precision = torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)
        if one_precision and isinstance(base, nn.Linear) and not torch.compiler.is_compiling():
            return self.linear(base, x)
        return super().forward(base, x)

    def change(self, base: Any) -> Tensor:
        return self.change_of_factors(*self.factors(base)).view_as(base.weight)

    def factors(self, base: Any) -> tuple[Tensor, Tensor, Tensor]:
        """U ``(out, r)``, S ``(r)`` and V^T ``(r, in)`` of the weight, computed once."""
        if self.u is None or self.s is None or self.vt is None:
            matrix = base.weight.detach().flatten(1)
            exact = torch.linalg.svd(matrix.float() if matrix.dtype.itemsize < 4 else matrix, full_matrices=False)
            u, s, vt = (factor.to(matrix.dtype) for factor in exact)
            if torch.jit.is_tracing():  # what the first pass kept, the tracer's second one would take for a constant
                return u, s, vt
            self.u, self.s, self.vt = u, s, vt
        return self.u, self.s, self.vt

    def base_changed(self) -> None:
        super().base_changed()
        self.u = self.s = self.vt = None


class SingularValuesLayer(FactoredLayer):
    """The scale and the shift of one weight's singular values."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        count = min(weight.flatten(1).shape)
        factory: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        self.scale = nn.Parameter(torch.ones(count, **factory))
        self.shift = nn.Parameter(torch.zeros(count, **factory))

    def change_of_factors(self, u: Tensor, s: Tensor, vt: Tensor) -> Tensor:
        return (u * self._difference(s)) @ vt

    def linear(self, base: nn.Linear, x: Tensor) -> Tensor:
        u, s, vt = self.factors(base)
        return _FactoredLinear.apply(x, base.weight, base.bias, u, s, self._difference(s), vt)  # type: ignore[no-untyped-call,no-any-return]

    def _difference(self, s: Tensor) -> Tensor:
        return positive(self.scale * s + self.shift) - s


class _FactoredLinear(torch.autograd.Function):
    """
    ``y = x W'^T + b`` with ``W' = W + U diag(d) V^T`` and ``W = U diag(S) V^T``, the factors fixed.

    With g the gradient of y, ``d`` gets the diagonal of ``U^T (g^T x) V``. Where W is frozen, that is the sum over
    tokens of ``(g U) * (x V)``, and x gets ``(g U diag(S + d)) V^T``: neither ``W'`` nor its gradient is needed. Which
    of the two ways takes fewer multiplications depends on the shape of W and on how many tokens there are.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, d: Tensor, vt: Tensor
    ) -> Tensor:
        (out, into), tokens, rank = weight.shape, x.numel() // x.shape[-1], len(s)
        need_x, need_weight = ctx.needs_input_grad[:2]
        beside = not need_weight and tokens * (out + into) < out * into
        by_factors = tokens * rank * (out + into * (need_x + (not beside)))
        ctx.by_factors = not need_weight and by_factors < out * into * (tokens * (1 + need_x) + rank)
        if beside:
            low = x @ vt.T
            ctx.save_for_backward(x, u, s, d, vt, low)
            return F.linear(x, weight, bias) + (low * d) @ u.T
        formed = torch.addmm(weight, u * d, vt)
        ctx.save_for_backward(x, u, s, d, vt, None if ctx.by_factors else formed)
        return F.linear(x, formed, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, u, s, d, vt, kept = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        g, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        dweight = None
        if ctx.by_factors:
            turned = grad @ u
            low = x @ vt.T if kept is None else kept
            dd = (turned * low).reshape(-1, len(d)).sum(0)
            dx = (turned * (s + d)) @ vt if need_x else None
        else:
            dweight = g.T @ flat
            dd = ((u.T @ dweight) * vt).sum(1)
            dx = grad @ kept if need_x else None
        return dx, dweight if need_weight else None, g.sum(0) if need_bias else None, None, None, dd, None


def positive(values: Tensor) -> Tensor:
    """ReLU whose gradient brings clipped values back, see :class:`SingularValues`."""
    if not torch.is_grad_enabled():  # a traced network cannot be saved with a function of ours in it
        return values.clamp(min=0)
    return _Positive.apply(values)  # type: ignore[no-untyped-call]


class _Positive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (values,) = ctx.saved_tensors
        return torch.where((values > 0) | (grad < 0), grad, 0)
