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

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ext.data import PyramidWriter, Slide


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 800), width=st.integers(1, 1100), seed=st.integers(0, 9))
def test_what_was_written_in_any_order_is_read_on_every_level(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 3, (height, width), np.uint8)
    pixels[: height // 2] = 0
    path = tmp_path_factory.mktemp("pyramid") / "mask.tif"
    parts = [(y, x) for y in range(0, height, 512) for x in range(0, width, 512)]
    with PyramidWriter(path, size=(height, width), mpp=0.5) as mask:
        for y, x in rng.permutation(parts).tolist():
            mask.write(y, x, pixels[y : y + 512, x : x + 512])
        assert not path.exists()
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and all(page.is_tiled for page in file.pages)
        assert max(file.pages[len(file.pages) - 1].shape) <= 512
        for number, page in enumerate(file.pages):
            assert bool(page.subfiletype) == (number > 0)
            assert (page.asarray() == pixels[:: 2**number, :: 2**number]).all()
    assert list(path.parent.iterdir()) == [path]


def test_openslide_reads_it_with_its_resolution(tmp_path: Path) -> None:
    with PyramidWriter(tmp_path / "mask.tif", size=(700, 1100), mpp=0.25) as mask:
        mask.write(256, 512, np.full((256, 256), 255, np.uint8))
    slide = Slide(tmp_path / "mask.tif")
    assert slide.size == (700, 1100) and slide.mpp == pytest.approx(0.25)
    assert slide.read(250, 500, 10, 20)[0, 6, 12] == 1 and slide.read(250, 500, 10, 20)[0, 5, 12] == 0
    assert Slide(tmp_path / "mask.tif", mpp=0.5).size == (350, 550)


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PyramidWriter(tmp_path / "mask.tif", size=(700, 1100)) as mask:
        mask.write(0, 0, np.ones((256, 256), np.uint8))
        raise KeyError("a fault of the caller")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [(1, 0, 256, 256), (0, 0, 100, 256), (512, 0, 256, 256)])
def test_parts_that_do_not_fit(place: tuple[int, int, int, int], tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="whole tiles of 256 pixels"),
        PyramidWriter(tmp_path / "mask.tif", size=(700, 1100)) as mask,
    ):
        mask.write(place[0], place[1], np.ones(place[2:], np.uint8))
