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
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class SliceAnswer(NamedTuple):
    """What the network said of one slice."""

    logits: Tensor  # (H, W), rows along y, on the CPU
    iou: float  # predicted


@dataclass(frozen=True)
class PropagatedObject:
    """
    An object of a volume as clicks on some of its slices gave it, and all that a further click needs to change it.

    It never changes: a correction makes a new one, so the earlier one is still there when a correction is cancelled.

    Args:
        size: of the volume, X, Y and Z.
        prompts: by slice, what was clicked there: points ``(N, 2)`` as x and y, and their labels ``(N,)``.
        clicked: the answers of the clicked slices.
        upwards: of the other slices, what came from the clicked slice below; None where the object ended.
        downwards: the same from the clicked slice above.

    Example:
        >>> answer = SliceAnswer(torch.full((4, 6), 3.0), 0.9)
        >>> found = PropagatedObject(size=(6, 4, 3), clicked={1: answer})
        >>> found.slices, found.mask.shape, int(found.mask.sum())
        ([1], torch.Size([1, 6, 4, 3]), 24)
    """

    size: tuple[int, int, int]
    prompts: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    clicked: Mapping[int, SliceAnswer] = field(default_factory=dict)
    upwards: Mapping[int, SliceAnswer | None] = field(default_factory=dict)
    downwards: Mapping[int, SliceAnswer | None] = field(default_factory=dict)

    @property
    def slices(self) -> list[int]:
        """The slices that show the object."""
        answers = ((z, self.answer(z)) for z in range(self.size[2]))
        return [z for z, answer in answers if answer is not None and bool((answer.logits > 0).any())]

    @property
    def mask(self) -> Tensor:
        """``(1, X, Y, Z)`` uint8, 1 on the object."""
        return (self.logits() > 0).to(torch.uint8)

    def logits(self, background: float = -20.0) -> Tensor:
        """``(1, X, Y, Z)``, with ``background`` on slices that the object does not reach."""
        volume = torch.full((1, *self.size), background)
        for z in range(self.size[2]):
            if (answer := self.answer(z)) is not None:
                volume[0, :, :, z] = answer.logits.T
        return volume

    def answer(self, z: int) -> SliceAnswer | None:
        """
        What is known of a slice; None if the object does not reach it.

        Between two clicked slices both have a say, the nearer one more; where the object had ended for one of them,
        the other alone.
        """
        if z in self.clicked:
            return self.clicked[z]
        below, above = self.upwards.get(z), self.downwards.get(z)
        if below is None or above is None:
            return below or above
        first, last = max(n for n in self.clicked if n < z), min(n for n in self.clicked if n > z)
        weight = (z - first) / (last - first)
        return SliceAnswer(torch.lerp(below.logits, above.logits, weight), min(below.iou, above.iou))
