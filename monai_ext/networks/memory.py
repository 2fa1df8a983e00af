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


"""SAM 2's memory: what was seen on other slices conditions how a slice is encoded for the mask decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_ext.networks.segmenter import ImageEmbedding, SAM2Segmenter

# The values of Meta's YAML files for all sizes of SAM 2.1.
MASK_SCALE, MASK_BIAS = 20.0, -10.0
MAX_POINTERS = 16
ABSENT = -1024.0  # the logit of a slice that does not show the object


class SliceMemory(NamedTuple):
    """What is remembered of an object on one slice."""

    features: Tensor  # (1, 64, h, w), bfloat16 as SAM 2 keeps it
    pointer: Tensor  # (1, 256)


class TrackedMask(NamedTuple):
    """SAM 2's answer on one slice."""

    logits: Tensor  # (1, 1, H, W), at the size of the image
    low_res: Tensor  # (1, 1, h, w), at a quarter of the encoder's input
    iou: Tensor  # (1,), predicted
    object_score: Tensor  # (1, 1), logit
    token: Tensor  # (1, 256)


def track(
    network: SAM2Segmenter,
    embedding: ImageEmbedding,
    points: Tensor,
    point_labels: Tensor,
    *,
    number: int = 0,
    masks: Tensor | None = None,
) -> TrackedMask:
    """
    Decode one slice as SAM 2's video predictor does: up to one click the best of the three masks, else the single one.

    Args:
        network: has memory.
        embedding: of the slice; of one that is not clicked as :func:`recall` gives it.
        points: ``(1, N, 2)``, none where the slice is not clicked.
        point_labels: ``(1, N)``.
        number: of the network's label that is meant.
        masks: ``(1, 1, any, any)`` logits of an earlier answer.
    """
    few = points.shape[1] <= 1
    if not points.shape[1]:  # SAM 2 shows the decoder a click that is none
        points, point_labels = points.new_zeros(1, 1, 2), point_labels.new_full((1, 1), -1)
    predicted = network._predict(embedding, points, point_labels, None, masks)
    low_res, iou, score, tokens = (part[number : number + 1] for part in predicted)
    low_res = torch.where(score[..., None, None] > 0, low_res, ABSENT)
    decoder = network.sam_mask_decoder
    if few:
        best = iou[:, 1:].argmax(1) + 1
        low_res, iou, token = low_res[[0], best].unsqueeze(1), iou[[0], best], tokens[[0], best]
    elif decoder.dynamic_multimask_via_stability:
        low_res, iou = decoder._dynamic_multimask_via_stability(low_res, iou)
        iou, token = iou[:, 0], tokens[:, 0]
    else:
        low_res, iou, token = low_res[:, :1], iou[:, 0], tokens[:, 0]
    return TrackedMask(network._at_image_size(low_res.float(), embedding.size), low_res, iou, score, token)


def remember(network: Any, embedding: ImageEmbedding, answer: TrackedMask, *, clicked: bool) -> SliceMemory:
    """
    Encode a slice and its mask for the slices that follow.

    Args:
        network: has memory.
        embedding: of the slice as ``encode`` gave it.
        answer: the slice's mask.
        clicked: whether it was clicked: its mask is then remembered as it is shown, 0 and 1.
    """
    seen = (answer.object_score > 0).to(answer.token.dtype)
    pointer = seen * network.obj_ptr_proj(answer.token) + (1 - seen) * network.no_obj_ptr
    mask = F.interpolate(answer.low_res.float(), scale_factor=4.0, mode="bilinear", align_corners=False)
    shown = (mask > 0).float() if clicked else mask.sigmoid()
    encoded = network.memory_encoder(_raw(network, embedding), MASK_SCALE * shown + MASK_BIAS, skip_mask_sigmoid=True)
    absent = (1 - seen)[..., None, None] * network.no_obj_embed_spatial[..., None, None]
    return SliceMemory((encoded["vision_features"] + absent).to(torch.bfloat16), pointer)


def recall(
    network: Any,
    embedding: ImageEmbedding,
    z: int,
    *,
    clicked: Mapping[int, SliceMemory],
    followed: Mapping[int, SliceMemory],
    direction: int,
    depth: int,
) -> ImageEmbedding:
    """
    Condition a slice's encoding on all clicked slices and on those that were followed to it.

    Args:
        network: has memory.
        embedding: of the slice as ``encode`` gave it.
        z: number of the slice.
        clicked: memories of clicked slices.
        followed: memories of slices that were not clicked.
        direction: 1 if slices follow each other upwards, -1 downwards.
        depth: number of slices of the volume.
    """
    raw = _raw(network, embedding)
    grid = (raw.shape[-2], raw.shape[-1])
    times = network.maskmem_tpos_enc
    last = len(times) - 1
    seen = [(memory, last) for memory in clicked.values()]
    near = ((followed.get(z - direction * away), away - 1) for away in range(last, 0, -1))
    seen += [(memory, time) for memory, time in near if memory is not None]
    place = _tokens(network.memory_encoder.position_encoding(seen[0][0].features.float()))
    memory = [_tokens(one.features.to(raw.dtype)) for one, _ in seen]
    position = [place + times[time] for _, time in seen]
    reach = min(depth, MAX_POINTERS)
    pointers = [((z - at) * direction, one.pointer) for at, one in clicked.items() if (z - at) * direction >= 0]
    pointers += [
        (away, followed[z - direction * away].pointer) for away in range(1, reach) if z - direction * away in followed
    ]
    count = 0
    if pointers:
        tokens, where = _pointer_tokens(network, pointers, reach)
        memory.append(tokens)
        position.append(where)
        count = len(tokens)
    _rotate(network.memory_attention, grid)
    features = network.memory_attention(
        curr=_tokens(raw),
        curr_pos=_tokens(network.memory_position(raw)),
        memory=torch.cat(memory),
        memory_pos=torch.cat(position),
        num_obj_ptr_tokens=count,
    )
    return embedding._replace(features=features.permute(1, 2, 0).reshape(raw.shape))


def _raw(network: Any, embedding: ImageEmbedding) -> Tensor:
    """Features without the embedding that says "no memory", which ``encode`` adds."""
    return embedding.features - network.no_mem_embed.reshape(1, -1, 1, 1)


def _tokens(features: Tensor) -> Tensor:
    """``(1, D, h, w)`` as ``(h * w, 1, D)``."""
    return features.flatten(2).permute(2, 0, 1)


def _pointer_tokens(network: Any, pointers: list[tuple[int, Tensor]], reach: int) -> tuple[Tensor, Tensor]:
    """Each pointer as tokens of the memory's width, ``(n, 1, 64)``, and their positions in time."""
    from sam2.modeling.sam2_utils import get_1d_sine_pe

    away, vectors = zip(*pointers, strict=True)
    stacked = torch.stack(vectors)
    width = network.maskmem_tpos_enc.shape[-1]
    parts = stacked.shape[-1] // width
    tokens = stacked.reshape(-1, 1, parts, width).permute(0, 2, 1, 3).flatten(0, 1)
    time = get_1d_sine_pe(torch.tensor(away, device=stacked.device) / (reach - 1), dim=stacked.shape[-1])
    return tokens, network.obj_ptr_tpos_proj(time).unsqueeze(1).repeat_interleave(parts, 0)


def _rotate(attention: Any, grid: tuple[int, int]) -> None:
    """Give the rotary encoding the grid at hand; left to itself it takes every grid for a square."""
    for layer in attention.layers:
        for part in (layer.self_attn, layer.cross_attn_image):
            part.freqs_cis = part.compute_cis(end_x=grid[1], end_y=grid[0])
