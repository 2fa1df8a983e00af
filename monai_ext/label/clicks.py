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

from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_ext.inferers.clicks import shown_mask
from monai_ext.label.embeddings import EmbeddingStore
from monai_ext.label.memory import BoundedMemory
from monai_ext.label.model import LoadedNetwork
from monai_ext.label.prompts import ClickPrompts
from monai_ext.label.studies import FileDigests
from monai_ext.label.view import ClickView
from monai_ext.networks.segmenter import ImageEmbedding, MaskCandidates, SAM2Segmenter

SURE = 8.0  # the logit of a mask that somebody drew


class PromptableModel(Protocol):
    """What is clicked with: a base or a bundle with its adapter."""

    name: str
    description: str
    labels: tuple[str, ...]
    window: int
    longest_side: int | None

    @property
    def device(self) -> torch.device:
        """Where the network runs."""

    def network(self) -> LoadedNetwork:
        """The network in use."""

    def picture(self, path: Path) -> Tensor:
        """The picture as the network wants it."""


class ClickSegmenter:
    """
    Segment one object from clicks, a box and an earlier mask, and encode each part of a picture only once.

    The clicks are replayed in the order of the request, those on the object first: from one click the best of SAM's
    three masks by predicted IoU goes on, from more the single one, and each answer is shown to the network with the
    next click, as in its training. What was answered before is remembered, so a further click costs one pass through
    the mask decoder. The answer depends on nothing but the request, the picture and the weights.

    Args:
        model: what is clicked with.
        embeddings: where embeddings are kept.
        memory: where pictures and earlier answers are kept.
        digests: what files hold.
    """

    def __init__(
        self, model: PromptableModel, embeddings: EmbeddingStore, memory: BoundedMemory, digests: FileDigests
    ) -> None:
        self.model, self.embeddings, self.memory, self.digests = model, embeddings, memory, digests

    def segment(self, path: Path, prompts: ClickPrompts, earlier: np.ndarray | None = None) -> np.ndarray:
        """
        The mask of the object, ``(H, W)`` uint8 of 0 and 1, upright.

        Args:
            path: the picture.
            prompts: what the annotator points at.
            earlier: a mask to start from, ``(H, W)``, in place of what the first clicks would have given.

        Raises:
            RequestRefused: the picture cannot be read, or there is no model.
        """
        content, size = self.digests.picture(path)
        network, identity = self.model.network()
        longest = self.model.longest_side
        view = ClickView.whole(size, longest) if longest else ClickView.around(prompts, size, self.model.window)
        key = f"{content} {identity} {view}"
        with torch.no_grad():
            embedding = self.embeddings.get_or_make(key, lambda: self._encode(path, content, network, view))
            embedding = _moved(embedding, self.model.device)
            logits = self._answer(network, embedding, key, prompts, view, earlier)
            logits = F.interpolate(logits, size=(view.height, view.width), mode="bilinear")
        mask = np.zeros((size[1], size[0]), np.uint8)
        part = (logits[0, 0] > 0).to(torch.uint8).cpu().numpy()
        mask[view.y : view.y + view.height, view.x : view.x + view.width] = part
        return mask

    def _encode(self, path: Path, content: str, network: SAM2Segmenter, view: ClickView) -> ImageEmbedding:
        picture = self.memory.get_or_make((content, self.model.name), lambda: torch.as_tensor(self.model.picture(path)))
        part = picture[None, :, view.y : view.y + view.height, view.x : view.x + view.width]
        if view.reduction != 1:
            part = F.interpolate(part, size=_encoded(view), mode="bilinear", antialias=True)
        return network.encode(part.to(self.model.device))

    def _answer(
        self,
        network: SAM2Segmenter,
        embedding: ImageEmbedding,
        key: str,
        prompts: ClickPrompts,
        view: ClickView,
        earlier: np.ndarray | None,
    ) -> Tensor:
        """The logits of the object over the view, ``(1, 1, h, w)``."""
        channel = self.model.labels.index(prompts.label) if self.model.labels and prompts.label else 0
        corners = [] if prompts.box is None else [(prompts.box[:2], 2), (prompts.box[2:], 3)]
        clicks = [*((point, 1) for point in prompts.foreground), *((point, 0) for point in prompts.background)]
        # A box is one prompt, and so is each click.
        steps = [corners + clicks[:count] for count in range(0 if corners else 1, len(clicks) + 1)]
        if earlier is not None:
            drawn = torch.as_tensor(earlier[view.y : view.y + view.height, view.x : view.x + view.width] > 0)
            before = (drawn[None, None].float() * 2 - 1) * SURE
            before = F.interpolate(before, size=embedding.size, mode="bilinear", antialias=True)
            return self._pass(network, embedding, steps[-1], channel, view, before.to(self.model.device))
        shown: Tensor | None = None
        for step in steps:
            answer = partial(self._pass, network, embedding, step, channel, view, shown)
            shown = self.memory.get_or_make((key, channel, tuple(step)), answer)
        assert shown is not None
        return shown

    def _pass(
        self,
        network: SAM2Segmenter,
        embedding: ImageEmbedding,
        step: list,
        channel: int,
        view: ClickView,
        before: Tensor | None,
    ) -> Tensor:
        """Once through the mask decoder."""
        device = self.model.device
        at = torch.tensor([point for point, _ in step], device=device)
        points = (at + 0.5 - at.new_tensor([view.x, view.y])) / view.reduction - 0.5
        kinds = torch.tensor([[kind for _, kind in step]], device=device)
        answer = network.candidates(embedding, points[None], kinds, masks=before)
        own = MaskCandidates(*(part[:, channel : channel + 1] for part in answer))
        return shown_mask(own, one_point=torch.tensor([[len(step) == 1]], device=device))


def _encoded(view: ClickView) -> tuple[int, int]:
    return max(1, round(view.height / view.reduction)), max(1, round(view.width / view.reduction))


def _moved(embedding: ImageEmbedding, device: torch.device) -> ImageEmbedding:
    finest, fine = (feature.to(device) for feature in embedding.high_res)
    return ImageEmbedding(embedding.features.to(device), (finest, fine), embedding.size)
