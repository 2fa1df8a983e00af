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

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ext.transforms import RandBrightLesionsd


def photograph(height: int = 40, width: int = 48) -> dict[str, torch.Tensor]:
    """A dim round eye with a bright disc on black."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    eye = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 2) ** 2).float()
    disc = ((y - height / 2) ** 2 + (x - width / 4) ** 2 < 16).float()
    image = torch.stack([0.4 * eye, 0.2 * eye, 0.1 * eye]) + 0.4 * disc
    return {"image": image, "label": disc[None]}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), largest=st.floats(0.05, 1))
def test_only_the_eye_without_its_disc_gets_brighter(seed, count, largest):
    item = photograph()
    before = item["image"].clone()
    paint = RandBrightLesionsd(keys="image", label_key="label", prob=1.0, count=count, largest=largest)
    found = paint.set_random_state(seed=seed)(item)["image"]
    changed = ((found - before).abs() > 1e-6).any(0)
    assert not (changed & (item["label"][0] > 0)).any()
    assert not (changed & (before.amax(0) == 0)).any()
    assert (found >= before - 1e-6).all() and found.max() <= 1
    assert torch.equal(item["image"], before)


def test_nearly_every_draw_can_be_seen():
    item = photograph()
    paint = RandBrightLesionsd(keys="image", label_key="label", prob=1.0).set_random_state(seed=0)
    seen = [bool((paint(item)["image"] - item["image"]).max() > 0.1) for _ in range(40)]
    assert sum(seen) > 30


def test_a_seed_repeats_the_lesions_and_all_keys_get_the_same():
    item = photograph() | {"second": photograph()["image"]}
    found = [
        RandBrightLesionsd(keys=["image", "second"], label_key="label", prob=1.0).set_random_state(seed=3)(item)
        for _ in range(2)
    ]
    assert torch.equal(found[0]["image"], found[1]["image"])
    assert torch.equal(found[0]["image"], found[0]["second"])


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("black", {"image": torch.zeros(3, 9, 9), "label": torch.zeros(1, 9, 9)}),
        ("all label", {"image": torch.ones(3, 9, 9), "label": torch.ones(1, 9, 9)}),
    ],
)
def test_where_nothing_can_be_painted_nothing_is(name, item):
    paint = RandBrightLesionsd(keys="image", label_key="label", prob=1.0).set_random_state(seed=0)
    assert torch.equal(paint(item)["image"], item["image"]), name


def test_not_every_item_gets_lesions():
    paint = RandBrightLesionsd(keys="image", label_key="label", prob=0.5).set_random_state(seed=0)
    item = photograph()
    painted = sum(not torch.equal(paint(item)["image"], item["image"]) for _ in range(40))
    assert 8 < painted < 32


@pytest.mark.parametrize(
    ("settings", "words"), [({"count": 0}, "count must be"), ({"largest": 0.0}, "largest must be")]
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(ValueError, match=words):
        RandBrightLesionsd(keys="image", label_key="label", **settings)
