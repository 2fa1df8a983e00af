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

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from monai.bundle import ConfigParser

from monai_ext.transforms import SimulatePrompts

KINDS = {
    "points_1": [1],
    "points_2": [1, 1],
    "points_5": [1] * 5,
    "points_5_1": [1] * 5 + [0],
    "box": [2, 3],
    "all": [2, 3] + [1] * 5 + [0],
}
LABELS = arrays.arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 2), st.integers(1, 12), st.integers(1, 12)))


def square() -> torch.Tensor:
    label = torch.zeros(1, 1, 32, 40)
    label[..., 5:20, 10:30] = 1
    return label


@settings(max_examples=60, deadline=None)
@given(label=LABELS, mode=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 99), jitter=st.sampled_from([0.0, 0.02]))
def test_every_prompt_is_true_of_its_label(label: np.ndarray, mode: str, seed: int, jitter: float) -> None:
    prompts = SimulatePrompts(mode=mode, seed=seed, box_jitter=jitter)(torch.from_numpy(label))
    assert prompts["points"].shape == (*label.shape[:2], len(KINDS[mode]), 2)
    assert prompts["points"].dtype == torch.float32
    assert prompts["point_labels"].dtype == torch.int64
    for index in np.ndindex(label.shape[:2]):
        mask, kinds = label[index], prompts["point_labels"][index].tolist()
        points = prompts["points"][index].numpy()
        assert np.isfinite(points).all()
        if not mask.any():
            assert set(kinds) == {-1}
            continue
        assert kinds == [-1 if kind == 0 and mask.all() else kind for kind in KINDS[mode]]
        for (x, y), kind in zip(points, kinds, strict=True):
            assert 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]
            if kind in (0, 1):
                assert mask[int(y), int(x)] == bool(kind)
        if 2 in kinds:
            ys, xs = np.nonzero(mask)
            truth = np.array([[xs.min(), ys.min()], [xs.max(), ys.max()]])
            assert np.abs(points[:2] - truth).max() <= jitter * max(mask.shape)
            assert (points[0] <= points[1]).all() or jitter


def test_modes_are_distinct() -> None:
    shown = {mode: tuple(SimulatePrompts(mode=mode)(square())["point_labels"].flatten().tolist()) for mode in KINDS}
    assert len(set(shown.values())) == len(KINDS)
    assert shown["points_5_1"] != shown["points_5"], "the negative point is missing"
    assert SimulatePrompts(mode="none")(square()) == {}


def test_positive_points_keep_off_the_edge_where_they_can() -> None:
    points = torch.cat([SimulatePrompts(mode="points_5", seed=seed)(square())["points"] for seed in range(40)])
    assert points[..., 0].min() == 12 and points[..., 0].max() == 27
    assert points[..., 1].min() == 7 and points[..., 1].max() == 17


def test_points_reach_every_pixel_of_the_label() -> None:
    label = torch.zeros(1, 1, 4, 4)
    label[0, 0, 1, :3] = 1
    points = torch.cat([SimulatePrompts(mode="points_5", seed=seed)(label)["points"] for seed in range(20)])
    assert {tuple(point) for point in points.flatten(0, -2).tolist()} == {(0, 1), (1, 1), (2, 1)}


def test_jitter_moves_the_box_a_little() -> None:
    label, exact = square(), [[10, 5], [29, 19]]
    moved = torch.stack(
        [SimulatePrompts(mode="box", box_jitter=0.02, seed=s)(label)["points"][0, 0] for s in range(50)]
    )
    distance = (moved - torch.tensor(exact)).abs().amax(0)
    assert (distance > 0.1).all()
    assert (distance <= torch.tensor([[0.4, 0.3]]) + 1e-5).all()


def test_jitter_moves_positive_points_off_and_nothing_else() -> None:
    label = square()
    exact, moved = (
        torch.cat([SimulatePrompts(mode="all", point_jitter=j, seed=s)(label)["points"][0] for s in range(60)])
        for j in (0.0, 0.4)
    )
    assert torch.equal(exact[:, [0, 1, 7]], moved[:, [0, 1, 7]])  # the box and the negative point
    distance = (exact - moved)[:, 2:7].abs().amax((0, 1))
    assert (distance > torch.tensor([6.0, 4.0])).all() and (distance <= torch.tensor([8.5, 6.5])).all()
    x, y = moved[:, 2:7].long().unbind(-1)
    on_the_label = label[0, 0][y, x].mean()
    assert 0.5 < on_the_label < 1


def test_same_seed_same_prompts() -> None:
    one, two = SimulatePrompts(mode="all", seed=3), SimulatePrompts(mode="all", seed=3)
    first = [one(square())["points"] for _ in range(3)]
    assert all(torch.equal(a, two(square())["points"]) for a in first)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(one.set_random_state(seed=3)(square())["points"], first[0])
    assert torch.equal(copy.deepcopy(one)(square())["points"], one(square())["points"])


def test_what_came_before_does_not_change_the_points() -> None:
    seen: list[Any] = []
    for before in (torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), square()):
        simulate = SimulatePrompts(mode="all")
        simulate(before)
        seen.append(simulate(square())["points"])
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_global_random_numbers_are_left_alone() -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    SimulatePrompts(mode="all")(square())
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("arguments", "label", "message"),
    [
        ({"mode": "points_3"}, square(), "points_3"),
        ({"mode": "box", "box_jitter": 0.5}, square(), "box_jitter must be"),
        ({"mode": "points_1", "point_jitter": -0.1}, square(), "point_jitter must be"),
        ({"mode": "box"}, square()[0], r"label must be \(B, C, H, W\), not \(1, 32, 40\)"),
    ],
)
def test_errors_name_what_is_wrong(arguments: dict[str, Any], label: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatePrompts(**arguments)(label)


def test_named_in_json() -> None:
    config = {"_target_": "monai_ext.transforms.SimulatePrompts", "mode": "points_5", "seed": 1}
    prompts = ConfigParser({"prompts": config}).get_parsed_content("prompts")(square())
    assert torch.equal(prompts["points"], SimulatePrompts(mode="points_5", seed=1)(square())["points"])
