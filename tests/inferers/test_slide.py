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

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from scipy.ndimage import gaussian_filter

from monai_ext.data import Slide
from monai_ext.inferers import SlideInferer


def network(windows: torch.Tensor) -> torch.Tensor:
    """Looks at the whole window, so that every other place of a window gives another answer."""
    return torch.cat([windows.cumsum(-1)[:, :1], windows.cumsum(-2)[:, 1:2] - windows.mean((1, 2, 3), keepdim=True)], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slides")


def write_slide(path: Path, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(height * width).random((height, width, 3))
    pixels = np.uint8(255 * gaussian_filter(noise, (2, 2, 0)))
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    return pixels


def put_together(inferer: SlideInferer, slide: Slide, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All tiles, and how often each pixel was given out."""
    whole, times = torch.full((2, *slide.size), torch.nan), torch.zeros(slide.size)
    for tile in inferer(slide, network, **kwargs):
        whole[:, tile.core[0], tile.core[1]] = tile.logits[:, tile.inner[0], tile.inner[1]]
        times[tile.core] += 1
    return whole, times


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(20, 150),
    width=st.integers(20, 150),
    roi=st.integers(8, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.6]),
    tile=st.integers(10, 90),
    margin=st.integers(0, 30),
    mode=st.sampled_from(["gaussian", "constant"]),
)
def test_tiles_are_the_whole_slide_without_a_seam(
    folder: Path, height: int, width: int, roi: int, overlap: float, tile: int, margin: int, mode: str
) -> None:
    path = folder / f"{height}x{width}.tif"
    if not path.exists():
        write_slide(path, height, width)
    pixels = tifffile.imread(path)
    inferer = SlideInferer(
        roi_size=roi, overlap=overlap, sw_batch_size=7, mode=mode, tile=tile, margin=margin, background=0
    )
    whole, times = put_together(inferer, Slide(path))
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0) / np.float32(255))[None]
    expected = SlidingWindowInferer(roi_size=[roi] * 2, overlap=overlap, mode=mode)(image, network)[0]
    assert (times == 1).all()
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-4)


def test_a_margin_is_what_the_neighbours_have(tmp_path: Path) -> None:
    write_slide(tmp_path / "slide.tif", 130, 140)
    slide = Slide(tmp_path / "slide.tif")
    whole, _ = put_together(SlideInferer(roi_size=24, tile=50), slide)
    for tile in SlideInferer(roi_size=24, tile=50, margin=17)(slide, network):
        height, width = tile.logits.shape[1:]
        there = whole[:, tile.top : tile.top + height, tile.left : tile.left + width]
        torch.testing.assert_close(tile.logits, there, rtol=1e-4, atol=1e-4)


def test_tiles_without_tissue_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slide(tmp_path / "slide.tif", 200, 200)
    slide = Slide(tmp_path / "slide.tif")
    read: list[tuple[int, ...]] = []
    reading = slide.read
    monkeypatch.setattr(slide, "read", lambda *place: read.append(place) or reading(*place))
    tissue = np.zeros((20, 20), bool)
    tissue[2:4, 9:11] = True
    inferer = SlideInferer(roi_size=16, overlap=0.25, tile=50, background=-9)
    whole, times = put_together(inferer, slide, tissue=tissue)
    assert len(read) == times.sum() / 2500 == 2
    assert [place[:2] for place in read] == [(0, 36), (0, 96)]
    everywhere, _ = put_together(inferer, slide, tissue=np.ones((1, 1), bool))
    torch.testing.assert_close(whole[:, 20:40, 90:110], everywhere[:, 20:40, 90:110], rtol=1e-4, atol=1e-4)
    assert (whole[:, :3, 130:150] == -9).all()


def test_memory_is_that_of_a_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slide(tmp_path / "slide.tif", 300, 400)
    slide = Slide(tmp_path / "slide.tif")
    sizes: list[int] = []
    reading = slide.read

    def read(*place: int) -> np.ndarray:
        sizes.append(place[2] * place[3])
        return reading(*place)

    monkeypatch.setattr(slide, "read", read)
    put_together(SlideInferer(roi_size=16, tile=64, margin=8), slide)
    assert max(sizes) <= (64 + 2 * (8 + 16)) ** 2


@pytest.mark.parametrize("wrong", [{"roi_size": 0}, {"tile": 0}, {"margin": -1}, {"overlap": 1}], ids=str)
def test_bad_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        SlideInferer(**{"roi_size": 8, **wrong})
