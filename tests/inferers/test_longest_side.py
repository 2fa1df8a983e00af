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
from monai.inferers import SimpleInferer

from monai_ext.inferers import LongestSideInferer, PromptedInferer
from monai_ext.transforms import SimulatePrompts


@given(height=st.integers(1, 70), width=st.integers(1, 70), side=st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_the_network_sees_one_length_and_the_answer_has_the_images_size(height: int, width: int, side: int):
    seen = []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(image.shape[-2:])
        return image[:, :2]

    infer = LongestSideInferer(inferer=SimpleInferer(), longest_side=side)
    assert infer(torch.rand(2, 3, height, width), network).shape == (2, 2, height, width)
    assert max(seen[0]) == side
    assert abs(min(seen[0]) - side * min(height, width) / max(height, width)) <= 1


def test_an_image_of_that_size_is_left_as_it_is():
    image = torch.rand(1, 3, 20, 32)
    infer = LongestSideInferer(inferer=SimpleInferer(), longest_side=32)
    torch.testing.assert_close(infer(image, lambda x: x.square()), image.square())


def test_prompts_are_in_pixels_of_what_the_network_sees():
    label = torch.zeros(1, 1, 40, 80)
    label[..., 8:16, 40:60] = 1
    boxes = []

    def network(image, points, point_labels):
        boxes.append(points[0, 0].tolist())
        return image[:, :1]

    inferer = PromptedInferer(prompts=SimulatePrompts(mode="box"))
    LongestSideInferer(inferer=inferer, longest_side=40)(torch.zeros(1, 3, 40, 80), network, label=label)
    assert boxes == [[[20, 4], [29, 7]]]


@pytest.mark.parametrize("side", [0, -3, 2.5, "768"])
def test_the_length_must_be_a_whole_number(side):
    with pytest.raises(ValueError, match="longest_side must be a whole number of at least 1, not"):
        LongestSideInferer(inferer=SimpleInferer(), longest_side=side)
