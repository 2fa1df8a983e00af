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


class GlobalPerturbation(Perturbation):
    r"""
    Up the gradient of all weights together: sharpness-aware minimisation (SAM).

    .. math:: \epsilon = \rho \, \frac{g}{\lVert g \rVert_2}

    Args:
        rho: length of the step away; 0.05 in the paper for networks trained from scratch, 0.01 suits fine-tuning.

    Raises:
        ValueError: ``rho`` is not above 0.

    Source:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021,
        https://arxiv.org/abs/2010.01412.

    Example:
        >>> import torch
        >>> GlobalPerturbation(rho=0.5)([torch.zeros(2)], [torch.tensor([3.0, 4.0])])
        [tensor([0.3000, 0.4000])]
    """

    def __init__(self, *, rho: float = 0.05) -> None:
        super().__init__(rho=rho)

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        scale = self.rho / joint_norm(gradients)
        return [scale.to(gradient.dtype) * gradient for gradient in gradients]
