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
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_ext.inferers.clicks import shown_mask
from monai_ext.networks.segmenter import ImageEmbedding, SAM2Segmenter
from monai_ext.transforms.prompts import CorrectionClicks, SimulatePrompts, bounds_of


class ClickTrialInferer(Inferer):
    """
    Put a promptable network to the test: the masks after one click, two clicks and so on, of every object by itself.

    The first click lies in the middle of the object, each further one in the middle of the largest error. From one
    click the best of SAM's three masks by predicted IoU counts, from more the single one, as in training. With ``box``
    the object's tight box comes first and the clicks after it. Nothing is random: with ``jitter`` the first prompts are
    moved off, but in the same way every time.

    Args:
        clicks: number of answers.
        box: whether to begin with a box in place of a click.
        window: encode a square of so many pixels around each object's first prompt instead of the whole image, as large
            images and small networks want it; None for the whole image, encoded once.
        chunk: objects that go through the network together.
        jitter: how far the first click, or each corner of the box, is moved off at most, as a part of the object's
            width and height: the prompts of a hurried hand.

    Shape:
        inputs (1, 3, H, W), label (1, K, H, W); the result (1, clicks, K, H, W) uint8, masks of 0 and 1.

    Raises:
        ValueError: ``clicks`` is below 1, ``jitter`` is out of [0, 0.5), no label came with the images, or several
            images came at once.

    Example:
        >>> label = torch.zeros(1, 2, 32, 32)
        >>> label[0, 0, 4:12, 4:12] = label[0, 1, 20:30, 8:28] = 1
        >>> network = SAM2Segmenter(size="micro").eval()
        >>> ClickTrialInferer(clicks=3)(torch.rand(1, 3, 32, 32), network, label=label).shape
        torch.Size([1, 3, 2, 32, 32])
    """

    def __init__(
        self,
        *,
        clicks: int = 3,
        box: bool = False,
        window: int | None = None,
        chunk: int = 16,
        jitter: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("clicks", clicks), ("window", window)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if not 0 <= jitter < 0.5:
            raise ValueError(f"jitter must be at least 0 and less than 0.5, not {jitter}.")
        self.clicks, self.window, self.chunk, self.jitter = clicks, window, chunk, jitter
        self.next_click = CorrectionClicks(where="middle")
        self.first = SimulatePrompts(mode="box") if box else self.next_click

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: SAM2Segmenter, *args: Any, label: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if label is None:
            raise ValueError("label must be given: let the evaluator's prepare_batch pass it (PrepareBatchExtraInput).")
        if len(inputs) != 1:
            raise ValueError(f"inputs must be one image, since images differ in their objects, not {len(inputs)}.")
        truth = convert_to_tensor(label, track_meta=False)[0].unsqueeze(1)
        # The same hand for the same image every time, and another one for another image.
        hand = torch.Generator().manual_seed(int((truth > 0).sum()))
        if self.window is None:
            embedding = network.encode(inputs)
            masks = [
                self._trial(network, embedding.repeat(len(part)), part, self._first_prompts(part, hand))
                for part in truth.split(self.chunk)
            ]
        else:
            image = convert_to_tensor(inputs, track_meta=False)
            masks = [self._windows(network, image, part, self.window, hand) for part in truth.split(self.chunk)]
        return torch.cat(masks, 1).unsqueeze(0)

    def _windows(
        self, network: SAM2Segmenter, image: Tensor, truth: Tensor, side: int, hand: torch.Generator
    ) -> Tensor:
        """The trial of each object in a square of its own; nothing is found outside of it."""
        prompts = self._first_prompts(truth, hand)
        centres = prompts["points"].mean(2)[:, 0].round().int()
        height, width = image.shape[-2:]
        margin = [side // 2, side - side // 2] * 2
        # In padded pixels, a square that begins at the centre's own place has the centre in its middle.
        squares = [(..., slice(y, y + side), slice(x, x + side)) for x, y in centres.tolist()]
        images, truths = F.pad(image, margin), F.pad(truth, margin)
        crops = torch.cat([images[square] for square in squares])
        inside = torch.stack([t[square] for t, square in zip(truths, squares, strict=True)])
        if self.jitter:
            corners = centres.to(prompts["points"])[:, None, None] - side // 2
            prompts["points"] = (prompts["points"] - corners).clamp(0, side - 1)
        else:  # of what the square shows of the object
            prompts = self.first(inside)
        found = self._trial(network, network.encode(crops), inside, prompts)
        masks = found.new_zeros(self.clicks, *truths[:, 0].shape)
        for index, square in enumerate(squares):
            masks[:, index][square] = found[:, index]
        return masks[..., side // 2 : side // 2 + height, side // 2 : side // 2 + width]

    def _first_prompts(self, truth: Tensor, hand: torch.Generator) -> dict[str, Tensor]:
        prompts = self.first(truth)
        if self.jitter:
            points = prompts["points"]
            corners = torch.stack([torch.as_tensor(bounds_of(mask[0].cpu().numpy() > 0)) for mask in truth])
            sides = (corners[:, 1] - corners[:, 0] + 1).to(points)[:, None, None]
            moves = self.jitter * (2 * torch.rand(points.shape, generator=hand) - 1)
            last = points.new_tensor([truth.shape[-1] - 1, truth.shape[-2] - 1])
            prompts["points"] = (points + moves.to(points) * sides).round().clamp(points.new_zeros(2), last)
        return prompts

    def _trial(
        self, network: SAM2Segmenter, embedding: ImageEmbedding, truth: Tensor, prompts: dict[str, Tensor]
    ) -> Tensor:
        shown, masks = None, []
        for number in range(self.clicks):
            answer = network.candidates(embedding, prompts["points"], prompts["point_labels"], masks=shown)
            shown = shown_mask(answer, one_point=(prompts["point_labels"] >= 0).sum(-1) == 1)
            masks.append((shown[:, 0] > 0).to(torch.uint8))
            if number + 1 < self.clicks:
                click = self.next_click(truth, shown > 0)
                prompts = {name: torch.cat([prompts[name], click[name]], 2) for name in prompts}
        return torch.stack(masks)
