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

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from monai_ext.inferers import ClickRoundsInferer, ClickTrialInferer
from monai_ext.networks import SAM2Segmenter
from monai_ext.networks.segmenter import ImageEmbedding, MaskCandidates
from monai_ext.transforms import CorrectionClicks, SimulatePrompts


class Recorder:
    """Answers every prompt with the same masks and keeps the prompts."""

    labels = ("object",)

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask, self.encoded, self.prompts = mask, 0, []

    def encode(self, image: torch.Tensor) -> ImageEmbedding:
        self.encoded += 1
        feature = image[..., :1, :1]
        return ImageEmbedding(feature, (feature, feature), (image.shape[-2], image.shape[-1]))

    def candidates(self, embedding: ImageEmbedding, points: Any, point_labels: Any, masks: Any = None) -> Any:
        count = len(embedding.features)
        self.prompts.append(SimpleNamespace(points=points, kinds=point_labels, masks=masks))
        logits = (self.mask.float() * 20 - 10).expand(count, 1, 4, -1, -1) + torch.arange(4.0).reshape(4, 1, 1)
        return MaskCandidates(logits, torch.tensor([0.1, 0.2, 0.9, 0.3]).expand(count, 1, 4), torch.zeros(count, 1))


@pytest.fixture
def label() -> torch.Tensor:
    label = torch.zeros(2, 3, 32, 32)
    label[:, 0, 4:20, 4:20] = label[:, 1, 20:30, 8:28] = 1
    label[:, 2, 2:4, 25:28] = -1
    return label


@pytest.mark.parametrize("box", [0.0, 1.0])
def test_rounds_correct_the_mask(label: torch.Tensor, box: float) -> None:
    network = Recorder(label[0, 0])
    answers = ClickRoundsInferer(rounds=3, box=box, box_jitter=0)(torch.rand(2, 3, 32, 32), network, label=label)
    assert network.encoded == 1
    assert [tuple(answer.logits.shape) for answer in answers] == [(2, 3, 4, 32, 32)] * 3
    first, second, third = network.prompts
    assert first.masks is None and first.kinds[0, 0].tolist() == ([2, 3] if box else [1])
    # The first object was found, the second missed, and what was answered to the decoy is left alone.
    assert third.kinds[0, 0, -2:].tolist() == [-1, -1]
    assert all(kind in (0, 1) for kind in third.kinds[1, 0, -2:].tolist())
    assert third.kinds[2, 0, -2:].tolist() == [-1, -1]
    for row, kind in zip(third.points[1, 0, -2:].int().tolist(), third.kinds[1, 0, -2:].tolist(), strict=True):
        assert label[0, 1, row[1], row[0]] == kind
    # From a point the best of the three goes on, from a box the single one.
    assert second.masks.max() == (10 if box else 12)


def test_rounds_train_the_network(label: torch.Tensor) -> None:
    network = SAM2Segmenter(size="micro", train=["*"])
    answers = ClickRoundsInferer(rounds=2)(torch.rand(2, 3, 32, 32), network, label=label)
    sum(answer.logits.mean() + answer.iou.mean() + answer.object_score.mean() for answer in answers).backward()
    silent = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []


def test_the_seed_decides(label: torch.Tensor) -> None:
    prompts = []
    for _ in range(2):
        network = Recorder(label[0, 0])
        ClickRoundsInferer(seed=5)(torch.rand(2, 3, 32, 32), network, label=label)
        prompts.append(torch.cat([p.points.flatten() for p in network.prompts]))
    assert torch.equal(*prompts)


@pytest.mark.parametrize("chunk", [1, 2, 16])
@pytest.mark.parametrize("box", [False, True])
def test_a_trial_is_of_each_object_alone(label: torch.Tensor, box: bool, chunk: int) -> None:
    truth = label[:1, :2]
    network = SAM2Segmenter(size="micro", seed=2).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        together = ClickTrialInferer(clicks=3, box=box, chunk=chunk)(image, network, label=truth)
        alone = [ClickTrialInferer(clicks=3, box=box)(image, network, label=truth[:, k : k + 1]) for k in range(2)]
    assert together.dtype == torch.uint8 and torch.equal(together, torch.cat(alone, 2))


@pytest.mark.parametrize("window", [None, 24])
@pytest.mark.parametrize("box", [False, True])
def test_jitter_moves_the_first_prompts_the_same_way_every_time(
    label: torch.Tensor, box: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, image = SAM2Segmenter(size="micro", seed=2).eval(), torch.rand(1, 3, 32, 32)
    truth, other = label[:1, :2], label[:1, :2].roll(1, -1).clone()
    other[0, 0, 5, 5] = 0  # another image: another hand
    shown: list[torch.Tensor] = []
    inner = network.candidates
    monkeypatch.setattr(network, "candidates", lambda e, p, *a, **k: [shown.append(p), inner(e, p, *a, **k)][1])
    settings = {"clicks": 1, "box": box, "window": window, "jitter": 0.4}
    with torch.no_grad():
        for objects in (truth, truth, other):
            ClickTrialInferer(**settings)(image, network, label=objects)
        ClickTrialInferer(**settings, chunk=1)(image, network, label=truth)
    moved, again, elsewhere = shown[:3]
    assert torch.equal(moved, again) and torch.equal(moved, torch.cat(shown[3:]))
    if window is None:
        assert not torch.equal(moved, elsewhere)
        exact = (SimulatePrompts(mode="box") if box else CorrectionClicks(where="middle"))(truth[0].unsqueeze(1))
        sides = torch.tensor([[16.0, 16.0], [20.0, 10.0]])[:, None, None]
        distance = (moved - exact["points"]).abs()
        assert distance.max() >= 1 and (distance <= 0.4 * sides + 0.5).all()
    elif not box:  # the square is cut around the moved click, so that it tells nothing of where the object is
        assert (moved == window // 2).all()


@pytest.mark.parametrize("side", [9, 16])
@pytest.mark.parametrize("box", [False, True])
def test_a_window_is_the_image_cut_out(label: torch.Tensor, box: bool, side: int) -> None:
    network = SAM2Segmenter(size="micro", seed=2).eval()
    image, truth = torch.rand(1, 3, 32, 32), torch.zeros(1, 2, 32, 32)
    truth[0, 0, 10:15, 12:17] = truth[0, 1, 0:3, 27:32] = 1  # the middles are 12, 14 and 1, 29
    with torch.no_grad():
        masks = ClickTrialInferer(clicks=2, box=box, window=side)(image, network, label=truth)
        rows, columns = (slice(middle - side // 2, middle - side // 2 + side) for middle in (12, 14))
        part = truth[:, :1, rows, columns]
        cut = ClickTrialInferer(clicks=2, box=box)(image[..., rows, columns], network, label=part)
    assert masks.shape == (1, 2, 2, 32, 32)
    assert torch.equal(masks[:, :, :1, rows, columns], cut)
    masks[:, :, :1, rows, columns] = 0
    masks[:, :, 1:, : 2 + side, 28 - side :] = 0
    assert not masks.any()


def test_a_trial_clicks_the_middle(label: torch.Tensor) -> None:
    network = Recorder(torch.zeros(32, 32))
    ClickTrialInferer(clicks=2)(torch.rand(1, 3, 32, 32), network, label=label[:1, :1])
    first, second = network.prompts
    assert first.points.shape == (1, 1, 1, 2) and second.points.shape == (1, 1, 2, 2)
    assert all(10 <= value <= 13 for value in first.points.flatten().tolist())
    assert second.masks is not None and second.kinds.tolist() == [[[1, 1]]]


@pytest.mark.parametrize("inferer", [ClickRoundsInferer, ClickTrialInferer])
def test_a_label_is_needed(inferer: type) -> None:
    with pytest.raises(ValueError, match="label must be given"):
        inferer()(torch.rand(1, 3, 32, 32), Recorder(torch.zeros(32, 32)))


def test_errors(label: torch.Tensor) -> None:
    for make, message in (
        (lambda: ClickRoundsInferer(rounds=0), "rounds must be at least 1"),
        (lambda: ClickRoundsInferer(box=1.5), "box must be"),
        (lambda: ClickTrialInferer(clicks=0), "clicks must be at least 1"),
        (lambda: ClickTrialInferer(window=0), "window must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="one image"):
        ClickTrialInferer()(torch.rand(2, 3, 32, 32), Recorder(label[0, 0]), label=label)
    with pytest.raises(ValueError, match="one label for all objects, not disc, cup"):
        network = SAM2Segmenter(size="micro", labels=["disc", "cup"])
        ClickRoundsInferer()(torch.rand(2, 3, 32, 32), network, label=label)
