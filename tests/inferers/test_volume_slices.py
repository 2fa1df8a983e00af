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


"""Volumes slice by slice: the same as MONAI's SliceInferer, in less memory, with prompts and a progress bar."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SliceInferer

from monai_ext.inferers import ForegroundSlidingWindowInferer, VolumeSlicesInferer
from monai_ext.transforms import SimulatePrompts


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("slices", [1, 3, 20])
@torch.no_grad()
def test_it_equals_slice_inferer(network: torch.nn.Module, slices: int) -> None:
    volume = torch.randn(2, 3, 24, 20, 7)
    windows = ForegroundSlidingWindowInferer(roi_size=[16, 12], overlap=0.25)
    found = VolumeSlicesInferer(inferer=windows, slices=slices)(volume, network)
    # MONAI's gives slices (X, Y) to the network, ours upright ones.
    upright = SliceInferer(roi_size=(16, 12), overlap=0.25, mode="constant", spatial_dim=2)
    theirs = upright(volume.transpose(2, 3), network).transpose(2, 3)
    assert torch.allclose(found, theirs, atol=1e-5)


def test_a_slice_is_upright(network: torch.nn.Module) -> None:
    volume = torch.arange(2 * 3 * 4.0).reshape(1, 1, 2, 3, 4)
    seen = []
    VolumeSlicesInferer(inferer=SimpleInferer())(volume, lambda pictures: seen.append(pictures) or pictures)
    assert [picture.shape for picture in seen] == [(1, 1, 3, 2)] * 4
    assert seen[1][0, 0, 2, 1] == volume[0, 0, 1, 2, 1]


def test_the_network_never_sees_more_than_the_slices_asked_for() -> None:
    sizes = []

    def network(pictures: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pictures))
        return pictures[:, :1].half()

    found = VolumeSlicesInferer(inferer=SimpleInferer(), slices=4)(torch.randn(1, 3, 8, 8, 10), network)
    assert sizes == [4, 4, 2] and found.dtype == torch.float16


def test_prompts_are_made_from_the_label_of_each_slice() -> None:
    label = torch.zeros(1, 1, 16, 12, 3)
    label[0, 0, 5, 7, 1] = 1
    seen = []

    def network(pictures: torch.Tensor, points: torch.Tensor | None = None, **_: torch.Tensor) -> torch.Tensor:
        seen.append(points)
        return pictures[:, :1]

    windows = ForegroundSlidingWindowInferer(roi_size=16, prompts=SimulatePrompts(mode="points_1"))
    VolumeSlicesInferer(inferer=windows)(torch.randn(1, 3, 16, 12, 3), network, label=label)
    (points,) = [points for points in seen if points is not None]
    # 16 x 12 is padded to the window of 16 x 16 along y by 2 on both sides.
    assert points.flatten().tolist() == [5, 9]


def test_metadata_stay_and_wrong_sizes_are_named() -> None:
    inferer = VolumeSlicesInferer(inferer=SimpleInferer())
    volume = MetaTensor(torch.zeros(1, 3, 4, 4, 2), affine=torch.eye(4) * 2, meta={"filename_or_obj": "a"})
    found = inferer(volume, lambda pictures: pictures[:, :1])
    assert found.meta["filename_or_obj"] == "a" and found.shape == (1, 1, 4, 4, 2)
    with pytest.raises(ValueError, match=r"inputs must be volumes \(B, C, X, Y, Z\)"):
        inferer(torch.zeros(1, 3, 4, 4), lambda pictures: pictures)
    with pytest.raises(ValueError, match="label must be volumes"):
        inferer(volume, lambda pictures: pictures, label=torch.zeros(1, 1, 4, 4, 3))
    with pytest.raises(ValueError, match="slices must be"):
        VolumeSlicesInferer(inferer=SimpleInferer(), slices=0)


@pytest.mark.parametrize(("depth", "shown"), [(20, False), (30, True)])
def test_many_slices_show_a_bar(depth: int, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    VolumeSlicesInferer(inferer=SimpleInferer())(torch.zeros(1, 3, 4, 4, depth), lambda pictures: pictures)
    assert ("Slices" in capsys.readouterr().err) == shown
