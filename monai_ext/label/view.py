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

from dataclasses import dataclass

from monai_ext.label.prompts import ClickPrompts

GRID = 8  # views begin at multiples of an eighth of their side, so that clicks near each other share one


@dataclass(frozen=True)
class ClickView:
    """
    The part of a picture that is encoded for a click, and how far it is reduced.

    A picture that is larger than what the network was trained on is encoded around the click only, at full detail.
    Clicks that follow stay in this part, and cost no encoding, until one falls near its border: then twice the part is
    seen, at half the detail. Everything follows from the prompts, so that the same clicks give the same answer.

    Attributes:
        x, y: the upper left corner in pixels of the picture.
        width, height: of the part, in pixels of the picture.
        reduction: how many pixels of the picture make one of what is encoded.
    """

    x: int
    y: int
    width: int
    height: int
    reduction: float = 1.0

    @classmethod
    def around(cls, prompts: ClickPrompts, size: tuple[int, int], window: int) -> ClickView:
        """
        The part of the picture for these prompts.

        Args:
            prompts: the clicks and the box.
            size: width and height of the picture.
            window: pixels on a side that the network is used to.

        Example:
            >>> ClickView.around(ClickPrompts(foreground=((1000.0, 10.0),)), (3504, 2336), 224)
            ClickView(x=896, y=0, width=224, height=224, reduction=1.0)
            >>> ClickView.around(ClickPrompts(foreground=((5.0, 5.0),)), (100, 80), 224)
            ClickView(x=0, y=0, width=100, height=80, reduction=1.0)
        """
        side = window
        while True:
            (x, width), (y, height) = (
                _place(start, whole, side) for start, whole in zip(prompts.start(), size, strict=True)
            )
            view = cls(x, y, width, height, side / window)
            if (width, height) == tuple(size) or all(view._shows(point, size) for point in prompts.all_points()):
                return view
            side *= 2

    @classmethod
    def whole(cls, size: tuple[int, int], longest_side: int) -> ClickView:
        """The whole picture with ``longest_side`` pixels on its longer side, as some bundles see it."""
        return cls(0, 0, size[0], size[1], max(size) / longest_side)

    def _shows(self, point: tuple[float, float], size: tuple[int, int]) -> bool:
        """Whether a point lies in the view, and not near a border behind which the picture goes on."""
        for at, begin, length, whole in zip(point, (self.x, self.y), (self.width, self.height), size, strict=True):
            margin = length / GRID
            low = begin + margin if begin > 0 else 0
            high = begin + length - margin if begin + length < whole else whole
            if not low <= at < high:
                return False
        return True


def _place(start: float, whole: int, side: int) -> tuple[int, int]:
    """Where a view of ``side`` begins, its middle near ``start``, and how long it is."""
    if side >= whole:
        return 0, whole
    step = max(1, side // GRID)
    begin = round((start - side / 2) / step) * step
    return min(max(begin, 0), whole - side), side
