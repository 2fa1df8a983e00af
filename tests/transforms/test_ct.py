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


"""Windows of Hounsfield units, neighbouring slices, foreground, and masks on other grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Orientation

from monai_ext.transforms import (
    CT_WINDOWS,
    CheckGridsd,
    CTForeground,
    CTWindows,
    CTWindowsd,
    NeighbouringSlices,
    NeighbouringSlicesd,
)

AFFINE = torch.tensor([[-2.0, 0, 0, 40], [0, 1.5, 0.3, -30], [0, 0, 5, 100], [0, 0, 0, 1]], dtype=torch.float64)


@given(st.floats(-1024, 3071), st.sampled_from(sorted(CT_WINDOWS)))
def test_a_window_is_linear_inside_and_flat_outside(value: float, name: str) -> None:
    level, width = CT_WINDOWS[name]
    shown = CTWindows(windows=[name])(torch.tensor([[value]])).item()
    assert shown == pytest.approx(min(max((value - level) / width + 0.5, 0), 1), abs=1e-5)


def test_windows_are_channels_and_keep_the_metadata() -> None:
    image = Orientation("LPS", labels=None)(MetaTensor(torch.randn(1, 4, 5, 6) * 500, affine=AFFINE))
    item = CTWindowsd(keys="image")({"image": image})
    assert item["image"].shape == (3, 4, 5, 6) and item["image"].dtype == torch.float32
    assert item["image"].affine.equal(image.affine) and len(item["image"].applied_operations) == 1
    assert CTWindows(windows=[[40, 400]])(np.zeros((2, 3), np.int16)).shape == (2, 3)


@pytest.mark.parametrize("windows", [[], ["spine"], [[40, 0]], [[1, 2, 3]]])
def test_windows_that_are_none_are_refused(windows: list) -> None:
    with pytest.raises(ValueError, match="window"):
        CTWindows(windows=windows)


def test_neighbours_of_a_slice_are_its_channels() -> None:
    image = MetaTensor(torch.randn(1, 3, 4, 7), affine=AFFINE)
    found = NeighbouringSlicesd(keys="image", count=5)({"image": image})["image"]
    assert found.shape == (5, 3, 4, 7) and found.affine.equal(image.affine)
    for place in range(7):
        for channel, step in enumerate(range(-2, 3)):
            neighbour = min(max(place + step, 0), 6)
            assert found[channel, ..., place].equal(image[0, ..., neighbour])
    with pytest.raises(ValueError, match="odd"):
        NeighbouringSlices(count=2)
    with pytest.raises(ValueError, match=r"\(1, X, Y, Z\)"):
        NeighbouringSlices()(torch.zeros(2, 3, 3, 3))


def test_air_is_no_foreground_and_lung_and_bone_are() -> None:
    values = torch.tensor([-1024.0, -1000, -930, -800, 40, 900]).reshape(1, 1, -1)
    shown = CTWindows()(values)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert CTForeground()(((shown - mean) / std)[None]).flatten().tolist() == [False] * 3 + [True] * 3


def test_a_mask_on_another_grid_is_named() -> None:
    def item(affine: torch.Tensor, shape: tuple[int, ...] = (1, 4, 5, 6)) -> dict[str, MetaTensor]:
        image = MetaTensor(torch.zeros(1, 4, 5, 6), affine=AFFINE, meta={"filename_or_obj": "ct.nii.gz"})
        return {"image": image, "label": MetaTensor(torch.zeros(shape), affine, {"filename_or_obj": "mask.nii.gz"})}

    check = CheckGridsd(keys=["image", "label"])
    assert check(item(AFFINE + 1e-5)).keys() == {"image", "label"}
    flipped = AFFINE @ torch.diag(torch.tensor([-1.0, 1, 1, 1])).double()
    for bad in (item(flipped), item(AFFINE * torch.tensor([1, 1, 1.05, 1])), item(AFFINE, (1, 4, 6, 5))):
        with pytest.raises(ValueError, match="ct.nii.gz and its label mask.nii.gz lie on different grids: 4x5x6"):
            check(bad)
