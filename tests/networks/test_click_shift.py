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

import copy

import pytest
import torch

from monai_ext.networks import ClickShift, SAM2Segmenter

CLICKS = {"points": torch.tensor([[[20.0, 30.0], [50.0, 10.0]]]), "point_labels": torch.tensor([[1, 0]])}
BOX = {"boxes": torch.tensor([[4.0, 8.0, 40.0, 50.0]])}


def network(reach: float = 0.1, **settings) -> SAM2Segmenter:
    return SAM2Segmenter(size="micro", weights="micro", click_shift=reach, **settings).eval()


def moving(net: SAM2Segmenter) -> SAM2Segmenter:
    torch.nn.init.normal_(net.click_shift.delta[-1].weight, generator=torch.Generator().manual_seed(0))
    return net


def images(count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_nothing_moves_before_training_and_boxes_and_labels_never_do():
    plain = SAM2Segmenter(size="micro", weights="micro").eval()
    with torch.no_grad():
        for net, prompts in ((network(), CLICKS), (moving(network()), BOX), (moving(network()), {})):
            assert torch.equal(net(images(), **prompts), plain(images(), **prompts))
        assert not torch.equal(moving(network())(images(), **CLICKS), plain(images(), **CLICKS))


@pytest.mark.parametrize("reach", [0.02, 0.5])
def test_positive_clicks_stay_within_reach_and_in_the_image(reach):
    net = moving(network(reach))
    torch.nn.init.constant_(net.click_shift.delta[-1].bias, 5.0)
    points = 63 * torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(1))
    kinds = torch.arange(40).remainder(5).sub(1).unsqueeze(0)  # -1 .. 3
    with torch.no_grad():
        features = net.encode(images()).features
        moved = net.click_shift(net.sam_prompt_encoder, points, kinds, features, (64, 64))
    assert torch.equal(moved[kinds != 1], points[kinds != 1])
    distance = (moved - points)[kinds == 1].abs()
    assert (distance.amax(-1) > 0).all() and distance.max() <= reach * 64 + 1e-4
    assert moved.min() >= 0 and moved.max() <= 63


def test_an_item_and_a_label_move_as_alone():
    net = moving(network(labels=["disc", "cup"]))
    points = torch.rand(2, 2, 3, 2) * 60
    kinds = torch.ones(2, 2, 3, dtype=torch.long)
    with torch.no_grad():
        together = net(images(2), points=points, point_labels=kinds)
        for item in range(2):
            alone = net(images(2)[item : item + 1], points=points[item : item + 1], point_labels=kinds[item : item + 1])
            torch.testing.assert_close(alone[0], together[item], atol=1e-4, rtol=1e-4)


def test_a_click_beside_the_object_learns_to_hit_it():
    """The loss of the mask reaches the click: only the shift is trained, and the mask gets better."""
    net = network(0.3)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    target = (((x - 40) ** 2 + (y - 32) ** 2) < 144).float()[None, None]
    image = torch.where(target > 0, 1.5, -1.0).repeat(1, 3, 1, 1)
    beside = {"points": torch.tensor([[[22.0, 32.0]]]), "point_labels": torch.tensor([[1]])}
    trained = list(net.click_shift.parameters())
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {
        "class_tokens.weight",
        *(f"click_shift.{n}" for n, _ in net.click_shift.named_parameters()),
    }
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    losses = []
    with torch.no_grad():
        embedding = net.encode(image)
    for _ in range(25):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net.decode(embedding, **beside)[0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.7 * losses[0]


def test_saved_loaded_and_told_apart():
    net = moving(network())
    other = network()
    other.load_state_dict(net.trained_state_dict())
    with torch.no_grad():
        assert torch.equal(other(images(), **CLICKS), net(images(), **CLICKS))
        assert torch.equal(copy.deepcopy(net)(images(), **CLICKS), net(images(), **CLICKS))
    assert net.describe()["click_shift"] == 0.1
    for wrong in (network(0.2), SAM2Segmenter(size="micro", weights="micro")):
        with pytest.raises(ValueError, match="nothing was loaded"):
            wrong.load_state_dict(net.trained_state_dict())


@pytest.mark.parametrize("reach", [-0.1, 1.5])
def test_reach_out_of_range(reach):
    with pytest.raises(ValueError, match="reach must be a part of the image"):
        ClickShift(reach=reach)
