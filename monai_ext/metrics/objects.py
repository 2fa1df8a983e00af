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

"""How well objects are found: nuclei, glands and whatever else is counted."""

from __future__ import annotations

import math

import numpy as np

OBJECT_SCORES = ("object_f1", "aji", "pq", "object_dice", "object_hausdorff")


def object_scores(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    r"""
    Compare two maps of objects: F1 at IoU 0.5, aggregated Jaccard index, panoptic quality, object Dice and Hausdorff.

    With true objects :math:`G_i`, predicted :math:`S_j` and pairs that overlap by an IoU above 0.5 (at most one for
    each object) as TP:

    .. math::
        F_1 = \frac{2 TP}{2 TP + FP + FN}, \quad
        PQ = \frac{\sum_{TP} IoU}{TP + FP / 2 + FN / 2}, \quad
        AJI = \frac{\sum_i |G_i \cap S_{j(i)}|}{\sum_i |G_i \cup S_{j(i)}| + \sum_{j\ unused} |S_j|},

    where j(i) has the greatest IoU with :math:`G_i`. With S(G) the object of the other map that overlaps G most,

    .. math::
        D_{obj} = \tfrac12 \Big[ \sum_i \tfrac{|G_i|}{\sum |G|} Dice(G_i, S(G_i))
        + \sum_j \tfrac{|S_j|}{\sum |S|} Dice(G(S_j), S_j) \Big]

    and object Hausdorff the same with the Hausdorff distance in pixels; an object that overlaps none is compared with
    the one at the smallest such distance.

    Kirillov et al., "Panoptic Segmentation", CVPR 2019; Kumar et al., IEEE Transactions on Medical Imaging 36(7), 2017
    (AJI); Sirinukunwattana et al., "Gland segmentation in colon histology images: the GlaS challenge contest", Medical
    Image Analysis 35, 2017.

    Args:
        pred: the predicted objects' numbers, 0 for the ground.
        truth: the true ones.

    Shape:
        ``(H, W)`` integers each.

    Returns:
        a value for each of ``OBJECT_SCORES``. All are ``NaN`` where neither map has an object; where only one has none,
        the distance is ``NaN`` and the others are 0.

    Raises:
        ValueError: the maps differ in size.

    Example:
        >>> one, two = np.array([[1, 1, 0, 2]]), np.array([[3, 3, 3, 0]])
        >>> {name: round(score, 3) for name, score in object_scores(one, two).items()}
        {'object_f1': 0.667, 'aji': 0.5, 'pq': 0.444, 'object_dice': 0.667, 'object_hausdorff': 1.333}
    """
    if pred.shape != truth.shape or pred.ndim != 2:
        raise ValueError(f"pred and truth must be (H, W) and alike, not {pred.shape} and {truth.shape}.")
    pred, truth = _consecutive(pred), _consecutive(truth)
    pred_sizes, true_sizes = (np.bincount(numbers.ravel())[1:] for numbers in (pred, truth))
    if not len(pred_sizes) or not len(true_sizes):
        some = len(pred_sizes) or len(true_sizes)
        return dict.fromkeys(OBJECT_SCORES, 0.0 if some else math.nan) | {"object_hausdorff": math.nan}
    # MONAI's compute_panoptic_quality gives the same; it keeps a mask of the whole image for each object.
    overlap = np.zeros((len(true_sizes), len(pred_sizes)), np.int64)
    both = (pred > 0) & (truth > 0)
    np.add.at(overlap, (truth[both] - 1, pred[both] - 1), 1)
    iou = overlap / (true_sizes[:, None] + pred_sizes - overlap)
    matched = iou > 0.5
    errors = len(true_sizes) + len(pred_sizes) - 2 * matched.sum()
    nearest = (_nearest(overlap, truth, pred), _nearest(overlap.T, pred, truth))
    return {
        "object_f1": float(2 * matched.sum() / (2 * matched.sum() + errors)),
        "aji": _aggregated_jaccard(overlap, iou, true_sizes, pred_sizes),
        "pq": float(iou[matched].sum() / (matched.sum() + errors / 2)),
        "object_dice": (_dice(overlap, true_sizes, pred_sizes) + _dice(overlap.T, pred_sizes, true_sizes)) / 2,
        "object_hausdorff": (_weighted(nearest[0], true_sizes) + _weighted(nearest[1], pred_sizes)) / 2,
    }


def _consecutive(numbers: np.ndarray) -> np.ndarray:
    found, places = np.unique(numbers, return_inverse=True)
    places = places.reshape(numbers.shape)
    return places if 0 in found else places + 1


def _aggregated_jaccard(overlap: np.ndarray, iou: np.ndarray, true_sizes: np.ndarray, pred_sizes: np.ndarray) -> float:
    best = iou.argmax(axis=1)
    rows = np.flatnonzero(iou.max(axis=1) > 0)
    shared = overlap[rows, best[rows]].sum()
    unions = true_sizes.sum() + pred_sizes[best[rows]].sum() - shared
    unused = np.setdiff1d(np.arange(len(pred_sizes)), best[rows])
    return float(shared / (unions + pred_sizes[unused].sum()))


def _dice(overlap: np.ndarray, sizes: np.ndarray, others: np.ndarray) -> float:
    most = overlap.argmax(axis=1)
    shared = overlap[np.arange(len(sizes)), most]
    return _weighted(2 * shared / (sizes + others[most]), sizes)


def _weighted(values: np.ndarray, sizes: np.ndarray) -> float:
    return float((values * sizes).sum() / sizes.sum())


def _nearest(overlap: np.ndarray, numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The Hausdorff distance of each object to the one that it overlaps most, or else to the nearest."""
    from scipy.ndimage import find_objects

    boxes, other_boxes = (
        np.array([[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in find_objects(found)])
        for found in (numbers, others)
    )

    def distance(number: int, other: int) -> float:
        top, left = np.minimum(boxes[number, :2], other_boxes[other, :2])
        bottom, right = np.maximum(boxes[number, 2:], other_boxes[other, 2:])
        both = np.s_[top:bottom, left:right]
        return _hausdorff(numbers[both] == number + 1, others[both] == other + 1)

    distances = np.empty(len(overlap))
    for number in range(len(overlap)):
        if overlap[number].any():
            distances[number] = distance(number, int(overlap[number].argmax()))
            continue
        # Two objects are at least as far from one another as the sides of their boxes.
        least = np.abs(other_boxes - boxes[number]).max(axis=1)
        distances[number] = np.inf
        for other in least.argsort():
            if least[other] >= distances[number]:
                break
            distances[number] = min(distances[number], distance(number, int(other)))
    return distances


def _hausdorff(one: np.ndarray, two: np.ndarray) -> float:
    from scipy.ndimage import distance_transform_edt

    return float(max(distance_transform_edt(~two)[one].max(), distance_transform_edt(~one)[two].max()))
