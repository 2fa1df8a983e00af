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
"""The scores of a model, as ``summary_<mode>.json`` and the metadata's ``eval_metrics`` hold them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Score(NamedTuple):
    """One score of one label: its mean, the interval of the mean, and over how many images, as far as known."""

    label: str
    name: str
    mean: float
    low: float | None = None
    high: float | None = None
    images: int | None = None


def score_rows(metrics: Mapping[str, Any]) -> list[Score]:
    """
    Turn ``{label: {score: {mean, low, high, n}}}``, or the zoo's plain ``{score: value}``, into rows.

    Example:
        >>> score_rows({"mean_dice": 0.9})
        [Score(label='', name='mean_dice', mean=0.9, low=None, high=None, images=None)]
        >>> score_rows({"disc": {"dice": {"mean": 0.9, "low": 0.8, "high": 1.0, "n": 4}}})
        [Score(label='disc', name='dice', mean=0.9, low=0.8, high=1.0, images=4)]
    """
    rows = []
    for label, scores in metrics.items():
        if _is_number(scores):
            rows.append(Score("", label, scores))
        for name, score in scores.items() if isinstance(scores, Mapping) else ():
            if _is_number(score):
                rows.append(Score(label, name, score))
            elif isinstance(score, Mapping) and _is_number(score.get("mean")):
                rows.append(Score(label, name, score["mean"], score.get("low"), score.get("high"), score.get("n")))
    return rows


def score_values(metrics: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """All figures of nested metrics that are no counts, with the keys that lead to them."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from score_values(value, f"{path}{key}#")
        elif isinstance(value, float):
            yield f"{path}{key}", value


def numbers_in(text: str) -> set[float]:
    """
    All numbers that a text says.

    Example:
        >>> sorted(numbers_in("0.870 (0.672 .. 0.977), 14.6 pixels"))
        [0.672, 0.87, 0.977, 14.6]
    """
    return {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", text)}


def read_evaluation(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    Read a ``summary_<mode>.json`` that an evaluation wrote.

    Raises:
        ValueError: the file is no such summary; says which it should be.
    """
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        summary = None
    if not isinstance(summary, dict) or not score_rows(summary.get("labels") or {}):
        raise ValueError(f"{path} holds no scores of labels: give the summary_automatic.json of an evaluation.")
    return summary


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
