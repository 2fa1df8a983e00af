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


class SparsePerturbation(Perturbation):
    r"""
    Up the gradient, but only in the weights that matter most to the loss: sparse SAM with a Fisher mask (SSAM-F).

    .. math:: \epsilon = \rho \, \frac{g}{\lVert g \rVert_2} \odot m, \qquad
        m = \text{the } 1 - s \text{ largest entries of } \textstyle\sum g^2

    The sum is taken over the gradients of the steps since the mask was last made, in place of the paper's pass over
    single samples, which would cost extra backward passes. Until the first mask there is none: all entries take part.

    Args:
        rho: length of the whole step away.
        sparsity: s, the part of the entries that stay, at least 0 and below 1.
        update_every: steps after which the mask is made anew.

    Raises:
        ValueError: a setting is out of its range.

    Source:
        Mi et al., Make Sharpness-Aware Minimization Stronger: A Sparsified Perturbation Approach, NeurIPS 2022,
        https://arxiv.org/abs/2210.05177.

    Example:
        >>> sparse = SparsePerturbation(rho=5.0, sparsity=0.5, update_every=1)
        >>> _ = sparse([torch.zeros(2)], [torch.tensor([3.0, 4.0])])
        >>> sparse([torch.zeros(2)], [torch.tensor([3.0, 4.0])])
        [tensor([0., 4.])]
    """

    def __init__(self, *, rho: float = 0.05, sparsity: float = 0.5, update_every: int = 100) -> None:
        super().__init__(rho=rho)
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {sparsity}.")
        if update_every < 1:
            raise ValueError(f"update_every must be at least 1, not {update_every}.")
        self.sparsity, self.update_every = sparsity, update_every
        self._steps = 0
        self._fisher: list[Tensor] = []
        self._mask: list[Tensor] = []

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        scale = self.rho / joint_norm(gradients)
        away = [scale.to(gradient.dtype) * gradient for gradient in gradients]
        if self._mask:
            away = [step * mask for step, mask in zip(away, self._mask, strict=True)]
        squares = [(gradient.float() / joint_norm(gradients)).square() for gradient in gradients]
        self._fisher = [a + b for a, b in zip(self._fisher, squares, strict=True)] if self._fisher else squares
        self._steps += 1
        if self._steps % self.update_every == 0:
            everything = torch.cat([part.flatten() for part in self._fisher])
            kept = max(round((1 - self.sparsity) * everything.numel()), 1)
            least = everything.topk(kept).values[-1]
            self._mask = [part >= least for part in self._fisher]
            self._fisher = []
        return list(away)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "fisher": self._fisher, "mask": self._mask}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._fisher, self._mask = state["steps"], list(state["fisher"]), list(state["mask"])
