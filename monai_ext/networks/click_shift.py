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

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_ext.networks.prompts import embed_grid, embed_points


class ClickShift(nn.Module):
    r"""
    Moves an imprecise click to where the decoder answers better, learned while SAM 2 stays frozen.

    .. math::
        p' = p + r \cdot (w, h) \odot \tanh(\delta(D)), \qquad
        D = \operatorname{softmax}\left(\frac{Q(e_p) K(i)^T}{\sqrt d}\right) V(i)

    with :math:`e_p` the click's embedding, i the image's features with their positions, w and h the sides of the
    encoded image and :math:`\delta` a small MLP that ends in zero, so that nothing moves before training. Only
    positive clicks move; negative ones and the corners of boxes stay.

    Args:
        reach: r, how far a click moves at most, as a part of the image's sides, in (0, 1].
        width: d.

    Shape:
        points ``(B, N, 2)`` x, y in pixels of the encoded image, point_labels ``(B, N)``, features
        ``(B, 256, h, w)``; output: points ``(B, N, 2)``.

    Raises:
        ValueError: ``reach`` is out of its range.

    Source:
        The shift block of RP-SAM2, 2025, https://arxiv.org/abs/2504.07117. Its reach, its width and the weights of its
        losses on the click itself are not published. Here the click learns from the loss of the mask alone, which
        reaches it through the position's embedding.

    Example:
        >>> shift = ClickShift(reach=0.1)
        >>> sum(p.numel() for p in shift.parameters())
        263682
    """

    def __init__(self, *, reach: float, width: int = 256) -> None:
        super().__init__()
        if not 0 < reach <= 1:
            raise ValueError(f"reach must be a part of the image, above 0 and at most 1, not {reach!r}.")
        self.reach = reach
        self.query, self.key, self.value = (nn.Linear(256, width) for _ in range(3))
        last = nn.Linear(width, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.delta = nn.Sequential(nn.Linear(width, width), nn.GELU(), last)

    def forward(
        self, encoder: Any, points: Tensor, point_labels: Tensor, features: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """
        Move the positive clicks.

        Args:
            encoder: SAM 2's ``PromptEncoder``.
            points: ``(B, N, 2)`` x, y in pixels of the encoded image.
            point_labels: ``(B, N)``, as in :func:`embed_points`.
            features: ``(B, 256, h, w)``.
            size: height and width of the encoded image.
        """
        grid = (features.shape[-2], features.shape[-1])
        places = (features + embed_grid(encoder, grid)).flatten(2).transpose(1, 2)
        clicks = embed_points(encoder, points, point_labels, size).to(places.dtype)
        found = F.scaled_dot_product_attention(self.query(clicks), self.key(places), self.value(places))
        moved = self.reach * points.new_tensor([size[1], size[0]]) * torch.tanh(self.delta(found).float())
        # Into the image at most, and not at all if the shift is nothing.
        last = points.new_tensor([size[1] - 1, size[0] - 1])
        moved = torch.minimum(torch.maximum(points + moved, points.clamp(max=0)), points.maximum(last))
        return torch.where((point_labels == 1).unsqueeze(-1), moved, points)
