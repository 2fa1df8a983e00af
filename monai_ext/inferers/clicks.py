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
from monai.inferers import Inferer
from monai.transforms import Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_ext.networks.batch_parallel import gather_items, own_items
from monai_ext.networks.segmenter import ImageEmbedding, MaskCandidates, SAM2Segmenter
from monai_ext.transforms.prompts import CorrectionClicks, SimulatePrompts


class ClickRoundsInferer(Randomizable, Inferer):
    """
    Play an annotator who prompts, looks at the mask and corrects it: how SAM and SAM 2 are trained.

    An image is encoded once. Each of its objects is prompted by itself, with a random point or, a whole batch at a
    time, with a box whose sides are moved a little. Every further round adds a click where the mask is wrong and shows
    the network its mask. From one point the mask with the highest predicted IoU of SAM's three goes on, from more the
    single one. Several processes that are given the same batch share the work on it, each object being prompted as in
    a single one; let the trainer have :class:`monai_ext.handlers.GradientAveraging`.

    Kirillov et al., "Segment Anything", arXiv 2304.02643; Ravi et al., "SAM 2", arXiv 2408.00714.

    Args:
        rounds: number of answers, the first included.
        box: part of the batches that are first prompted with boxes.
        box_jitter: how far a side of a box moves at most, as a part of the box.
        point_jitter: how far the first point is moved off at most, as a part of the object.
        seed: start of the random numbers; ``set_random_state`` starts them anew.

    Shape:
        inputs (B, 3, H, W), label (B, K, H, W) with a mask for each object: 1 on it, or -1 on a decoy, a place that is
        clicked though nothing is there, and that no further click corrects. The result holds, for each round,
        :class:`monai_ext.networks.segmenter.MaskCandidates` of (B, K, 4, H, W), (B, K, 4) and (B, K).

    Raises:
        ValueError: ``rounds`` is below 1, no label came with the images, or the network has several labels.

    Example:
        >>> label = torch.zeros(1, 2, 32, 32)
        >>> label[0, 0, 4:12, 4:12] = label[0, 1, 20:30, 8:28] = 1
        >>> answers = ClickRoundsInferer(rounds=2)(torch.rand(1, 3, 32, 32), SAM2Segmenter(size="micro"), label=label)
        >>> [tuple(answer.logits.shape) for answer in answers]
        [(1, 2, 4, 32, 32), (1, 2, 4, 32, 32)]
    """

    def __init__(
        self,
        *,
        rounds: int = 3,
        box: float = 0.5,
        box_jitter: float = 0.1,
        point_jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        Inferer.__init__(self)
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {rounds}.")
        if not 0 <= box <= 1:
            raise ValueError(f"box must be a part between 0 and 1, not {box}.")
        self.rounds, self.box = rounds, box
        self.points = SimulatePrompts(mode="points_1", point_jitter=point_jitter)
        self.boxes = SimulatePrompts(mode="box", box_jitter=box_jitter)
        self.corrections = CorrectionClicks(where="random")
        self.set_random_state(seed=seed)

    def set_random_state(
        self, seed: int | None = None, state: Any = None
    ) -> ClickRoundsInferer:  # the parts draw from a state of their own
        super().set_random_state(seed, state)
        for part in (self.points, self.boxes, self.corrections):
            part.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: SAM2Segmenter, *args: Any, label: Tensor | None = None, **kwargs: Any
    ) -> list[MaskCandidates]:
        if label is None:
            raise ValueError("label must be given: let the trainer's prepare_batch pass it (PrepareBatchExtraInput).")
        if len(network.labels) != 1:
            raise ValueError(f"The network must have one label for all objects, not {', '.join(network.labels)}.")
        count = label.shape[1]
        truth = convert_to_tensor(label, track_meta=False).flatten(0, 1).unsqueeze(1)
        own = own_items(len(inputs))
        objects = slice(own.start * count, own.stop * count)
        embedding: ImageEmbedding = network.encode(inputs[own]).repeat(count)
        decoy = (truth < 0).flatten(1).any(1).reshape(-1, 1, 1)
        # One kind of first prompt for the whole batch: no sequence of clicks then has places that are left empty.
        first = (self.boxes if self.R.random_sample() < self.box else self.points)(truth.abs())
        points, kinds = first["points"], first["point_labels"]
        masks: Tensor | None = None
        answers: list[MaskCandidates] = []
        for number in range(self.rounds):
            shown = None if masks is None else masks[objects]
            part = network.candidates(embedding, points[objects], kinds[objects], masks=shown)
            answer = MaskCandidates(*map(gather_items, part))
            answers.append(MaskCandidates(*(part.unflatten(0, (-1, count)).squeeze(2) for part in answer)))
            if number + 1 < self.rounds:
                masks = shown_mask(answer, one_point=(kinds >= 0).sum(-1) == 1)
                click = self.corrections(truth, masks > 0)
                points = torch.cat([points, click["points"]], 2)
                kinds = torch.cat([kinds, torch.where(decoy, -1, click["point_labels"])], 2)
        return answers


def shown_mask(answer: MaskCandidates, one_point: Tensor) -> Tensor:
    """The mask that the annotator sees, ``(B, 1, H, W)`` logits, without its history."""
    logits, iou = answer.logits.detach()[:, 0], answer.iou.detach()[:, 0]
    best = torch.where(one_point[:, 0], iou[:, 1:].argmax(1) + 1, 0)
    return logits[torch.arange(len(best), device=best.device), best].unsqueeze(1)
