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
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice

from monai_ext.handlers.report import EvaluationReport

VOLUME_SCORES = ("dice", "iou", "sensitivity", "precision", "hd95", "surface_dice", "volume_ml", "true_volume_ml")


class VolumeReport(EvaluationReport):
    """
    Score every volume in three dimensions and write a table per volume and a summary, as :class:`EvaluationReport`.

    The scores are those of :func:`volume_scores`, with distances in millimetres by the spacing of the true mask.

    Args:
        output_dir: folder of both files; made if missing.
        labels: names of the channels.
        mode: how the network was prompted; truth-prompted results get files of their own. ``none`` is ``automatic``.
        pred_key: item with the predicted masks.
        label_key: item with the true masks, which know their affine.
        tolerance: of the surface Dice, in millimetres; TotalSegmentator's (Wasserthal et al., Radiology AI 2023).
        bootstrap: number of resamples.
        seed: of the resampling.

    Shape:
        masks `(C, X, Y, Z)`, 0 or 1, on the grid of the file.

    Raises:
        ValueError: at construction, labels, mode or tolerance cannot be used; later, a true mask has no affine.
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> VolumeReport(output_dir="eval", labels=["spleen"]).table_path.as_posix()
        'eval/per_image_automatic.csv'
    """

    scores = VOLUME_SCORES

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        labels: Sequence[str],
        mode: str = "automatic",
        pred_key: str = "pred",
        label_key: str = "label",
        tolerance: float = 3.0,
        bootstrap: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__(
            output_dir=output_dir,
            labels=labels,
            mode=mode,
            pred_key=pred_key,
            label_key=label_key,
            bootstrap=bootstrap,
            seed=seed,
        )
        if not tolerance > 0:
            raise ValueError(f"tolerance must be above 0 millimetres, not {tolerance}.")
        self.tolerance = tolerance

    def _score(self, item: Mapping[str, Any], pred: torch.Tensor, truth: torch.Tensor) -> list[dict[str, float]]:
        label = item[self.label_key]
        if not isinstance(label, MetaTensor):
            raise ValueError(f"{self.label_key!r} must know its affine (a MetaTensor), not {type(label).__name__}.")
        spacing = affine_to_spacing(label.affine, r=3).tolist()
        return [
            volume_scores(*masks, spacing=spacing, tolerance=self.tolerance) for masks in zip(pred, truth, strict=True)
        ]


def volume_scores(
    pred: torch.Tensor, truth: torch.Tensor, *, spacing: Sequence[float], tolerance: float = 3.0
) -> dict[str, float]:
    """
    Measure one mask: Dice, IoU, sensitivity, precision, 95 % Hausdorff distance, surface Dice, volumes.

    Args:
        pred: predicted mask, boolean.
        truth: true mask, boolean.
        spacing: of the voxels, in millimetres.
        tolerance: of the surface Dice, in millimetres.

    Shape:
        masks `(X, Y, Z)`.

    Returns:
        a value per score, ``NaN`` where it is undefined: Dice, IoU and both distances for a label absent from truth and
        prediction, the Hausdorff distance for one absent from either. Dice, IoU and surface Dice are 0 when only one
        mask is empty.

    Example:
        >>> mask = torch.zeros(8, 8, 8, dtype=torch.bool)
        >>> mask[2:6, 2:6, 2:6] = True
        >>> scores = volume_scores(mask, mask, spacing=[1, 1, 5])
        >>> scores["dice"], scores["hd95"], scores["volume_ml"]
        (1.0, 0.0, 0.32)
    """
    voxel = math.prod(spacing) / 1000
    sizes = {"volume_ml": pred.sum().item() * voxel, "true_volume_ml": truth.sum().item() * voxel}
    found, there = int(pred.sum()), int(truth.sum())
    if not found and not there:
        return dict.fromkeys(VOLUME_SCORES, math.nan) | sizes
    both = int((pred & truth).sum())
    masks = pred[None, None].float(), truth[None, None].float()
    shared: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    return {
        "dice": compute_dice(*masks, ignore_empty=False).item(),
        "iou": compute_iou(*masks, ignore_empty=False).item(),
        "sensitivity": both / there if there else math.nan,
        "precision": both / found if found else math.nan,
        # MONAI warns of an empty mask, which is no news here.
        "hd95": compute_hausdorff_distance(*masks, percentile=95, **shared).item() if found and there else math.nan,
        "surface_dice": compute_surface_dice(*masks, [tolerance], **shared).item() if found and there else 0.0,
        **sizes,
    }
