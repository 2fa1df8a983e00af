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
from monai.utils import convert_to_tensor
from torch import nn

__all__ = ["SampledPairsLoss"]


class SampledPairsLoss(nn.Module):
    """
    Another loss, of all labels that an image shows and of some that it does not, drawn anew at each call.

    With many labels of which an image shows a few, nearly all that a network hears is "nothing here". A pair of item
    and label is positive when the label has a pixel; all positive pairs of the batch and ``negatives`` times as many of
    the others go to ``loss`` as a batch (N, 1, H, W). Without a positive pair one other is kept.

    Args:
        loss: any loss of logits and target (N, 1, H, W), such as MONAI's ``DiceFocalLoss(sigmoid=True)``. With
            ``batch=True`` it sums over the pairs as over one label.
        negatives: pairs without the label for each pair with it, at least 0.

    Shape:
        ``input`` (B, C, H, W), logits of labels that may overlap; ``target`` the same, 0 or 1 of any type. The result
        is that of ``loss``.

    Raises:
        ValueError: ``negatives`` is out of its range, or the shapes differ.

    Source:
        S-SAM, Paranjape et al., MICCAI 2024, https://arxiv.org/abs/2408.06447, trains on such pairs, with an optional
        ratio of negative to positive ones that is drawn once for the whole training; here it is drawn for each batch,
        so that none is left out for good, and the decoder still runs once for all labels.

    Example:
        >>> from monai.losses import DiceFocalLoss
        >>> target = torch.zeros(1, 5, 8, 8)
        >>> target[:, 0, 2:6, 2:6] = 1
        >>> loss = SampledPairsLoss(loss=DiceFocalLoss(sigmoid=True, reduction="none"))
        >>> loss(20 * target - 10, target).shape[0]  # the label that is there and one of the four that are not
        2
    """

    def __init__(self, *, loss: nn.Module, negatives: float = 1.0) -> None:
        super().__init__()
        if not 0 <= negatives < float("inf"):
            raise ValueError(f"negatives must be a number of at least 0, not {negatives!r}.")
        self.loss, self.negatives = loss, negatives

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss of the pairs that are drawn."""
        if input.ndim != 4 or input.shape != target.shape:
            raise ValueError(
                f"input and target must be (B, C, H, W) and alike, not {tuple(input.shape)} and {tuple(target.shape)}."
            )
        logits, truth = (convert_to_tensor(value, track_meta=False).flatten(0, 1) for value in (input, target))
        there = truth.flatten(1).any(1)
        count = max(round(self.negatives * int(there.sum())), int(not there.any()))
        absent = (~there).nonzero()[:, 0]
        drawn = absent[torch.randperm(len(absent), device=absent.device)[:count]]
        kept = torch.cat([there.nonzero()[:, 0], drawn])
        return self.loss(logits[kept, None], truth[kept, None])
