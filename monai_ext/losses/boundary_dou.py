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

__all__ = ["BoundaryDoULoss"]

_CROSS = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])


class BoundaryDoULoss(LabelLoss):
    r"""
    Difference over union, in which the inside of a large label counts less than its border.

    For each label of each item, with C the number of its pixels that touch another and S the number of all

    .. math::
        L = \frac{\sum p^2 + \sum y^2 - 2 I}{\sum p^2 + \sum y^2 - (1 + \alpha) I + s}, \qquad
        I = \sum p y,\ \alpha = \min(1 - 2 C / S,\ 0.8)

    A small label is nearly all border: then alpha is below 0 and the loss close to Dice. The larger it is, the more of
    the overlap is taken out of the denominator, and the more a wrong border costs.

    Args:
        smooth: s, > 0, in pixels; it is in the denominator only, so that a perfect prediction costs nothing and
            false positives of an absent label are graded.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over items and labels.

    Shape:
        ``input`` (B, C, H, W), logits of labels that may overlap; ``target`` the same, 0 or 1 of any type. The
        result is a scalar, or (B, C) with ``reduction="none"``.

    Raises:
        ValueError: ``smooth`` is not above 0, or the shapes differ.

    Source:
        Sun et al., Boundary Difference Over Union Loss For Medical Image Segmentation, MICCAI 2023,
        https://arxiv.org/abs/2308.00220; half of SAMIHS's loss, https://arxiv.org/abs/2311.08190. There s is in the
        numerator, too, and a label that is absent has no gradient; and past the border of the image there is no label,
        which makes the border of the image one of the label.

    Example:
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> bool(BoundaryDoULoss()(20 * target - 10, target) < 1e-3)
        True
    """

    def __init__(self, *, smooth: float = 1.0, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=reduction)
        if not 0 < smooth < float("inf"):
            raise ValueError(f"smooth must be a number above 0, not {smooth!r}.")
        self.smooth = smooth

    def per_label(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        probability = logits.sigmoid()
        # The label goes on past the border of the image, as far as anyone can tell.
        padded = F.pad(truth, (1, 1, 1, 1), mode="replicate").flatten(0, 1).unsqueeze(1)
        around = F.conv2d(padded, _CROSS.to(padded)[None, None]).view_as(truth)
        area = truth.sum((2, 3))
        border = (truth * (around < 5)).sum((2, 3))
        alpha = (1 - 2 * border / area.clamp(min=1)).clamp(max=0.8)
        both = (probability * truth).sum((2, 3))
        squares = probability.square().sum((2, 3)) + truth.square().sum((2, 3))
        return (squares - 2 * both) / (squares - (1 + alpha) * both + self.smooth)
