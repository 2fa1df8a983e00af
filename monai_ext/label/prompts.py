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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_ext.label.refusal import RequestRefused

MAX_CLICKS = 100
Point = tuple[float, float]


@dataclass(frozen=True)
class ClickPrompts:
    """
    What an annotator points at: clicks on and off the object, a box, and which label is meant.

    Attributes:
        foreground: clicks on the object, x (column) and y (row) in pixels of the upright picture.
        background: clicks off it.
        box: x0, y0, x1, y1, or None.
        label: the name of the label, as the model writes it; None where the model knows no names.
    """

    foreground: tuple[Point, ...] = ()
    background: tuple[Point, ...] = ()
    box: tuple[float, float, float, float] | None = None
    label: str | None = None

    @classmethod
    def from_request(cls, params: Mapping[str, Any], size: tuple[int, int], labels: Sequence[str] = ()) -> ClickPrompts:
        """
        Read the prompts of a request to ``/infer``, as MONAI Label's clients send them.

        ``foreground`` and ``background`` are lists of x, y; a third number, the slice that 3D Slicer sends, is left
        out. ``roi`` is x0, y0, x1, y1; six numbers are 3D Slicer's x0, x1, y0, y1, z0, z1. Corners may come in any
        order, and a box that sticks out is cut to the picture.

        Args:
            params: the request.
            size: width and height of the picture.
            labels: the model's labels; none if any name will do.

        Raises:
            RequestRefused: a prompt is none, lies outside, or is no number; or the label is unknown.

        Example:
            >>> prompts = ClickPrompts.from_request({"foreground": [[3, 4, 0]], "roi": [9, 1, 2, 8]}, (20, 10))
            >>> prompts.foreground, prompts.box
            (((3.0, 4.0),), (2.0, 1.0, 9.0, 8.0))
        """
        foreground, background = (_points(params.get(name), name, size) for name in ("foreground", "background"))
        if len(foreground) + len(background) > MAX_CLICKS:
            raise RequestRefused(
                f"At most {MAX_CLICKS} clicks are taken for one object, not {len(foreground) + len(background)}: "
                "annotate its parts one after another.",
                413,
            )
        box = _box(params.get("roi"), size)
        if not foreground and box is None:
            raise RequestRefused("At least one click on the object (foreground) or a box (roi) is needed.")
        return cls(foreground, background, box, _label(params.get("label"), labels))

    def all_points(self) -> list[Point]:
        """Every click and the corners of the box; the first of them says where the annotator began."""
        corners = [] if self.box is None else [self.box[:2], self.box[2:]]
        return [*corners, *self.foreground, *self.background]

    def start(self) -> Point:
        """Where the annotator began: the middle of the box, or the first click."""
        if self.box is not None:
            return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
        return self.foreground[0]


def _points(value: Any, name: str, size: tuple[int, int]) -> tuple[Point, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RequestRefused(f"{name} must be a list of clicks [x, y], not {_brief(value)}.")
    if len(value) > MAX_CLICKS:
        raise RequestRefused(
            f"At most {MAX_CLICKS} clicks are taken for one object, but {name} has {len(value)}: annotate its parts "
            "one after another.",
            413,
        )
    points = []
    for click in value:
        numbers = _numbers(click, name)
        if len(numbers) not in (2, 3):
            raise RequestRefused(f"Each click of {name} must be [x, y], not {_brief(click)}.")
        x, y = numbers[:2]
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            raise RequestRefused(
                f"The click [{x:g}, {y:g}] of {name} lies outside the picture, which is {size[0]} wide and {size[1]} "
                "high: x is the column and y the row of the upright picture."
            )
        points.append((x, y))
    return tuple(points)


def _box(value: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    if value is None or value == []:
        return None
    numbers = _numbers(value, "roi")
    if len(numbers) == 4:
        x0, y0, x1, y1 = numbers
    elif len(numbers) == 6:
        x0, x1, y0, y1 = numbers[:4]
    else:
        raise RequestRefused(f"roi must be a box [x0, y0, x1, y1], not {_brief(value)}.")
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, size[0] - 1.0), min(y1, size[1] - 1.0)
    if x1 <= x0 or y1 <= y0:
        raise RequestRefused(
            f"The box roi {_brief(value)} has no part of the picture in it, which is {size[0]} wide and {size[1]} high."
        )
    return x0, y0, x1, y1


def _numbers(value: Any, name: str) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RequestRefused(f"{name} must hold lists of numbers, not {_brief(value)}.")
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in value):
        raise RequestRefused(f"{name} must hold numbers, not {_brief(value)}.")
    if not all(abs(number) < 1e9 and math.isfinite(number) for number in value):
        raise RequestRefused(f"{name} must hold numbers of a picture, not {_brief(value)}.")
    return [float(number) for number in value]


def _label(value: Any, labels: Sequence[str]) -> str | None:
    if not labels:
        return value if isinstance(value, str) and value else None
    if value is None or value == "":
        if len(labels) > 1:
            raise RequestRefused(f"label must say which of {', '.join(labels)} is meant.")
        return labels[0]
    for label in labels:
        # MONAI Label's clients know labels in lower case.
        if isinstance(value, str) and value.lower() == label.lower():
            return label
    raise RequestRefused(f"label must be one of {', '.join(labels)}, not {_brief(value)}.")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
