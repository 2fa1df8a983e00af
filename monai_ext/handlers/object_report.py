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
from typing import Any

import torch

from monai_ext.handlers.report import SCORES, EvaluationReport
from monai_ext.handlers.utils import item_value, source_path
from monai_ext.metrics.objects import OBJECT_SCORES, object_scores


class ObjectReport(EvaluationReport):
    """
    Score every image by its pixels and by its objects, for nuclei, glands and whatever else is counted.

    Files, summary and intervals are those of :class:`EvaluationReport`, its scores those of
    :func:`monai_ext.handlers.report.label_scores` and :func:`monai_ext.metrics.object_scores`.

    Args:
        instances_key: item with the predicted objects.
        objects_key: item with the true objects.
        settings: as for :class:`EvaluationReport`.

    Shape:
        objects ``(C, spatial...)`` whole numbers, 0 for the ground.

    Example:
        >>> ObjectReport(output_dir="eval", labels=["nucleus"]).table_path.as_posix()
        'eval/per_image_automatic.csv'
    """

    scores = (*SCORES, *OBJECT_SCORES)

    def __init__(self, *, instances_key: str = "instances", objects_key: str = "objects", **settings: Any) -> None:
        super().__init__(**settings)
        self.instances_key, self.objects_key = instances_key, objects_key

    def _score(self, item: Mapping[str, Any], pred: torch.Tensor, truth: torch.Tensor) -> list[dict[str, float]]:
        found, true = (item_value(item, key).numpy() for key in (self.instances_key, self.objects_key))
        if found.shape != pred.shape or true.shape != pred.shape:
            raise ValueError(
                f"{source_path(item)}: {self.instances_key!r} and {self.objects_key!r} must be objects in maps of "
                f"{tuple(pred.shape)}, not {found.shape} and {true.shape}."
            )
        pixels = super()._score(item, pred, truth)
        return [scores | object_scores(*maps) for scores, *maps in zip(pixels, found, true, strict=True)]
