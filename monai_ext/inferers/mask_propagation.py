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

from collections.abc import Mapping

import torch
from torch import Tensor

from monai_ext.inferers.clicks import shown_mask
from monai_ext.inferers.propagated_object import PropagatedObject, SliceAnswer
from monai_ext.inferers.propagation import Prompts, PropagationInferer, earlier_mask, same_prompts
from monai_ext.inferers.slice_walk import Part, SliceWalk
from monai_ext.networks.segmenter import MaskCandidates
from monai_ext.transforms.prompts import CorrectionClicks, bounds_of

_EVEN = 0.1  # least standard deviation of a normalised picture: nothing real is more even
_STEPS = 8  # places of the window along its own side: the encoding of a slice serves small corrections


class MaskPropagationInferer(PropagationInferer):
    """
    Carry an object from clicked slices of a volume to all others, each slice prompted with the mask of its neighbour.

    Clicked slices are decoded from their clicks; a slice on which the object was found already is shown that mask and
    its middle as well, so that a click corrects it. Every other slice is prompted with its neighbour's mask, the mask's
    box and a click in its middle, upwards and downwards from every clicked slice as far as the next one. Between two
    clicked slices both have a say, the nearer one more. The object ends where the network thinks its mask bad, where
    the mask is small, or where it shows something darker or brighter than on the clicked slice.

    After a correction only the slices beyond it are done anew, on both sides, as far as their masks change.

    Args:
        window: encode a square of so many pixels around the object instead of whole slices, as large slices and small
            networks want it (``micro`` was trained on 224); None for whole slices. Nothing is found outside of it.
        least_iou: the object ends where the network predicts a lower IoU for its mask, in [0, 1].
        smallest: the object ends where its mask has fewer pixels.
        deviations: the object ends where the mean brightness under its mask is further off that on the clicked slice,
            in standard deviations of the brightness there.
        settled: a mask has not changed if its IoU with the one before is at least this, in (0, 1].

    Shape:
        inputs ``(1, 3, X, Y, Z)``; the result ``(1, 1, X, Y, Z)`` logits.

    Raises:
        ValueError: a setting is out of its range; later, an input does not fit.

    Example:
        >>> from monai_ext.networks import SAM2Segmenter
        >>> network = SAM2Segmenter(size="micro")
        >>> click = {"points": torch.tensor([[20.0, 16.0, 1.0]]), "point_labels": torch.tensor([1])}
        >>> MaskPropagationInferer()(torch.zeros(1, 3, 40, 32, 3), network, **click).shape
        torch.Size([1, 1, 40, 32, 3])
    """

    def __init__(
        self,
        *,
        window: int | None = None,
        least_iou: float = 0.55,
        smallest: int = 10,
        deviations: float = 3.0,
        settled: float = 0.99,
    ) -> None:
        super().__init__()
        if window is not None and window < _STEPS:
            raise ValueError(f"window must be at least {_STEPS} pixels, not {window}.")
        if not 0 <= least_iou <= 1:
            raise ValueError(f"least_iou must be at least 0 and at most 1, not {least_iou}.")
        if smallest < 1:
            raise ValueError(f"smallest must be at least 1 pixel, not {smallest}.")
        if not deviations > 0:
            raise ValueError(f"deviations must be above 0, not {deviations}.")
        if not 0 < settled <= 1:
            raise ValueError(f"settled must be above 0 and at most 1, not {settled}.")
        self.window, self.settled = window, settled
        self.least_iou, self.smallest, self.deviations = least_iou, smallest, deviations
        self.middle = CorrectionClicks(where="middle")

    def _spread(self, walk: SliceWalk, prompts: Prompts, earlier: PropagatedObject) -> PropagatedObject:
        first, last = min(prompts), max(prompts)
        walk.start(len(prompts) + walk.depth - 1 - first + last)
        clicked = {}
        for z in sorted(prompts):
            clicked[z] = self._click(walk, z, prompts[z], earlier)
            walk.step()
        upwards = self._chain(walk, range(first + 1, walk.depth), clicked, earlier, earlier.upwards)
        downwards = self._chain(walk, range(last - 1, -1, -1), clicked, earlier, earlier.downwards)
        return PropagatedObject(size=walk.size, prompts=prompts, clicked=clicked, upwards=upwards, downwards=downwards)

    def _click(self, walk: SliceWalk, z: int, prompt: tuple[Tensor, Tensor], earlier: PropagatedObject) -> SliceAnswer:
        if z in earlier.prompts and same_prompts(earlier.prompts[z], prompt):
            return earlier.clicked[z]
        (points, kinds), shown = prompt, earlier_mask(z, prompt, earlier)
        if shown is not None and z not in earlier.prompts and not bool((kinds > 1).any()):
            # The mask came from a neighbour: its middle stands for the clicks that it was never given.
            points, kinds = (torch.cat(pair) for pair in zip(self._middle_of(shown), prompt, strict=True))
        elif shown is None and not bool((kinds > 0).any()):
            return SliceAnswer(walk.paste(torch.zeros(0, 0), (slice(0, 0), slice(0, 0))), 1.0)  # not here, they say
        return self._decode(walk, z, points, kinds, shown)

    def _chain(
        self,
        walk: SliceWalk,
        order: range,
        clicked: Mapping[int, SliceAnswer],
        earlier: PropagatedObject,
        old: Mapping[int, SliceAnswer | None],
    ) -> dict[int, SliceAnswer | None]:
        """One direction: each slice from the one before, unless that is as it was when the slice was last done."""
        found: dict[int, SliceAnswer | None] = {}
        reference = (0.0, 0.0)
        for z in order:
            neighbour = z - order.step
            if neighbour in clicked:
                reference = self._brightness(walk, neighbour, clicked[neighbour])
            source = clicked.get(neighbour) or found.get(neighbour)
            if z not in clicked and source is not None:
                before = earlier.clicked.get(neighbour) or old.get(neighbour)
                known = z in old and before is not None and self._same(source, before)
                found[z] = old[z] if known else self._follow(walk, z, source.logits, reference)
            walk.step()
        return found

    def _follow(self, walk: SliceWalk, z: int, neighbour: Tensor, reference: tuple[float, float]) -> SliceAnswer | None:
        """The answer on a slice from the mask of its neighbour; None where the object has ended."""
        if not bool((neighbour > 0).any()):
            return None
        answer = self._decode(walk, z, *self._prompt_of(neighbour), neighbour)
        if answer.iou < self.least_iou or int((answer.logits > 0).sum()) < self.smallest:
            return None
        off = abs(self._brightness(walk, z, answer)[0] - reference[0])
        return None if off > self.deviations * max(reference[1], _EVEN) else answer

    def _prompt_of(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Box and middle of a mask."""
        corners = torch.as_tensor(bounds_of((logits > 0).numpy())).float()
        point, kind = self._middle_of(logits)
        return torch.cat([corners, point]), torch.cat([kind.new_tensor([2, 3]), kind])

    def _brightness(self, walk: SliceWalk, z: int, answer: SliceAnswer) -> tuple[float, float]:
        """Mean and standard deviation of the picture under the mask."""
        seen = walk.picture(z).mean((0, 1)).cpu()[answer.logits > 0]
        return (float(seen.mean()), float(seen.std(correction=0))) if len(seen) else (0.0, 0.0)

    def _decode(self, walk: SliceWalk, z: int, points: Tensor, kinds: Tensor, shown: Tensor | None) -> SliceAnswer:
        bounds = points[:0] if shown is None else torch.as_tensor(bounds_of((shown > 0).numpy())).to(points)
        part = self._part(walk, torch.cat([bounds, points]))
        embedding = walk.embedding(z, part)
        device = embedding.features.device
        rows, columns = part
        first = points.new_tensor([columns.start, rows.start])
        last = points.new_tensor([columns.stop - 1, rows.stop - 1])
        # A click that the window does not show is none; of a box it shows a part.
        kinds = kinds.where((kinds > 1) | ((points >= first) & (points <= last)).all(1), -1)
        points, kinds = (points.clamp(first, last) - first)[None].to(device), kinds[None].to(device)
        mask = None if shown is None else shown[part][None, None].to(device)
        answer = MaskCandidates(
            *(
                one[:, walk.number : walk.number + 1]
                for one in walk.network.candidates(embedding, points, kinds, masks=mask)
            )
        )
        # One click alone is ambiguous: the best of SAM's three masks.
        alone = torch.tensor([[shown is None and kinds.numel() == 1]], device=device)
        logits = shown_mask(answer, one_point=alone)[0, 0]
        iou = answer.iou[0, 0, 1:].max() if bool(alone) else answer.iou[0, 0, 0]
        return SliceAnswer(walk.paste(logits, part), float(iou))

    def _part(self, walk: SliceWalk, points: Tensor) -> Part:
        """The window in the middle of points, inside the slice; the last point is in it in any case."""
        sides = []
        for places, length in zip(points.T.flip(0), (walk.size[1], walk.size[0]), strict=True):
            side = min(self.window or length, length)
            stride = max(1, side // _STEPS)
            start = round((float(places.min() + places.max()) - side) / 2 / stride) * stride
            last = round(float(places[-1]))
            start = max(0, last - side + 1, min(start, last, length - side))
            sides.append(slice(start, start + side))
        return sides[0], sides[1]

    def _middle_of(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        click = self.middle((logits > 0)[None, None])
        return click["points"][0, 0], click["point_labels"][0, 0]

    def _same(self, one: SliceAnswer, other: SliceAnswer) -> bool:
        a, b = one.logits > 0, other.logits > 0
        return one is other or int((a & b).sum()) >= self.settled * int((a | b).sum())
