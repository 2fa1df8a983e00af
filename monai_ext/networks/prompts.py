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

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassTokens(nn.Module):
    """
    One learned token per label: the prompt that stands in for clicks.

    SAM closes every set of clicks with a "not a point" token. A label's token takes that token's place and starts as a
    copy of it, so that before training clicks and boxes give exactly SAM's answer, and after it the same token says
    which label is meant, alone (automatic segmentation) or beside clicks.

    Args:
        count: number of labels.
        start: the embedding to start from, ``(1, D)``.

    Shape:
        output: ``(count, D)``.
    """

    def __init__(self, count: int, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.detach().repeat(count, 1))

    def forward(self) -> Tensor:
        return self.weight


class TextTokens(nn.Module):
    r"""
    One token per label, made from the label's name.

    .. math:: t_c = W \frac{e_c}{\lVert e_c \rVert} + b

    with e the embeddings of the names, W = 0 and b SAM's "not a point" token at first, so that before training clicks
    and boxes give exactly SAM's answer. W and b are shared by all labels: a label that was never trained has a token
    too, near those of names that mean nearly the same.

    Args:
        embeddings: ``(C, D)``, frozen.
        start: the token to start from, ``(1, 256)``.

    Shape:
        output: ``(C, 256)``.

    Source:
        The Text Affine Layer of Paranjape et al., S-SAM, MICCAI 2024, https://arxiv.org/abs/2408.06447. Theirs has a
        ReLU and a batch norm after W, with which no start from SAM's own token is possible.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", F.normalize(embeddings, dim=-1), persistent=False)
        self.affine = nn.Linear(embeddings.shape[1], start.shape[1])
        nn.init.zeros_(self.affine.weight)
        self.affine.bias.data.copy_(start[0])

    def forward(self) -> Tensor:
        return self.affine(self.embeddings)


def join_clicks(
    sizes: tuple[int, int], points: Tensor | None, point_labels: Tensor | None, boxes: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """
    Points and boxes, given for all labels or for each, as one list of clicks per label of each image.

    Args:
        sizes: number of images B and of labels C.
        points: ``(B, N, 2)`` or ``(B, C, N, 2)``, x and y.
        point_labels: ``(B, N)`` or ``(B, C, N)``, as in ``embed_points``.
        boxes: ``(B, 4)`` or ``(B, C, 4)``, x0, y0, x1, y1; their corners come first, as in SAM 2's image predictor.

    Returns:
        coordinates ``(B * C, N, 2)`` and kinds ``(B * C, N)``, or None without points and boxes.

    Raises:
        ValueError: shapes or values do not fit.
    """
    if (points is None) != (point_labels is None):
        raise ValueError("points and point_labels must be given together.")
    clicks, kinds = [], []
    if boxes is not None:
        corners = _per_label(boxes, (4,), sizes, "boxes").reshape(-1, 2, 2)
        clicks.append(corners.float())
        kinds.append(torch.tensor([[2, 3]], device=corners.device).expand(len(corners), 2))
    if points is not None and point_labels is not None:
        number = points.shape[-2] if points.ndim > 1 else 0
        clicks.append(_per_label(points, (number, 2), sizes, "points").float())
        kinds.append(_per_label(point_labels, (number,), sizes, "point_labels").long())
        if _has_values() and not bool(((kinds[-1] >= -1) & (kinds[-1] <= 3)).all()):
            raise ValueError("point_labels must be 1, 0, -1 (none), 2 or 3 (box corners).")
    if not clicks:
        return None
    coordinates = torch.cat(clicks, 1)
    if _has_values() and not bool(torch.isfinite(coordinates).all()):
        raise ValueError("points and boxes must be finite numbers, not NaN or infinite.")
    return coordinates, torch.cat(kinds, 1)


def embed_points(encoder: Any, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
    """
    SAM's embedding of clicks and box corners for an image of any size (SAM's own is bound to one size).

    Args:
        encoder: SAM 2's ``PromptEncoder``.
        points: ``(B, N, 2)`` x, y in pixels of the encoded image.
        point_labels: ``(B, N)``: 1 positive, 0 negative, 2 and 3 a box's top-left and bottom-right corner, -1 none.
        size: height and width of the encoded image.

    Returns:
        ``(B, N, 256)``.
    """
    height, width = size
    centres = points.float() + 0.5  # of pixels, as SAM
    position = _encode_position(encoder, centres / centres.new_tensor([width, height]))
    kinds = torch.cat([encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)])
    present = (point_labels >= 0).unsqueeze(-1)
    return torch.where(present, position.to(kinds.dtype), 0) + kinds[point_labels.long() + 1]


def embed_grid(encoder: Any, grid: tuple[int, int]) -> Tensor:
    """SAM's positional encoding of a feature grid of any size, h and w: ``(1, 256, h, w)``."""
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    y, x = ((torch.arange(side, device=matrix.device, dtype=torch.float32) + 0.5) / side for side in grid)
    position = _encode_position(encoder, torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))
    return position.permute(2, 0, 1).unsqueeze(0).to(matrix.dtype)


def embed_mask(encoder: Any, mask: Tensor | None, grid: tuple[int, int]) -> Tensor:
    """
    SAM's dense prompt for a feature grid of any size.

    Args:
        encoder: SAM 2's ``PromptEncoder``.
        mask: ``(B, 1, 4 * h, 4 * w)`` logits of an earlier mask, or None.
        grid: h and w of the feature grid.

    Returns:
        ``(B, 256, h, w)``, or ``(1, 256, h, w)`` when there is no mask.
    """
    if mask is None:
        return encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, *grid)
    return encoder.mask_downscaling(mask)


def fit_mask(mask: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """
    Bring an earlier mask's logits to the size of SAM's mask input.

    Args:
        mask: ``(B, 1, any, any)`` logits over the image.
        size: height and width that the image itself takes in the mask input.
        padded: height and width of the mask input, the image's padding at bottom and right included.
    """
    if mask.shape[-2:] != size:
        mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=True)
    padding = (0, padded[1] - size[1], 0, padded[0] - size[0])
    return F.pad(mask, padding, value=-10.0)  # SAM's own masks end near -10 outside an object


def _encode_position(encoder: Any, position: Tensor) -> Tensor:
    """Random Fourier features of x and y in 0..1; in float32 whatever the network's precision, as phases need it."""
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix.float()
    phase = 2 * math.pi * ((2 * position - 1) @ matrix)
    return torch.cat([phase.sin(), phase.cos()], -1)


def _has_values() -> bool:
    """Whether tensors hold numbers that can be checked, which they do not while the network is exported."""
    return not (torch.compiler.is_exporting() or torch.jit.is_tracing())


def _per_label(prompt: Tensor, tail: tuple[int, ...], sizes: tuple[int, int], name: str) -> Tensor:
    """Bring a prompt, given for all labels or for each, to ``(B * C, *tail)``."""
    batch, count = sizes
    if tuple(prompt.shape) == (batch, *tail):
        return prompt.repeat_interleave(count, 0)
    if tuple(prompt.shape) == (batch, count, *tail):
        return prompt.flatten(0, 1)
    expected = f"{(batch, *tail)} for all labels or {(batch, count, *tail)} for each"
    raise ValueError(f"{name} must be {expected}, not {tuple(prompt.shape)}.")
