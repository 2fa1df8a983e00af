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
from torch import Tensor

from monai_ext.optimizers.perturbation import Perturbation, joint_norm

_FLOOR = 1e-3  # p_min and the rate of the published code
_RATE = 1e-3


class SampledPerturbation(Perturbation):
    r"""
    Up the gradient of a sample of the tensors, those with large gradients more often: the bandit of SL-SAM.

    Every tensor l takes part with a chance :math:`p_l`; the chances sum to s n. After a step, for those that took part,

    .. math::
        \ell_l = \frac{L^2}{p_{min}^2} - \frac{\lVert g_l \rVert^2}{p_l^2}, \qquad
        p_l \leftarrow p_l \exp(-\alpha \, \ell_l / p_l)

    with L the largest norm and losses counted from the least one, and the chances are scaled back to their sum, none
    above 1. The published code also spares the tensors that were not drawn their gradient; here they keep it, since
    with a frozen base little would be saved.

    Args:
        rho: length of the step away.
        share: s, the mean part of the tensors that take part, above 0 and at most 1.

    Raises:
        ValueError: a setting is out of its range.

    Source:
        Sparse Layer Sharpness-Aware Minimization, 2026, https://arxiv.org/abs/2602.09395.

    Example:
        >>> sampled = SampledPerturbation(share=0.5)
        >>> steps = sampled([torch.zeros(3)] * 20, [torch.ones(3)] * 20)
        >>> len(steps), round(sampled.state_dict()["chances"].sum().item(), 3)
        (20, 10.0)
    """

    def __init__(self, *, rho: float = 0.01, share: float = 0.5) -> None:
        super().__init__(rho=rho)
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}.")
        self.share = share
        self._chances: Tensor | None = None

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        count = len(gradients)
        chances = torch.full((count,), self.share) if self._chances is None else self._chances
        chosen = torch.rand(count) < chances
        if not chosen.any():
            chosen[int(torch.multinomial(chances, 1))] = True
        taking_part = [gradient for gradient, taken in zip(gradients, chosen.tolist(), strict=True) if taken]
        scale = self.rho / joint_norm(taking_part)
        self._chances = self._learn(chances, chosen, torch.stack([joint_norm([g]).cpu() for g in gradients]))
        return [
            scale.to(gradient.dtype) * gradient if taken else None
            for gradient, taken in zip(gradients, chosen.tolist(), strict=True)
        ]

    def _learn(self, chances: Tensor, chosen: Tensor, norms: Tensor) -> Tensor:
        # The scale of the gradient means nothing: norms are taken relative to the largest.
        relative = norms / norms.max()
        losses = 1 / _FLOOR**2 - (relative / chances).square()
        losses = losses - losses[chosen].min()
        weights = torch.where(chosen, chances * torch.exp(-_RATE * losses / chances), chances)
        return _with_sum(weights.clamp(min=1e-8), self.share * len(weights))

    def state_dict(self) -> dict[str, Any]:
        return {"chances": self._chances}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._chances = state["chances"]


def _with_sum(weights: Tensor, total: float) -> Tensor:
    """Scale numbers to a sum, none above 1: those that would be are 1, and the others share the rest."""
    full = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(len(weights)):
        rest = total - full.sum()
        scaled = torch.where(full, 1.0, weights * (rest / weights[~full].sum()) if not full.all() else 1.0)
        if not (scaled > 1 + 1e-6).any():
            return scaled.clamp(max=1)
        full |= scaled > 1
    return scaled.clamp(max=1)
