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
from typing import Protocol

import torch
from monai.losses import DiceLoss, FocalLoss
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss


class Candidates(Protocol):
    """What a promptable network says of its objects, see :class:`monai_ext.networks.segmenter.MaskCandidates`."""

    @property
    def logits(self) -> Tensor: ...
    @property
    def iou(self) -> Tensor: ...
    @property
    def object_score(self) -> Tensor: ...


class PromptableLoss(_Loss):
    r"""
    The loss that SAM 2 is trained with on images, for all its masks and over all rounds of clicks.

    For each object and round, with :math:`m_0` the single mask and :math:`m_1 .. m_3` those of an ambiguous prompt,

    .. math::
        L = \ell(m_0) + \min_{k \in 1..3} \ell(m_k) + \frac{\lambda_{iou}}{4} \sum_k |\hat u_k - u_k|
            + \lambda_{score} \mathrm{BCE}(\hat o, o), \qquad
        \ell = \lambda_{focal} \mathrm{Focal} + \lambda_{dice} \mathrm{Dice}

    with :math:`\hat u` the predicted and :math:`u` the true IoU of the masks, :math:`\hat o` the object score and
    :math:`o` whether there is an object. Without an object only the last term counts. The result is the mean over
    objects and rounds.

    Ravi et al., "SAM 2", arXiv 2408.00714, appendix D.2 (focal 20, dice 1, IoU 1, score 1).

    Args:
        lambda_focal: weight of the focal loss (gamma 2, alpha 0.25).
        lambda_dice: weight of the Dice loss.
        lambda_iou: weight of the error of the predicted IoU.
        lambda_score: weight of the object score.
        stride: look at every so many pixels along both sides. The network draws masks at a quarter of its input's
            resolution, so that 2 loses hardly anything and saves time.

    Shape:
        input: for each round, logits (B, K, 4, H, W), predicted IoU (B, K, 4) and object score (B, K); target: masks
        (B, K, H, W), 1 on the object; a mask without any 1 is of an object that is not there.

    Raises:
        ValueError: shapes differ, or there is no round.

    Example:
        >>> from collections import namedtuple
        >>> mask = torch.eye(8).reshape(1, 1, 8, 8)
        >>> answer = namedtuple("Answer", "logits iou object_score")
        >>> perfect = answer((mask.unsqueeze(2) * 200 - 100).repeat(1, 1, 4, 1, 1), torch.ones(1, 1, 4),
        ...                  torch.full((1, 1), 100.0))
        >>> round(PromptableLoss()([perfect], mask).item(), 4)
        0.0
    """

    def __init__(
        self,
        *,
        lambda_focal: float = 20.0,
        lambda_dice: float = 1.0,
        lambda_iou: float = 1.0,
        lambda_score: float = 1.0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be at least 1, not {stride}.")
        self.stride = stride
        self.lambda_focal, self.lambda_dice = lambda_focal, lambda_dice
        self.lambda_iou, self.lambda_score = lambda_iou, lambda_score
        self.focal = FocalLoss(gamma=2.0, alpha=0.25, reduction="none")
        self.dice = DiceLoss(sigmoid=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, input: Sequence[Candidates], target: Tensor) -> Tensor:
        if not len(input):
            raise ValueError("input must hold the answers of at least one round.")
        target = (convert_to_tensor(target, track_meta=False) > 0.5).float()
        return torch.stack([self._round(answer, target) for answer in input]).mean()

    def _round(self, answer: Candidates, target: Tensor) -> Tensor:
        logits = convert_to_tensor(answer.logits, track_meta=False).float()
        if logits.ndim != 5 or logits.shape != (*target.shape[:2], 4, *target.shape[2:]):
            raise ValueError(
                f"input must be logits (B, K, 4, H, W) for a target (B, K, H, W), "
                f"not {tuple(logits.shape)} for {tuple(target.shape)}."
            )
        present = target.flatten(2).any(-1).float()
        logits, target = (part[..., :: self.stride, :: self.stride] for part in (logits, target))
        truth = target.unsqueeze(2).expand_as(logits)
        pair = logits.flatten(0, 2).unsqueeze(1), truth.flatten(0, 2).unsqueeze(1)
        masks = self.lambda_focal * self.focal(*pair).mean((1, 2, 3)) + self.lambda_dice * self.dice(*pair).flatten()
        masks = masks.reshape(logits.shape[:3])
        iou = (answer.iou.float() - _iou(logits, truth)).abs().mean(-1)
        cost = masks[..., 0] + masks[..., 1:].amin(-1) + self.lambda_iou * iou
        score = F.binary_cross_entropy_with_logits(answer.object_score.float(), present)
        return (present * cost).sum() / present.sum().clamp(min=1) + self.lambda_score * score


def _iou(logits: Tensor, truth: Tensor) -> Tensor:
    mask, true = logits.detach() > 0, truth > 0.5
    return (mask & true).sum((-2, -1)) / (mask | true).sum((-2, -1)).clamp(min=1)
