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
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monai_ext.transforms import CorrectionClicks

MASK = arrays(bool, (2, 3, 9, 11))


@pytest.mark.parametrize("where", ["middle", "random"])
@settings(deadline=None)
@given(truth=MASK, mask=MASK)
def test_a_click_lies_where_the_mask_is_wrong(where: str, truth: np.ndarray, mask: np.ndarray) -> None:
    clicks = CorrectionClicks(where=where)(torch.from_numpy(truth), torch.from_numpy(mask))
    assert clicks["points"].shape == (2, 3, 1, 2) and clicks["points"].dtype == torch.float32
    for b, c in np.ndindex(2, 3):
        kind = int(clicks["point_labels"][b, c, 0])
        if (truth[b, c] == mask[b, c]).all():
            assert kind == -1
        else:
            x, y = clicks["points"][b, c, 0].int().tolist()
            assert truth[b, c, y, x] != mask[b, c, y, x] and kind == truth[b, c, y, x]


def test_the_middle_is_deepest_in_the_largest_error() -> None:
    truth = torch.zeros(1, 1, 20, 20)
    truth[..., 1:3, 1:3] = truth[..., 8:17, 5:14] = 1
    assert CorrectionClicks(where="middle")(truth)["points"].tolist() == [[[[9, 12]]]]
    found = torch.zeros_like(truth)
    found[..., 8:17, 5:14] = 1
    assert CorrectionClicks(where="middle")(truth, found)["points"][0, 0, 0].tolist() in [
        [1, 1],
        [1, 2],
        [2, 1],
        [2, 2],
    ]
    found[..., 0:20, 15:20] = 1
    taken = CorrectionClicks(where="middle")(truth, found)
    assert taken["point_labels"].item() == 0 and taken["points"][..., 0].item() >= 15


def test_one_object_does_not_move_the_clicks_of_the_next() -> None:
    first, second = torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9)
    label = torch.ones(1, 1, 9, 9)
    one = CorrectionClicks(where="random", seed=3)(torch.cat([first, label], 1))
    two = CorrectionClicks(where="random", seed=3)(torch.cat([second, label], 1))
    assert torch.equal(one["points"][:, 1], two["points"][:, 1])


@settings(deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_seed_decides(seed: int) -> None:
    label = torch.ones(1, 4, 30, 30)
    assert torch.equal(*(CorrectionClicks(where="random", seed=seed)(label)["points"] for _ in range(2)))


@pytest.mark.parametrize(
    ("arguments", "shapes", "message"),
    [
        ({"where": "corner"}, [(1, 1, 4, 4)], "corner"),
        ({"where": "middle"}, [(1, 4, 4)], r"not \(1, 4, 4\)"),
        ({"where": "middle"}, [(1, 1, 4, 4), (1, 1, 4, 5)], r"\(1, 1, 4, 4\) and \(1, 1, 4, 5\)"),
    ],
)
def test_errors(arguments: dict, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorrectionClicks(**arguments)(*(torch.zeros(shape) for shape in shapes))
