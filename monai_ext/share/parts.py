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
from torch import Tensor, nn

from monai_ext.networks.segmenter import ImageEmbedding, SAM2Segmenter


class AutomaticPart(nn.Module):
    """
    The network without prompts: what ``model.onnx``, ``model.pt2`` and ``model.ts`` hold.

    Args:
        network: the network to be exported.

    Shape:
        image ``(B, 3, H, W)``; output: logits ``(B, C, H, W)``.
    """

    outputs = ("logits",)

    def __init__(self, network: SAM2Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


class EncoderPart(nn.Module):
    """
    The image encoder: once for each image.

    Args:
        network: the network to be exported.

    Shape:
        image ``(B, 3, H, W)``; output: features ``(B, 256, h, w)`` and two of finer grids, ``(B, 32, 4h, 4w)`` and
        ``(B, 64, 2h, 2w)``.
    """

    outputs = ("features", "finest", "fine")

    def __init__(self, network: SAM2Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding = self.network.encode(image)
        return embedding.features, *embedding.high_res


class DecoderPart(nn.Module):
    """
    The prompt encoder and mask decoder: once for each click.

    Args:
        network: the network to be exported.
        size: height and width of the images.

    Shape:
        features, finest and fine as they come from :class:`EncoderPart`; points ``(B, N, 2)``, x and y in pixels of the
        image, the corners of a box first; point_labels ``(B, N)``: 1 on the object, 0 off it, 2 and 3 the corners of
        a box; output: logits ``(B, C, H, W)`` and their predicted IoU ``(B, C)``.
    """

    outputs = ("logits", "iou")

    def __init__(self, network: SAM2Segmenter, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(
        self, features: Tensor, finest: Tensor, fine: Tensor, points: Tensor, point_labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        embedding = ImageEmbedding(features, (finest, fine), self.size)
        return self.network.decode(embedding, points, point_labels)


def network_parts(network: SAM2Segmenter, size: tuple[int, int]) -> dict[str, Any]:
    """What is exported of a network, by the names of the files."""
    return {
        "model": AutomaticPart(network),
        "encoder": EncoderPart(network),
        "decoder": DecoderPart(network, size),
    }


def part_inputs(network: SAM2Segmenter, images: Tensor) -> dict[str, dict[str, Tensor]]:
    """
    The inputs of each part for images: those of the decoder are their embedding and two clicks on each.

    Args:
        network: makes the embedding.
        images: ``(B, 3, H, W)``.
    """
    with torch.no_grad():
        embedding = network.encode(images)
    height, width = images.shape[-2:]
    clicks = images.new_tensor([[width / 2, height / 2], [width / 4, height / 3]])
    given = {"points": clicks.repeat(len(images), 1, 1), "point_labels": torch.tensor([[1, 0]]).repeat(len(images), 1)}
    embedded = dict(zip(EncoderPart.outputs, (embedding.features, *embedding.high_res), strict=True))
    return {"model": {"image": images}, "encoder": {"image": images}, "decoder": embedded | given}
