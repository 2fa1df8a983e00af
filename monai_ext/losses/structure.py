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

import torch
import torch.nn.functional as F
from monai.utils import LossReduction

from monai_ext.losses.base import LabelLoss

__all__ = ["StructureLoss"]


class StructureLoss(LabelLoss):
    r"""
    Cross-entropy and IoU, both weighted by how near a pixel lies to the border of the label.

    For each label of each item, with :math:`w = 1 + \lambda \lvert \operatorname{mean}_{k \times k}(y) - y \rvert`

    .. math::
        L = \frac{\sum w \operatorname{BCE}(p, y)}{\sum w} + 1 - \frac{\sum w p y + 1}{\sum w (p + y - p y) + 1}

    Args:
        kernel_size: k, the side of the square around each pixel, odd; 31 in the papers, whose images have 352 pixels
            and more. Half the width of the structures and more.
        weight: :math:`\lambda`, at least 0; 5 in the papers.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over items and labels.

    Shape:
        ``input`` (B, C, H, W), logits of labels that may overlap; ``target`` the same, 0 or 1 of any type. The
        result is a scalar, or (B, C) with ``reduction="none"``.

    Raises:
        ValueError: a number is out of its range, or the shapes differ.

    Source:
        Wei et al., F3Net, AAAI 2020, https://arxiv.org/abs/1911.11445, used by SAM2-UNet and SAM2-UNeXT. There
        ``reduce='none'`` makes torch return the mean cross-entropy, in which the weights cancel; here they do not.
        There the mean around a pixel counts zeros past the border of the image; here only pixels of the image.

    Example:
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> bool(StructureLoss(kernel_size=3)(20 * target - 10, target) < 1e-3)
        True
    """

    def __init__(
        self, *, kernel_size: int = 31, weight: float = 5.0, reduction: LossReduction | str = LossReduction.MEAN
    ) -> None:
        super().__init__(reduction=reduction)
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be an odd number of at least 1, not {kernel_size!r}.")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight must be a number of at least 0, not {weight!r}.")
        self.kernel_size, self.weight = kernel_size, weight

    def per_label(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        # Past the border of the image nothing is counted, so that the border is no edge of the label.
        around = F.avg_pool2d(truth, self.kernel_size, stride=1, padding=self.kernel_size // 2, count_include_pad=False)
        weights = 1 + self.weight * (around - truth).abs()
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probability = logits.sigmoid()
        both = (weights * probability * truth).sum((2, 3))
        either = (weights * (probability + truth)).sum((2, 3)) - both
        return (weights * entropy).sum((2, 3)) / weights.sum((2, 3)) + 1 - (both + 1) / (either + 1)
