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

from abc import ABC, abstractmethod

import torch
from monai.utils import LossReduction, convert_to_tensor
from torch.nn.modules.loss import _Loss


class LabelLoss(_Loss, ABC):
    """
    A loss of logits that has one value for each label of each item.

    Checks, precision (float32 at least) and reduction are done here; a new one is one method, ``per_label``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over items and labels.

    Raises:
        ValueError: on calling, the shapes differ.
    """

    def __init__(self, *, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)

    @abstractmethod
    def per_label(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss (B, C) of logits against a truth of 0 and 1, both floats (B, C, H, W)."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss of logits (B, C, H, W) against a target of the same shape."""
        if input.ndim != 4 or input.shape != target.shape:
            raise ValueError(
                f"input and target must be (B, C, H, W) and alike, not {tuple(input.shape)} and {tuple(target.shape)}."
            )
        logits, truth = (convert_to_tensor(value, track_meta=False) for value in (input, target))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        loss = self.per_label(logits, truth.to(logits.dtype))
        if self.reduction == LossReduction.NONE:
            return loss
        return loss.sum() if self.reduction == LossReduction.SUM else loss.mean()
