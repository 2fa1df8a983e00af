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
import torch.nn.functional as F
from monai.transforms import Randomizable
from monai.utils import convert_to_tensor, look_up_option
from scipy import ndimage
from torch import Tensor

__all__ = ["CorrectionClicks", "SimulatePrompts"]

# What each mode shows: positive points, negative points, whether a box.
_MODES = {
    "none": (0, 0, False),
    "points_1": (1, 0, False),
    "points_2": (2, 0, False),
    "points_5": (5, 0, False),
    "points_5_1": (5, 1, False),
    "box": (0, 0, True),
    "all": (5, 1, True),
}
_EROSION = 2


class SimulatePrompts(Randomizable):
    """
    Simulate what an annotator would click, from the true masks: the seven prompt modes of SAM2LoRA.

    Positive points are random pixels of the label, kept 2 pixels off its edge where the label is wide enough; negative
    points are random pixels outside; the box is tight. Points may coincide, as they must on a label of a single pixel.
    A label without a pixel gets no prompt at all.

    How many random numbers are drawn depends on the mode and on (B, C) alone, never on what the masks show, so that
    the points of one image do not depend on what the images before it looked like.

    Mandal et al., "SAM2LoRA", arXiv 2510.10288.

    Args:
        mode: ``"none"``, ``"points_1"``, ``"points_2"``, ``"points_5"`` (all positive), ``"points_5_1"`` (5 positive,
            1 negative), ``"box"`` or ``"all"`` (5 positive, 1 negative and the box).
        box_jitter: how far each side of the box moves at most, as a part of the box's width or height, in [0, 0.5);
            SAM2LoRA trains with 0.02 and evaluates with 0.
        point_jitter: how far a positive point is then moved off at most, as a part of the label's width and height, in
            [0, 0.5): the clicks of a hurried hand, some of them beside the label.
        seed: start of the random numbers; ``set_random_state`` starts them anew.

    Shape:
        label (B, C, H, W), 0 or 1 of any type. The result is empty for ``"none"``, otherwise it holds ``points``
        (B, C, N, 2) float32, x and y of pixel centres (the first pixel is 0, 0), and ``point_labels`` (B, C, N) int64:
        2 and 3 the box's top-left and bottom-right corner, which come first, 1 positive, 0 negative, -1 no prompt.

    Raises:
        ValueError: the mode is unknown, a jitter is out of its range, or a label has other dimensions.

    Example:
        >>> label = torch.zeros(1, 1, 8, 8)
        >>> label[..., 2:5, 3:7] = 1
        >>> SimulatePrompts(mode="box")(label)["points"].tolist()
        [[[[3.0, 2.0], [6.0, 4.0]]]]
    """

    def __init__(self, *, mode: str, box_jitter: float = 0.0, point_jitter: float = 0.0, seed: int = 0) -> None:
        for name, jitter in (("box_jitter", box_jitter), ("point_jitter", point_jitter)):
            if not 0 <= jitter < 0.5:
                raise ValueError(f"{name} must be at least 0 and less than 0.5, not {jitter}.")
        self.positives, self.negatives, self.box = look_up_option(mode, _MODES)
        self.mode = mode
        self.box_jitter, self.point_jitter = box_jitter, point_jitter
        self.set_random_state(seed=seed)

    def __call__(self, label: Tensor) -> dict[str, Tensor]:
        if label.ndim != 4:
            raise ValueError(f"label must be (B, C, H, W), not {tuple(label.shape)}.")
        if self.mode == "none":
            return {}
        masks = convert_to_tensor(label, track_meta=False).detach() > 0.5
        inner = _erode(masks).flatten(0, 1).cpu().numpy()
        outer = masks.flatten(0, 1).cpu().numpy()
        moves = 2 * self.positives * (self.point_jitter > 0)
        draws = self.R.random_sample((len(outer), 4 * self.box + self.positives + self.negatives + moves))
        prompts = [self._prompts(*item) for item in zip(outer, inner, draws, strict=True)]
        points, kinds = (np.stack(arrays) for arrays in zip(*prompts, strict=True))
        return {
            "points": torch.from_numpy(points).float().unflatten(0, label.shape[:2]).to(label.device),
            "point_labels": torch.from_numpy(kinds).long().unflatten(0, label.shape[:2]).to(label.device),
        }

    def _prompts(self, mask: np.ndarray, inner: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kinds = np.array([2, 3] * self.box + [1] * self.positives + [0] * self.negatives)
        points = np.zeros((len(kinds), 2))
        if not mask.any():
            return points, np.full_like(kinds, -1)
        if self.box:
            points[:2] = self._corners(mask, draws[:4])
        draws = draws[4 * self.box :]
        points[kinds == 1] = _pick(inner if inner.any() else mask, draws[: self.positives])
        if mask.all():
            kinds[kinds == 0] = -1
        else:
            points[kinds == 0] = _pick(~mask, draws[self.positives :][: self.negatives])
        if self.point_jitter:
            moved = points[kinds == 1] + _jitter(self.point_jitter, mask, draws[self.positives + self.negatives :])
            points[kinds == 1] = moved.round().clip(0, np.array(mask.shape[::-1]) - 1)
        return points, kinds

    def _corners(self, mask: np.ndarray, draws: np.ndarray) -> np.ndarray:
        corners = bounds_of(mask) + _jitter(self.box_jitter, mask, draws)
        return corners.clip(0, np.array(mask.shape[::-1]) - 1)


class CorrectionClicks(Randomizable):
    """
    Simulate the next click of an annotator who sees the mask so far: where it is wrong.

    Without a mask the whole object is missing, so the click is the first one. ``"middle"`` clicks the pixel deepest
    inside the largest connected error, which is how interactive methods are compared (Sofiiuk et al., RITM, arXiv
    2102.06583); ``"random"`` clicks any wrong pixel, which is how SAM is trained (Kirillov et al., arXiv 2304.02643).

    Args:
        where: ``"middle"`` or ``"random"``.
        seed: start of the random numbers; ``set_random_state`` starts them anew.

    Shape:
        label and pred (B, C, H, W), 0 or 1 of any type. The result holds ``points`` (B, C, 1, 2) float32, x and y of a
        pixel centre, and ``point_labels`` (B, C, 1) int64: 1 where the object was missed, 0 where something else was
        taken for it, -1 (no click) where nothing is wrong.

    Raises:
        ValueError: ``where`` is unknown, or the masks have other dimensions.

    Example:
        >>> label = torch.zeros(1, 1, 9, 9)
        >>> label[..., 2:5, 3:8] = 1
        >>> CorrectionClicks(where="middle")(label)
        {'points': tensor([[[[4., 3.]]]]), 'point_labels': tensor([[[1]]])}
    """

    def __init__(self, *, where: str, seed: int = 0) -> None:
        self.where = look_up_option(where, ("middle", "random"))
        self.set_random_state(seed=seed)

    def __call__(self, label: Tensor, pred: Tensor | None = None) -> dict[str, Tensor]:
        if label.ndim != 4 or (pred is not None and pred.shape != label.shape):
            shapes = f"{tuple(label.shape)}" + ("" if pred is None else f" and {tuple(pred.shape)}")
            raise ValueError(f"label and pred must be (B, C, H, W) and alike, not {shapes}.")
        truth = (convert_to_tensor(label, track_meta=False).detach() > 0.5).flatten(0, 1).cpu().numpy()
        mask = np.zeros_like(truth)
        if pred is not None:
            mask = (convert_to_tensor(pred, track_meta=False).detach() > 0.5).flatten(0, 1).cpu().numpy()
        points, kinds = np.zeros((len(truth), 1, 2)), np.full((len(truth), 1), -1)
        # Drawn for all, so that what one object looks like does not move the clicks of the next.
        for index, draw in enumerate(self.R.random_sample(len(truth))):
            missed, taken = truth[index] & ~mask[index], mask[index] & ~truth[index]
            wrong = _deepest(missed, taken) if self.where == "middle" else missed | taken
            if wrong.any():
                points[index] = _pick(wrong, np.array([draw]))
                x, y = points[index, 0].astype(int)
                kinds[index] = int(truth[index, y, x])
        return {
            "points": torch.from_numpy(points).float().unflatten(0, label.shape[:2]).to(label.device),
            "point_labels": torch.from_numpy(kinds).long().unflatten(0, label.shape[:2]).to(label.device),
        }


def _deepest(*errors: np.ndarray) -> np.ndarray:
    """The one pixel deepest inside the largest connected part of the errors; nothing if there are none."""
    parts = [(labelled == number) for labelled, count in map(ndimage.label, errors) for number in range(1, count + 1)]
    if not parts:
        return np.zeros_like(errors[0])
    largest = max(parts, key=np.count_nonzero)
    # Past the edge of the image lies nothing to click: the edge counts as the object's.
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    chosen = np.zeros_like(largest)
    chosen[np.unravel_index(depth.argmax(), depth.shape)] = True
    return chosen


def bounds_of(mask: np.ndarray) -> np.ndarray:
    """The corners of the label, x0 y0 and x1 y1, both inside it."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([[xs[0], ys[0]], [xs[-1], ys[-1]]], dtype=float)


def _jitter(jitter: float, mask: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Moves in x and y, one for each pair of draws, as large as this part of the label's width and height."""
    first, last = bounds_of(mask)
    return jitter * (last - first + 1) * (2 * draws.reshape(-1, 2) - 1)


def _pick(mask: np.ndarray, draws: np.ndarray) -> np.ndarray:
    chosen = np.flatnonzero(mask)[(draws * mask.sum()).astype(int)]
    return np.stack([chosen % mask.shape[1], chosen // mask.shape[1]], -1)


def _erode(masks: Tensor) -> Tensor:
    # Past the edge of the image the object goes on, as far as anyone can tell: max_pool2d pads with -inf.
    return F.max_pool2d((~masks).float(), 2 * _EROSION + 1, stride=1, padding=_EROSION) == 0
