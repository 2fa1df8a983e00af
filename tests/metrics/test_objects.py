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

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance, compute_panoptic_quality

from monai_ext.metrics.objects import OBJECT_SCORES, object_scores

# Every number is an object, whatever its shape: more than any network would do wrong.
MAPS = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def objects(numbers: np.ndarray) -> list[set[tuple[int, int]]]:
    return [set(map(tuple, np.argwhere(numbers == n).tolist())) for n in np.unique(numbers) if n]


def hausdorff(a: set[tuple[int, int]], b: set[tuple[int, int]]) -> float:
    return max(max(min(math.dist(p, q) for q in two) for p in one) for one, two in ((a, b), (b, a)))


def by_the_book(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The definitions, pixel by pixel."""
    found, true = objects(pred), objects(truth)

    def iou(a: set, b: set) -> float:
        return len(a & b) / len(a | b)

    pairs = [iou(g, s) for g in true for s in found if iou(g, s) > 0.5]
    errors = len(true) + len(found) - 2 * len(pairs)
    shared, union, used = 0, 0, set()
    for g in true:
        best = max(range(len(found)), key=lambda j: iou(g, found[j]))
        if iou(g, found[best]):
            shared, union = shared + len(g & found[best]), union + len(g | found[best])
            used.add(best)
        else:
            union += len(g)
    union += sum(len(s) for j, s in enumerate(found) if j not in used)

    def one_way(ones: list[set], others: list[set]) -> tuple[float, float]:
        total, dice, distance = sum(map(len, ones)), 0.0, 0.0
        for one in ones:
            most = max(others, key=lambda other: len(one & other))
            dice += len(one) / total * 2 * len(one & most) / (len(one) + len(most))
            near = hausdorff(one, most) if one & most else min(hausdorff(one, other) for other in others)
            distance += len(one) / total * near
        return dice, distance

    (dice_g, far_g), (dice_s, far_s) = one_way(true, found), one_way(found, true)
    return {
        "object_f1": 2 * len(pairs) / (2 * len(pairs) + errors),
        "aji": shared / union,
        "pq": sum(pairs) / (len(pairs) + errors / 2),
        "object_dice": (dice_g + dice_s) / 2,
        "object_hausdorff": (far_g + far_s) / 2,
    }


@settings(max_examples=30, deadline=None)
@given(MAPS.filter(np.any), MAPS.filter(np.any))
def test_scores_are_their_definitions(pred: np.ndarray, truth: np.ndarray) -> None:
    assert object_scores(pred, truth) == pytest.approx(by_the_book(pred, truth))


@settings(max_examples=30, deadline=None)
@given(MAPS.filter(np.any), MAPS.filter(np.any))
def test_panoptic_quality_is_monais(pred: np.ndarray, truth: np.ndarray) -> None:
    ours = object_scores(pred, truth)
    for name, theirs in (("pq", "pq"), ("object_f1", "rq")):
        value = compute_panoptic_quality(torch.from_numpy(pred), torch.from_numpy(truth), metric_name=theirs)
        assert ours[name] == pytest.approx(float(value), abs=1e-5)


def test_the_distance_of_one_object_is_monais() -> None:
    pred, truth = np.zeros((2, 1, 1, 20, 30), np.int32)
    pred[..., 3:9, 4:12] = 1
    truth[..., 5:15, 6:25] = 1
    value = compute_hausdorff_distance(torch.from_numpy(pred), torch.from_numpy(truth), include_background=True)
    assert object_scores(pred[0, 0], truth[0, 0])["object_hausdorff"] == pytest.approx(value.item())


def test_known_values() -> None:
    truth = np.zeros((10, 40), int)
    truth[:, :10], truth[:, 20:30] = 7, 9
    assert object_scores(truth, truth) == dict.fromkeys(OBJECT_SCORES, 1.0) | {"object_hausdorff": 0.0}
    joined = (truth > 0).astype(int)
    joined[0, 10:20] = 1
    # One object of 210 pixels over two of 100: no pair above 0.5, one of the two is taken as the other's.
    scores = object_scores(joined, truth)
    assert (scores["object_f1"], scores["pq"]) == (0, 0)
    assert scores["aji"] == pytest.approx(200 / 420)
    assert scores["object_dice"] == pytest.approx(200 / 310)


@pytest.mark.parametrize("swap", [False, True])
def test_nothing_found_or_nothing_there(swap: bool) -> None:
    some, none = np.eye(4, dtype=int), np.zeros((4, 4), int)
    scores = object_scores(*((some, none) if swap else (none, some)))
    assert math.isnan(scores.pop("object_hausdorff")) and set(scores.values()) == {0.0}
    assert all(map(math.isnan, object_scores(none, none).values()))


def test_maps_of_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"not \(2, 2\) and \(2, 3\)"):
        object_scores(np.zeros((2, 2), int), np.zeros((2, 3), int))
