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

import torch
from torch import Tensor

from monai_ext.optimizers.perturbation import Perturbation, joint_norm


class RandomPerturbation(Perturbation):
    r"""
    Up the gradient of some tensors, drawn anew for every step: the weight perturbation of ESAM.

    .. math:: \epsilon_l = \frac{m_l}{\beta} \, \rho \, \frac{g_l}{\lVert m g \rVert_2}, \qquad
        m_l \sim \mathrm{Bernoulli}(\beta)

    with one draw for each tensor, as in the published code. The paper's second part, leaving out the samples whose loss
    hardly rises, wants many samples in a batch; segmentation has few, so it is left out.

    Args:
        rho: length of the step away.
        beta: chance of a tensor to take part, above 0 and at most 1.

    Raises:
        ValueError: a setting is out of its range.

    Source:
        Du et al., Efficient Sharpness-aware Minimization for Improved Training of Neural Networks, ICLR 2022,
        https://arxiv.org/abs/2110.03141.

    Example:
        >>> steps = RandomPerturbation(beta=0.5)([torch.zeros(3)] * 20, [torch.ones(3)] * 20)
        >>> any(step is None for step in steps)
        True
    """

    def __init__(self, *, rho: float = 0.05, beta: float = 0.6) -> None:
        super().__init__(rho=rho)
        if not 0 < beta <= 1:
            raise ValueError(f"beta must be above 0 and at most 1, not {beta}.")
        self.beta = beta

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        chosen = (torch.rand(len(gradients)) < self.beta).tolist()
        if not any(chosen):
            chosen[int(torch.randint(len(chosen), ()))] = True
        norm = joint_norm([gradient for gradient, taken in zip(gradients, chosen, strict=True) if taken])
        scale = self.rho / self.beta / norm
        return [
            scale.to(gradient.dtype) * gradient if taken else None
            for gradient, taken in zip(gradients, chosen, strict=True)
        ]
