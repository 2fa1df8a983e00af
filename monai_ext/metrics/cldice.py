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

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction, ignore_background
from monai.utils import MetricReduction


class ClDiceMetric(CumulativeIterationMetric):
    r"""
    Centreline Dice of thin structures: does each mask cover the other one's skeleton?

    .. math:: clDice(P, L) = \frac{2\,T_{prec}\,T_{sens}}{T_{prec} + T_{sens}},\quad
        T_{prec} = \frac{|S_P \cap L|}{|S_P|},\quad T_{sens} = \frac{|S_L \cap P|}{|S_L|}

    with :math:`S` the skeleton of a mask. It is the hard metric; ``monai.losses.SoftclDiceLoss`` is the loss.
    Shit et al., "clDice - a novel topology-preserving loss function for tubular structure segmentation", CVPR 2021.

    Args:
        include_background: whether channel 0 counts.
        reduction: how scores are reduced over images and channels, as in MONAI; ``NaN`` is left out.
        get_not_nans: whether ``aggregate`` also returns how many scores were not ``NaN``.

    Shape:
        prediction and truth: `(B, C, spatial...)` or a list of `(C, spatial...)`, 2-D or 3-D, values 0 or 1.

    Example:
        >>> metric = ClDiceMetric()
        >>> mask = torch.zeros(1, 1, 8, 8)
        >>> mask[..., 3:5, :] = 1
        >>> metric(mask, mask).item()
        1.0
        >>> metric.aggregate().item()
        1.0
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        self.include_background = include_background
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return compute_cldice(y_pred, y, include_background=self.include_background)

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """
        Reduce the scores of all images seen since ``reset``.

        Args:
            reduction: instead of the one given at construction.
        """
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError("ClDiceMetric has no scores yet: call it with predictions and truth before aggregate().")
        score, not_nans = do_metric_reduction(data, reduction or self.reduction)
        return (score, not_nans) if self.get_not_nans else score


def compute_cldice(y_pred: torch.Tensor, y: torch.Tensor, include_background: bool = True) -> torch.Tensor:
    """
    Compute the hard clDice of each image and channel, see :class:`ClDiceMetric`.

    Args:
        y_pred: predicted masks `(B, C, spatial...)`, 0 or 1.
        y: true masks of the same shape.
        include_background: whether channel 0 counts.

    Returns:
        `(B, C)`: 0 to 1; ``NaN`` where both masks are empty, 0 where only one is.

    Raises:
        ValueError: the shapes differ or are not 2-D or 3-D images.

    Example:
        >>> compute_cldice(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).item()
        0.0
    """
    if y_pred.shape != y.shape or y.ndim not in (4, 5):
        raise ValueError(
            "prediction and truth must have one shape (batch, channel, 2 or 3 spatial axes), "
            f"not {tuple(y_pred.shape)} and {tuple(y.shape)}."
        )
    if not include_background:
        y_pred, y = ignore_background(y_pred=y_pred, y=y)
    pred, truth = ((masks > 0.5).cpu().numpy() for masks in (y_pred, y))
    scores = [
        [_centreline_dice(p, t) for p, t in zip(*images, strict=True)] for images in zip(pred, truth, strict=True)
    ]
    return torch.tensor(scores, dtype=torch.float32, device=y_pred.device).reshape(y.shape[:2])


def _centreline_dice(pred: np.ndarray, truth: np.ndarray) -> float:
    if not pred.any() and not truth.any():
        return float("nan")
    if not pred.any() or not truth.any():
        return 0.0
    precision, sensitivity = _covered_skeleton(pred, truth), _covered_skeleton(truth, pred)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity > 0 else 0.0


def _covered_skeleton(mask: np.ndarray, cover: np.ndarray) -> float:
    from skimage.morphology import skeletonize

    skeleton = skeletonize(mask).astype(bool)
    # In 3-D the thinning can erase a bar of even width to the last voxel; it is then thin enough to stand for itself.
    return float(cover[skeleton if skeleton.any() else mask].mean())
