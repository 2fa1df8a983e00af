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

import torch
from monai.inferers import SimpleInferer

from monai_ext.inferers import FlipAverageInferer, PromptedInferer
from monai_ext.transforms import SimulatePrompts


def test_an_even_network_gives_its_own_answer():
    image = torch.randn(2, 3, 8, 10)
    result = FlipAverageInferer(inferer=SimpleInferer())(image, lambda x: x.square())
    torch.testing.assert_close(result, image.square())


def test_the_average_does_not_depend_on_the_orientation():
    image = torch.randn(1, 1, 8, 10)
    infer = FlipAverageInferer(inferer=SimpleInferer())
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        upright = infer(image, network)
        for dims in ([-1], [-2], [-2, -1]):
            torch.testing.assert_close(infer(image.flip(dims), network), upright.flip(dims))
        assert not torch.allclose(upright, network(image), atol=1e-3)


def test_prompts_are_flipped_with_the_image():
    label = torch.zeros(1, 1, 8, 10)
    label[..., 1:3, 6:9] = 1
    boxes = []

    def network(image, points, point_labels):
        boxes.append(points[0, 0].tolist())
        return image[:, :1]

    FlipAverageInferer(inferer=PromptedInferer(prompts=SimulatePrompts(mode="box")))(
        torch.zeros(1, 3, 8, 10), network, label=label
    )
    assert boxes == [[[6, 1], [8, 2]], [[1, 1], [3, 2]], [[6, 5], [8, 6]], [[1, 5], [3, 6]]]
