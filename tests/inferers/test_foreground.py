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

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from PIL import Image
from torch import Tensor

from monai_ext.inferers import ForegroundSlidingWindowInferer
from monai_ext.transforms import FundusForeground, SimulatePrompts


class Network:
    """A small convolution with two output channels, which remembers what it was given."""

    def __init__(self, channels: int = 3, stride: int = 1) -> None:
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(channels, 2, 3, padding=1, stride=stride)
        self.images: list[Tensor] = []
        self.given: list[dict[str, Any]] = []

    def __call__(self, image: Tensor, **given: Any) -> Tensor:
        self.images.append(image)
        self.given.append(given)
        with torch.no_grad():
            return self.convolution(image)

    @property
    def windows(self) -> int:
        return sum(map(len, self.images))


def fundus(batch: int = 1, height: int = 64, width: int = 96, radius: int = 22) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = ((y - height / 2) ** 2 + (x - width / 2) ** 2 <= radius**2).expand(batch, 1, -1, -1)
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1)), inside


def plain(image: Tensor, network: Callable[..., Tensor], roi_size: int = 16, **options: Any) -> Tensor:
    return SlidingWindowInferer(roi_size=roi_size, mode="constant", **options)(image, network)


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 2),
    roi_size=st.sampled_from([16, 24]),
    sw_batch_size=st.integers(1, 5),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    stride=st.sampled_from([1, 2]),
)
def test_foreground_gets_the_plain_result(
    batch: int, roi_size: int, sw_batch_size: int, overlap: float, stride: int
) -> None:
    image, inside = fundus(batch)
    options: dict[str, Any] = {"sw_batch_size": sw_batch_size, "overlap": overlap}
    every, some = Network(stride=stride), Network(stride=stride)
    truth = plain(image, every, roi_size, **options)
    inferer = ForegroundSlidingWindowInferer(roi_size=roi_size, foreground=lambda images: inside, **options)
    logits = inferer(image, some)
    kept = inside[:, :, ::stride, ::stride].expand_as(truth)
    torch.testing.assert_close(logits[kept], truth[kept], rtol=1e-5, atol=1e-5)
    assert some.windows < every.windows
    assert (logits[..., 0, 0] == -20).all()


def test_each_image_of_a_batch_has_its_own_foreground() -> None:
    image, _ = fundus(2)
    mask = torch.zeros(2, 1, 64, 96)
    mask[0, :, :16, :16] = 1
    mask[1, :, -16:, -16:] = 1
    network = Network()
    inferer = ForegroundSlidingWindowInferer(roi_size=16, overlap=0, sw_batch_size=3, foreground=lambda images: mask)
    logits = inferer(image, network)
    assert network.windows == 2
    ran = (logits != -20).all(1, keepdim=True)
    assert torch.equal(ran, mask.bool())


def test_without_foreground_it_is_monais_bit_for_bit() -> None:
    image, _ = fundus(2)
    logits = ForegroundSlidingWindowInferer(roi_size=[16, 24], sw_batch_size=4)(image, Network())
    monai = SlidingWindowInferer(roi_size=[16, 24], sw_batch_size=4, overlap=0.25, mode="constant")(image, Network())
    assert torch.equal(logits, monai)


def test_image_of_nothing_but_foreground_is_monais_bit_for_bit() -> None:
    image, _ = fundus()
    inferer = ForegroundSlidingWindowInferer(roi_size=16, sw_batch_size=4, foreground=lambda images: images[:, :1] < 99)
    assert torch.equal(inferer(image, Network()), plain(image, Network(), sw_batch_size=4))


@pytest.mark.parametrize("sw_batch_size", [1, 4, 1000])
def test_image_without_foreground_is_all_background(sw_batch_size: int) -> None:
    image, inside = fundus()
    network = Network()
    inferer = ForegroundSlidingWindowInferer(
        roi_size=16, sw_batch_size=sw_batch_size, foreground=lambda images: inside & False, background=-7.0
    )
    logits = inferer(image, network)
    assert logits.shape == (1, 2, 64, 96)
    torch.testing.assert_close(logits, torch.full_like(logits, -7))
    assert network.windows == 1


def test_image_smaller_than_the_window() -> None:
    image, inside = fundus(height=10, width=7, radius=4)
    inferer = ForegroundSlidingWindowInferer(roi_size=32, foreground=lambda images: inside)
    network = Network()
    logits = inferer(image, network)
    assert logits.shape == (1, 2, 10, 7)
    assert network.images[0].shape == (1, 3, 32, 32)
    assert torch.equal(logits, plain(image, Network(), roi_size=32))


def test_padding_is_background() -> None:
    image, inside = fundus(height=40, width=7, radius=30)
    inside = inside.clone()
    inside[..., 16:, :] = False
    network = Network()
    ForegroundSlidingWindowInferer(roi_size=16, overlap=0, foreground=lambda images: inside)(image, network)
    assert network.windows == 1


def test_arguments_and_metadata_pass_through() -> None:
    image, inside = fundus()
    image = MetaTensor(image, meta={"filename_or_obj": "eye.png"})
    network = Network()
    inferer = ForegroundSlidingWindowInferer(roi_size=16, foreground=lambda images: inside)
    logits = inferer(image, network, multimask=True, device=torch.device("cpu"))
    assert all(given == {"multimask": True} for given in network.given)
    monai = plain(image, Network())
    assert isinstance(logits, MetaTensor)
    assert logits.meta == monai.meta
    assert logits.is_batch == monai.is_batch
    assert not any(isinstance(window, MetaTensor) for window in network.images)


def test_label_without_prompts_is_not_used() -> None:
    image, _ = fundus()
    network = Network()
    ForegroundSlidingWindowInferer(roi_size=32)(image, network, label=torch.ones(1, 2, 64, 96))
    assert network.given and not any(network.given)


@pytest.mark.parametrize("foreground", [False, True])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), mode=st.sampled_from(["points_5_1", "all", "box"]), sw_batch_size=st.integers(1, 4))
def test_each_window_gets_prompts_of_its_own_part(foreground: bool, seed: int, mode: str, sw_batch_size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(2, 2, 4, 6, generator=generator) > 0.8).float().repeat_interleave(9, 2).repeat_interleave(9, 3)
    # The image carries its label, so that the network sees in each window what its prompts should fit.
    network = Network(channels=2)
    inferer = ForegroundSlidingWindowInferer(
        roi_size=16,
        sw_batch_size=sw_batch_size,
        foreground=(lambda images: images.amax(1, keepdim=True) > 0) if foreground else None,
        prompts=SimulatePrompts(mode=mode, seed=seed),
    )
    logits = inferer(label, network, label=label, extra=1)
    for windows, prompts in zip(network.images, network.given, strict=True):
        assert prompts.pop("extra") == 1
        if not prompts:
            assert not windows.any(), "a window with something to prompt was run without prompts"
            continue
        assert windows.flatten(1).any(1).all(), "a window with nothing to prompt was run with prompts"
        assert prompts["points"].shape[:2] == prompts["point_labels"].shape[:2] == windows.shape[:2]
        for index in np.ndindex(tuple(windows.shape[:2])):
            for (x, y), kind in zip(prompts["points"][index].long(), prompts["point_labels"][index], strict=True):
                if kind in (0, 1):
                    assert windows[index][y, x] == kind
                elif kind == 2:
                    assert windows[index][:, x].any() and windows[index][y].any()
    # Windows with and without prompts are put back in their places.
    inside = (label.amax(1) > 0) if foreground else torch.ones(2, 36, 54, dtype=torch.bool)
    truth = plain(label, Network(channels=2))
    torch.testing.assert_close(logits.movedim(1, -1)[inside], truth.movedim(1, -1)[inside], rtol=1e-5, atol=1e-5)


def test_mode_none_is_automatic() -> None:
    image, inside = fundus()
    network = Network()
    inferer = ForegroundSlidingWindowInferer(roi_size=16, sw_batch_size=2, prompts=SimulatePrompts(mode="none"))
    assert torch.equal(inferer(image, network, label=inside), plain(image, Network(), sw_batch_size=2))
    assert not any(network.given)


@pytest.mark.parametrize(
    ("options", "label", "message"),
    [
        ({"prompts": SimulatePrompts(mode="box")}, None, "label must be given when prompts are configured"),
        ({"prompts": SimulatePrompts(mode="box")}, torch.ones(1, 1, 96, 64), r"label must be .* not \(1, 1, 96, 64\)"),
        ({"foreground": lambda images: images}, None, r"foreground must make a mask of shape \(1, 1, 64, 96\)"),
    ],
)
def test_errors_come_before_the_network_runs(options: dict[str, Any], label: Tensor | None, message: str) -> None:
    image, _ = fundus()
    network = Network()
    with pytest.raises(ValueError, match=message):
        ForegroundSlidingWindowInferer(roi_size=16, **options)(image, network, label=label)
    assert not network.images


def test_named_in_json() -> None:
    config = {
        "inferer": {
            "_target_": "monai_ext.inferers.ForegroundSlidingWindowInferer",
            "roi_size": [16, 16],
            "sw_batch_size": 4,
            "foreground": {"_target_": "monai_ext.transforms.FundusForeground"},
            "prompts": {"_target_": "monai_ext.transforms.SimulatePrompts", "mode": "points_1"},
        }
    }
    image, inside = fundus()
    image = torch.where(inside, 1.0, -2.1).expand(-1, 3, -1, -1)
    network = Network()
    ConfigParser(config).get_parsed_content("inferer")(image, network, label=inside)
    assert all(given["points"].shape[1:] == (1, 1, 2) for given in network.given if given)
    assert 0 < network.windows < 40


def test_real_photograph_has_the_same_dice_from_fewer_windows(shared_data: Path) -> None:
    picture = Image.open(shared_data / "chase_db1" / "test" / "images" / "Image_11L.jpg").convert("RGB")
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    foreground = FundusForeground()
    mean, std = (torch.tensor(values)[:, None, None] for values in (foreground.mean, foreground.std))
    image = (image - mean) / std
    every, some = Network(), Network()
    truth = plain(image, every, roi_size=96, sw_batch_size=8) > 0
    inferer = ForegroundSlidingWindowInferer(roi_size=96, sw_batch_size=8, foreground=foreground)
    inside = foreground(image)
    found = inferer(image, some) > 0
    assert torch.equal(found & inside, truth & inside)
    assert some.windows < 0.95 * every.windows
