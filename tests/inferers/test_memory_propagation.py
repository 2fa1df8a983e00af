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


"""SAM 2's memory in the network, and volumes followed by it: the same as Meta's own video predictor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_ext.inferers import EmbeddingCache, MemoryPropagationInferer
from monai_ext.networks import SAM2Segmenter
from monai_ext.networks.sam2 import VIDEO_ONLY

SIDE, DEPTH = 128, 7


@pytest.fixture(scope="module")
def official() -> Any:
    from sam2.build_sam import build_sam2_video_predictor

    model = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        device="cpu",
        apply_postprocessing=False,
        # What the postprocessing of Meta's predictor adds: memory holds what is shown on clicked slices.
        hydra_overrides_extra=[f"++model.image_size={SIDE}", "++model.binarize_mask_from_pts_for_mem_enc=true"],
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # many start at zero, where a mistake would not show
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def checkpoint(official: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": official.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> SAM2Segmenter:
    return SAM2Segmenter(size="tiny", weights=checkpoint, memory=True).eval()


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    return torch.randn(1, 3, SIDE, SIDE, DEPTH, generator=torch.Generator().manual_seed(1))


ONE = torch.tensor([[40.0, 90.0, 2.0]]), torch.tensor([1])
TWO_SLICES = torch.tensor([[40.0, 90.0, 2.0], [100.0, 30.0, 4.0], [10.0, 20.0, 4.0]]), torch.tensor([1, 1, 0])


def video_predictor(official: Any, volume: torch.Tensor, points: torch.Tensor, kinds: torch.Tensor, patch: Any) -> Any:
    """The logits of every frame; slices are frames whose rows run along y."""
    frames = volume[0].permute(3, 0, 2, 1)
    patch.setattr("sam2.sam2_video_predictor.load_video_frames", lambda **_: (frames, SIDE, SIDE))
    state = official.init_state("")
    for z in points[:, 2].unique().int().tolist():
        here = points[:, 2] == z
        official.add_new_points_or_box(state, z, 1, points=points[here][:, :2], labels=kinds[here])
    found = {}
    for reverse in (False, True):
        for z, _, masks in official.propagate_in_video(state, reverse=reverse):
            found[z] = masks[0, 0]
    return torch.stack([found[z].T for z in range(DEPTH)], -1)


@pytest.fixture()
def heads(official: Any, network: SAM2Segmenter) -> Iterator[list[torch.nn.Linear]]:
    """The last layers of what says whether a frame shows the object; put back afterwards."""
    layers = [model.sam_mask_decoder.pred_obj_score_head.layers[-1] for model in (official, network)]
    before = [layer.bias.detach().clone() for layer in layers]
    yield layers
    for layer, bias in zip(layers, before, strict=True):
        layer.bias.data.copy_(bias)


@pytest.mark.parametrize("prompt", [ONE, TWO_SLICES], ids=["one click", "clicks on two slices"])
def test_it_equals_metas_video_predictor(
    official: Any,
    network: SAM2Segmenter,
    heads: list[torch.nn.Linear],
    volume: torch.Tensor,
    prompt: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores: list[float] = []
    hook = heads[0].register_forward_hook(lambda _module, _given, score: scores.append(float(score) - 1000))
    for bias in (1000.0, None):
        for head in heads:  # with random weights no frame shows the object, or every one: then about half of them
            ordered = sorted(scores)
            middle = len(ordered) // 2
            head.bias.data.fill_(-(ordered[middle - 1] + ordered[middle]) / 2 if bias is None else bias)
        expected = video_predictor(official, volume, *prompt, monkeypatch)
        found = MemoryPropagationInferer(absent=None).propagate(volume, network, *prompt).logits()[0]
        seen = expected > -1000  # of a frame that does not show the object the predictor says -1024 everywhere
        count = int(seen.flatten(0, 1).any(0).sum())
        assert count == DEPTH if bias else 0 < count < DEPTH
        assert expected[seen].std() > 0.01
        torch.testing.assert_close(found, torch.where(seen, expected, -20.0), atol=1e-4, rtol=1e-4)
    hook.remove()


def test_memory_is_loaded_strictly_and_belongs_to_no_trained_part(network: SAM2Segmenter, checkpoint: Path) -> None:
    given = torch.load(checkpoint, weights_only=True)["model"]
    own = network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in given.items())
    plain = SAM2Segmenter(size="tiny", weights=checkpoint)
    assert not [key for key in plain.state_dict() if key.startswith(VIDEO_ONLY)]
    trained = plain.trained_state_dict()
    assert set(trained) == set(network.trained_state_dict())
    network.load_state_dict(trained)
    with pytest.raises(ValueError, match="memory_attention"):
        SAM2Segmenter(size="micro", weights="micro", memory=True)


@pytest.fixture(scope="module")
def small() -> SAM2Segmenter:
    return SAM2Segmenter(size="micro", memory=True).eval()


def test_slices_need_not_be_square(small: SAM2Segmenter) -> None:
    volume = torch.randn(1, 3, 90, 40, 3, generator=torch.Generator().manual_seed(0))
    click = torch.tensor([[70.0, 20.0, 1.0]]), torch.tensor([1])
    wide = MemoryPropagationInferer().propagate(volume, small, *click).logits()
    assert wide.shape == (1, 90, 40, 3) and wide.isfinite().all()
    # Slices in between of as many tokens, but upright, leaves nothing behind.
    MemoryPropagationInferer().propagate(torch.randn(1, 3, 40, 90, 3), small, click[0][:, [1, 0, 2]], click[1])
    again = MemoryPropagationInferer().propagate(volume, small, *click).logits()
    assert torch.equal(wide, again)


def test_it_stops_where_the_object_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SAM2Segmenter(size="micro", memory=True).eval()
    encoded: list[int] = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda image: [encoded.append(1), encode(image)][1])
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-1000.0)
    seen: list[tuple[int, int]] = []
    cache = EmbeddingCache()
    found = MemoryPropagationInferer(absent=2).propagate(
        torch.randn(1, 3, 32, 32, 12),
        network,
        torch.tensor([[16.0, 16.0, 5.0]]),
        torch.tensor([1]),
        cache=cache,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.slices == [] and len(encoded) == 5 and len(cache) == 5
    assert seen == [(done, 12) for done in range(13)]


def test_a_correction_is_shown_the_mask_and_can_be_cancelled(small: SAM2Segmenter) -> None:
    volume, cache = torch.randn(1, 3, 32, 32, 4), EmbeddingCache()
    infer = MemoryPropagationInferer(absent=None)
    points = torch.tensor([[16.0, 16.0, 1.0], [3.0, 4.0, 2.0]])
    first = infer.propagate(volume, small, points[:1], torch.tensor([1]), cache=cache)
    before = first.logits()
    second = infer.propagate(volume, small, points, torch.tensor([1, 0]), earlier=first, cache=cache)
    anew = infer.propagate(volume, small, points, torch.tensor([1, 0]), cache=cache)
    assert (2 in first.slices) == (not torch.equal(second.logits(), anew.logits()))
    with pytest.raises(CancelledError):
        infer.propagate(volume, small, points, torch.tensor([1, 0]), earlier=first, cancelled=lambda: True)
    assert torch.equal(first.logits(), before)


def test_errors() -> None:
    volume = torch.zeros(1, 3, 32, 32, 2)
    with pytest.raises(ValueError, match="network must have memory"):
        click = torch.tensor([[1.0, 1, 1]]), torch.tensor([1])
        MemoryPropagationInferer().propagate(volume, SAM2Segmenter(size="micro"), *click)
    with pytest.raises(ValueError, match="absent must be at least 1"):
        MemoryPropagationInferer(absent=0)
