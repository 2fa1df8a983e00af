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

from monai_ext.adapters.base import Adapter, AdapterLayer, require_matrix
from monai_ext.adapters.lora import low_rank_linear
from monai_ext.adapters.singular_values import FactoredLayer, positive


class SALT(Adapter):
    r"""
    Scale and shift of the leading singular values of a weight, and a low-rank term among the others.

    .. math::
        W = U \operatorname{diag}(S) V^T, \qquad W' = U
        \begin{pmatrix} \operatorname{diag}(\operatorname{ReLU}(A \odot S_k + B)) & 0 \\
        0 & \operatorname{diag}(S_{r-k}) + X Y \end{pmatrix} V^T

    with A = 1, B = 0 and Y = 0 at first, so that W' = W bit for bit. The first k of the r = min(out, in) singular
    values are the leading ones. Factors, the cache of evaluation and clipped values are those of
    :class:`SingularValues`.

    Args:
        targets: patterns of module names; ``nn.Linear`` and ``nn.Conv2d`` without groups can be adapted.
        rank: columns of X and rows of Y; at most r - k are used.
        leading: k as a part of r, above 0 and below 1; at least one value leads and one does not.
        name: see :class:`Adapter`.

    Raises:
        ValueError: a setting is out of its range, or a weight has a single singular value.

    Source:
        Elsayed et al., SALT: Singular Value Adaptation with Low-Rank Transformation, 2025,
        https://arxiv.org/abs/2503.16055; there ``leading`` is 0.1 and ``rank`` 4 to 256.

    Example:
        >>> layer = SALT(targets=["0"], rank=2, leading=0.5).layer(nn.Linear(6, 4))
        >>> {name: tuple(p.shape) for name, p in layer.named_parameters()}
        {'scale': (2,), 'shift': (2,), 'x': (2, 2), 'y': (2, 2)}
    """

    def __init__(self, *, targets: Sequence[str], rank: int = 4, leading: float = 0.1, name: str = "default") -> None:
        super().__init__(targets=targets, name=name)
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be a whole number of at least 1, not {rank!r}.")
        if not 0 < leading < 1:
            raise ValueError(f"leading must be above 0 and below 1, not {leading!r}.")
        self.rank, self.leading = rank, leading

    def layer(self, base: nn.Module) -> AdapterLayer:
        require_matrix(base, "SALT")
        return SALTLayer(base.weight, rank=self.rank, leading=self.leading)  # type: ignore[arg-type]


class SALTLayer(FactoredLayer):
    """Scale and shift of the leading singular values, and a product of two thin matrices for the others."""

    def __init__(self, weight: Tensor, *, rank: int, leading: float) -> None:
        super().__init__()
        count = min(weight.flatten(1).shape)
        if count < 2:
            raise ValueError("SALT needs a weight with at least two singular values, not one.")
        self.count = min(max(round(leading * count), 1), count - 1)
        rest = count - self.count
        factory: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        self.scale = nn.Parameter(torch.ones(self.count, **factory))
        self.shift = nn.Parameter(torch.zeros(self.count, **factory))
        # The paper's start of X: uniform, a = sqrt(20).
        self.x = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rest, min(rank, rest), **factory), a=20**0.5))
        self.y = nn.Parameter(torch.zeros(min(rank, rest), rest, **factory))

    def change_of_factors(self, u: Tensor, s: Tensor, vt: Tensor) -> Tensor:
        left, right = self._thin(u, s, vt)
        return left @ right

    def linear(self, base: nn.Linear, x: Tensor) -> Tensor:
        left, right = self._thin(*self.factors(base))
        return low_rank_linear(base, x, right, left)

    def _thin(self, u: Tensor, s: Tensor, vt: Tensor) -> tuple[Tensor, Tensor]:
        """The change as a product of two thin matrices, ``(out, k + rank)`` and ``(k + rank, in)``."""
        k = self.count
        difference = positive(self.scale * s[:k] + self.shift) - s[:k]
        left = torch.cat([u[:, :k] * difference, u[:, k:] @ self.x], dim=1)
        return left, torch.cat([vt[:k], self.y @ vt[k:]])
