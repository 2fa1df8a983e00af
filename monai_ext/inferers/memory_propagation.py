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

from monai_ext.inferers.propagated_object import PropagatedObject, SliceAnswer
from monai_ext.inferers.propagation import Prompts, PropagationInferer, earlier_mask
from monai_ext.inferers.slice_walk import SliceWalk
from monai_ext.networks.memory import SliceMemory, recall, remember, track


class MemoryPropagationInferer(PropagationInferer):
    """
    Carry an object from clicked slices of a volume to all others by SAM 2's memory attention.

    It equals SAM 2's video predictor with a volume's slices as frames: clicked slices are decoded by themselves, every
    other one is encoded with a memory of all clicked slices and of the six before it, first from the lowest clicked
    slice upwards, then from there downwards. Since every clicked slice has a say everywhere, a correction follows the
    object anew; slices that are encoded already are not encoded again.

    Ravi et al., "SAM 2", arXiv 2408.00714; Ma et al., "Segment Anything in Medical Images and Videos" (MedSAM2),
    arXiv 2408.03322, for slices as frames.

    Args:
        absent: stop after so many slices in a row that, by the network's object score, do not show the object, if no
            clicked slice is left; None goes on to the end.

    Shape:
        as for :class:`PropagationInferer`.

    Raises:
        ValueError: ``absent`` is below 1; later, the network has no memory.

    Example:
        >>> import torch
        >>> from monai_ext.networks import SAM2Segmenter
        >>> network = SAM2Segmenter(size="micro", memory=True)
        >>> click = {"points": torch.tensor([[20.0, 16.0, 1.0]]), "point_labels": torch.tensor([1])}
        >>> MemoryPropagationInferer()(torch.zeros(1, 3, 40, 32, 3), network, **click).shape
        torch.Size([1, 1, 40, 32, 3])
    """

    def __init__(self, *, absent: int | None = 3) -> None:
        super().__init__()
        if absent is not None and absent < 1:
            raise ValueError(f"absent must be at least 1, or None, not {absent}.")
        self.absent = absent

    def _spread(self, walk: SliceWalk, prompts: Prompts, earlier: PropagatedObject) -> PropagatedObject:
        network = walk.network
        if not network.memory:
            raise ValueError("network must have memory: SAM2Segmenter(memory=True).")
        first, last = min(prompts), max(prompts)
        walk.start(len(prompts) + walk.depth - 1)
        clicked: dict[int, SliceAnswer] = {}
        kept: dict[int, SliceMemory] = {}
        for z, (points, kinds) in sorted(prompts.items()):
            embedding, shown = walk.embedding(z), earlier_mask(z, prompts[z], earlier)
            device = embedding.features.device
            masks = None if shown is None else shown[None, None].clamp(-32, 32).to(device)
            clicks = points[None].to(device), kinds[None].to(device)
            answer = track(network, embedding, *clicks, number=walk.number, masks=masks)
            clicked[z] = SliceAnswer(answer.logits[0, 0].cpu(), float(answer.iou))
            kept[z] = remember(network, embedding, answer, clicked=True)
            walk.step()
        followed: dict[int, SliceMemory] = {}
        upwards = self._follow(walk, range(first + 1, walk.depth), last, kept, followed)
        downwards = self._follow(walk, range(first - 1, -1, -1), first, kept, followed)
        return PropagatedObject(size=walk.size, prompts=prompts, clicked=clicked, upwards=upwards, downwards=downwards)

    def _follow(
        self,
        walk: SliceWalk,
        order: range,
        last: int,
        kept: dict[int, SliceMemory],
        followed: dict[int, SliceMemory],
    ) -> dict[int, SliceAnswer | None]:
        """One direction; ``last`` is the slice behind which no further one is clicked."""
        found: dict[int, SliceAnswer | None] = {}
        absent = 0
        for z in order:
            if z in kept or absent == self.absent:
                walk.step()
                continue
            embedding = walk.embedding(z)
            known = recall(
                walk.network, embedding, z, clicked=kept, followed=followed, direction=order.step, depth=walk.depth
            )
            nothing = embedding.features.new_zeros(1, 0, 2)
            answer = track(walk.network, known, nothing, nothing[..., 0], number=walk.number)
            followed[z] = remember(walk.network, embedding, answer, clicked=False)
            seen = bool(answer.object_score > 0)
            found[z] = SliceAnswer(answer.logits[0, 0].cpu(), float(answer.iou)) if seen else None
            beyond = (z - last) * order.step > 0
            absent = absent + 1 if beyond and not seen else 0
            walk.step()
        return found
