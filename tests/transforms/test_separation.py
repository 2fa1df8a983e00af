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

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_ext.transforms import ConnectedInstancesd, SeparateInstances, SeparateInstancesd

CENTRES = [(20, 20), (20, 38), (20, 56), (50, 30), (55, 75)]


def discs(radius: int = 10) -> torch.Tensor:
    y, x = np.mgrid[:80, :100]
    inside = np.stack([(y - cy) ** 2 + (x - cx) ** 2 < radius**2 for cy, cx in CENTRES])
    return torch.from_numpy(inside.any(0)).float()[None]


@pytest.mark.parametrize("seeds", ["distance", "probability"])
def test_discs_that_touch_are_divided(seeds: str) -> None:
    mask = discs()
    assert ndimage.label(mask[0])[1] == 3
    probability = mask * 0.6
    if seeds == "probability":
        seeing = ndimage.gaussian_filter(sum(_dot(c) for c in CENTRES), 4)
        probability = probability + torch.from_numpy(0.35 * seeing / seeing.max()).float()[None] * mask
    objects = SeparateInstances(seeds=seeds, h=1 if seeds == "distance" else 0.02)(probability)
    assert objects.dtype == torch.int32 and objects.max() == 5
    assert len({int(objects[0, y, x]) for y, x in CENTRES}) == 5
    assert ((objects > 0) == (mask > 0)).all()


def _dot(centre: tuple[int, int]) -> np.ndarray:
    dot = np.zeros((80, 100))
    dot[centre] = 1
    return dot


def test_a_higher_h_divides_less() -> None:
    counts = [int(SeparateInstances(h=h)(discs()).max()) for h in (0.5, 1, 2, 8, 30)]
    assert counts[0] == 5 and counts[-1] == 3 and all(a >= b for a, b in pairwise(counts))


def test_smoothing_takes_out_the_hills_of_a_ragged_edge() -> None:
    ragged = discs(12) * torch.from_numpy(np.random.default_rng(0).random((80, 100)) > 0.03)
    plain, smooth = (
        SeparateInstances(h=0.5, fill_holes=False, smoothing=smoothing)(ragged)[0].numpy() for smoothing in (0, 2)
    )
    assert smooth.max() <= 8 and plain.max() > 2 * smooth.max()
    assert ((smooth > 0) == (plain > 0)).all()


@pytest.mark.parametrize("seed", range(4))
def test_objects_fill_the_mask_and_are_numbered_in_a_row(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((60, 70)), 2)
    probability = torch.from_numpy((noise - noise.min()) / np.ptp(noise)).float()[None]
    objects = SeparateInstances(fill_holes=False)(probability)[0].numpy()
    assert ((objects > 0) == (probability[0].numpy() > 0.5)).all()
    assert np.unique(objects).tolist() == list(range(objects.max() + 1))
    parts, _ = ndimage.label(objects > 0)
    for number in range(1, objects.max() + 1):
        assert len(np.unique(parts[objects == number])) == 1
    large = SeparateInstances(fill_holes=False, smallest=30)(probability)[0].numpy()
    assert np.bincount(large.ravel())[1:].min() >= 30 and large.max() < objects.max()


def test_holes() -> None:
    mask = discs()
    mask[0, 20, 20] = 0
    assert SeparateInstances()(mask)[0, 20, 20] > 0 and SeparateInstances(fill_holes=False)(mask)[0, 20, 20] == 0


def test_an_image_with_nothing_and_one_with_everything() -> None:
    assert SeparateInstances()(torch.zeros(1, 5, 6)).max() == 0
    assert SeparateInstances()(torch.ones(1, 5, 6)).unique().tolist() == [1]


def test_every_label_by_itself() -> None:
    item = SeparateInstancesd(keys="probability")({"probability": torch.cat([discs(), torch.zeros(1, 80, 100)])})
    assert item["instances"].amax((1, 2)).tolist() == [5, 0]


def test_numbered_objects_stay_and_masks_are_numbered() -> None:
    numbered = torch.tensor([[[5, 5, 2]]])
    assert ConnectedInstancesd(keys="label")({"label": numbered})["instances"].tolist() == [[[5, 5, 2]]]
    item = ConnectedInstancesd(keys="label", instances_key="objects")({"label": discs()})
    assert item["objects"].max() == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 1}, "threshold must be between"),
        ({"h": 0}, "h must be above 0"),
        ({"seeds": "x"}, "'x'"),
        ({"smoothing": -1}, "smoothing must be"),
    ],
)
def test_bad_settings(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SeparateInstances(**settings)


def test_bad_shape() -> None:
    with pytest.raises(ValueError, match=r"\(1, H, W\), not \(2, 4, 4\)"):
        SeparateInstances()(torch.zeros(2, 4, 4))
