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

from torch import Tensor

from monai_ext.optimizers.perturbation import Perturbation, joint_norm


class LayerwisePerturbation(Perturbation):
    r"""
    Up the gradient of every tensor by itself, so that no layer takes the whole step.

    .. math:: \epsilon_l = \rho \, c_l \frac{g_l}{\lVert g_l \rVert_2}, \qquad
        c_l = \sqrt{\frac{\mathrm{fan\_out}_l}{\mathrm{fan\_in}_l}}, \quad c_l = 1 \text{ for vectors}

    With one norm over all weights, wide networks perturb their last layer only (Haas et al., 2024). Their layerwise
    factors keep every layer's share as the width grows. What is computed here follows the spectral condition that the
    paper builds on and not its table of exponents, which is not published as text: call it "in the manner of", not
    :math:`\mu P^2`. At one fixed width it weighs layers anew, nothing more.

    Args:
        rho: length of a tensor's step away.

    Raises:
        ValueError: ``rho`` is not above 0.

    Source:
        Haas et al., :math:`\mu P^2`: Effective Sharpness Aware Minimization Requires Layerwise Perturbation Scaling,
        NeurIPS 2024, https://arxiv.org/abs/2411.00075.

    Example:
        >>> import torch
        >>> steps = LayerwisePerturbation(rho=1.0)([torch.zeros(8, 2)], [torch.ones(8, 2)])
        >>> steps[0].norm().item()
        2.0
    """

    def __init__(self, *, rho: float = 0.01) -> None:
        super().__init__(rho=rho)

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        return [
            (self.rho * _width_factor(gradient) / joint_norm([gradient])).to(gradient.dtype) * gradient
            for gradient in gradients
        ]


def _width_factor(tensor: Tensor) -> float:
    if tensor.ndim < 2:
        return 1.0
    matrix = tensor.flatten(1)
    return float((matrix.shape[0] / matrix.shape[1]) ** 0.5)
