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


"""Clicks on slices become masks of volumes: what follows from where, what a correction leaves alone, where it ends."""

from __future__ import annotations

from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from ct_phantoms import ct_phantom, write_nifti, write_series
from monai.transforms import (
    ApplyTransformToPointsd,
    Compose,
    EnsureTyped,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Spacingd,
)

from monai_ext.data import VolumeReader
from monai_ext.inferers import EmbeddingCache, MaskPropagationInferer, PropagatedObject
from monai_ext.inferers.propagated_object import SliceAnswer
from monai_ext.networks import SAM2Segmenter
from monai_ext.networks.segmenter import ImageEmbedding, MaskCandidates
from monai_ext.transforms import CorrectionClicks, CTWindowsd


class Painter(torch.nn.Module):
    """
    Stands for a network: finds every object (a value of the picture) that is clicked or in the mask that is shown.

    What is clicked negatively it leaves out. Where nothing is left it predicts a bad mask.
    """

    labels = ("object",)

    def __init__(self) -> None:
        super().__init__()
        self.no_mem_embed = torch.nn.Parameter(torch.zeros(1))
        self.encoded = self.decoded = 0

    def encode(self, image: torch.Tensor) -> ImageEmbedding:
        self.encoded += 1
        return ImageEmbedding(image, (image, image), (image.shape[-2], image.shape[-1]))

    def candidates(self, embedding: ImageEmbedding, points: Any, point_labels: Any, masks: Any = None) -> Any:
        self.decoded += 1
        picture = embedding.features[0, 0].round()
        chosen = set() if masks is None else set(picture[masks[0, 0] > 0].tolist())
        for (x, y), kind in zip(points[0].int().tolist(), point_labels[0].tolist(), strict=True):
            if kind >= 0:
                (chosen.add if kind else chosen.discard)(float(picture[y, x]))
        mask = torch.isin(picture, torch.tensor([value for value in chosen if value], dtype=picture.dtype))
        found = torch.full((1, 1, 4), 0.9 if mask.any() else 0.1)
        return MaskCandidates((mask.float() * 20 - 10).expand(1, 1, 4, *mask.shape), found, torch.zeros(1, 1))


# X, Y and Z differ, and so do the places of the objects in x and y.
LONG, SHORT = (20.0, 8.0), (6.0, 12.0)


@pytest.fixture
def volume() -> torch.Tensor:
    """Two objects: one on all slices but the last two, one on slices 5 to 15."""
    volume = torch.zeros(1, 3, 30, 20, 22)
    volume[..., 15:26, 4:13, :20] = 1
    volume[..., 3:9, 10:16, 5:16] = 2
    return volume


def clicks(*rows: tuple[tuple[float, float], int, int]) -> dict[str, torch.Tensor]:
    """Clicks of a place in a slice, the number of the slice, and 1 or 0."""
    points = torch.tensor([[*place, z] for place, z, _ in rows], dtype=torch.float32)
    return {"points": points, "point_labels": torch.tensor([kind for _, _, kind in rows])}


BOTH = ((LONG, 10, 1), (SHORT, 10, 1))


def propagate(volume: torch.Tensor, network: Any, rows: Any, **settings: Any) -> PropagatedObject:
    return MaskPropagationInferer().propagate(volume, network, **clicks(*rows), **settings)


def same(one: PropagatedObject, other: PropagatedObject) -> bool:
    return torch.equal(one.logits(), other.logits())


def test_a_click_gives_the_object_up_to_its_end(volume: torch.Tensor) -> None:
    network = Painter()
    found = propagate(volume, network, [(LONG, 7, 1)])
    assert torch.equal(found.mask, (volume[:, 0] == 1).to(torch.uint8))
    assert found.slices == list(range(20))
    assert network.decoded == 21  # one slice without the object tells that it has ended; the last is not looked at


def test_the_inferer_gives_logits_as_an_evaluator_wants_them(volume: torch.Tensor) -> None:
    given = {name: value.unsqueeze(0) for name, value in clicks((LONG, 7, 1)).items()}
    logits = MaskPropagationInferer()(volume, Painter(), **given)
    assert logits.shape == (1, 1, 30, 20, 22)
    assert torch.equal(logits[0] > 0, volume[0, :1] == 1)


def test_a_correction_changes_what_lies_beyond_it_and_nothing_else(volume: torch.Tensor) -> None:
    network, cache = Painter(), EmbeddingCache()
    first = propagate(volume, network, BOTH, cache=cache)
    assert torch.equal(first.mask, (volume[:, 0] > 0).to(torch.uint8))
    before, network.decoded, network.encoded = first.mask, 0, 0
    second = propagate(volume, network, [*BOTH, (SHORT, 12, 0)], earlier=first, cache=cache)
    changed = (second.mask != before).flatten(0, 2).any(0).nonzero().flatten().tolist()
    # Slice 11 lies between the two clicked ones, which do not agree on it.
    assert changed == [11, 12, 13, 14, 15]
    assert network.decoded == 6  # those, and 16, where the mask turns out to be as it was
    assert network.encoded == 0
    assert torch.equal(first.mask, before)
    assert same(propagate(volume, network, [*BOTH, (SHORT, 12, 0)], earlier=second, cache=cache), second)


def test_clicks_on_a_corrected_slice_add_up_and_can_be_taken_back(volume: torch.Tensor) -> None:
    network = Painter()
    first = propagate(volume, network, BOTH)
    second = propagate(volume, network, [*BOTH, (SHORT, 12, 0)], earlier=first)
    third = propagate(volume, network, [*BOTH, (SHORT, 12, 0), (SHORT, 12, 1)], earlier=second)
    assert torch.equal(third.mask, first.mask)
    assert same(propagate(volume, network, BOTH, earlier=second), first)


def test_an_object_ends_where_something_else_lies(volume: torch.Tensor) -> None:
    volume[..., 12:] += (volume[..., 12:] == 1) * 0.4  # the painter takes it for the same
    rows = [(LONG, 7, 1)]
    assert propagate(volume, Painter(), rows).slices == list(range(12))
    found = MaskPropagationInferer(deviations=5).propagate(volume, Painter(), **clicks(*rows))
    assert found.slices == list(range(20))


@pytest.mark.parametrize("after", [0, 1, 5, 20])
def test_cancelling_leaves_what_was(volume: torch.Tensor, after: int) -> None:
    network, cache, stop = Painter(), EmbeddingCache(), Event()
    first = propagate(volume, network, BOTH, cache=cache)
    before = first.logits()
    rows = [*BOTH, (SHORT, 12, 0)]

    def progress(done: int, total: int) -> None:
        if done >= after:
            stop.set()

    with pytest.raises(CancelledError, match="cancelled after"):
        propagate(volume, network, rows, earlier=first, cache=cache, progress=progress, cancelled=stop.is_set)
    assert torch.equal(first.logits(), before)
    assert same(
        propagate(volume, network, rows, earlier=first, cache=cache), propagate(volume, network, rows, earlier=first)
    )


@pytest.mark.parametrize("rows", [[(LONG, 0, 1)], [(LONG, 21, 1)], BOTH, [(LONG, 3, 1), (SHORT, 15, 1)]])
def test_progress_goes_up_to_the_end(volume: torch.Tensor, rows: Any) -> None:
    seen: list[tuple[int, int]] = []
    propagate(volume, Painter(), rows, progress=lambda done, total: seen.append((done, total)))
    total = seen[0][1]
    assert seen == [(done, total) for done in range(total + 1)] and total > 20


@pytest.mark.parametrize("side", [8, 12, 64])
def test_the_window_goes_to_the_last_click(volume: torch.Tensor, side: int) -> None:
    infer, network = MaskPropagationInferer(window=side), Painter()
    first = infer.propagate(volume, network, **clicks((LONG, 10, 1)))
    second = infer.propagate(volume, network, **clicks(*BOTH), earlier=first)
    assert first.mask[0, 20, 8, 10] and not first.mask[0, 6, 12, 10] and second.mask[0, 6, 12, 10]


def test_an_object_that_is_not_there_any_more_can_be_clicked_away(volume: torch.Tensor) -> None:
    found = propagate(volume, Painter(), [(LONG, 7, 1), (LONG, 12, 0)])
    # Nothing was found on slice 12 before: the click says that it is empty, and the object ends there. What lies
    # between is what the slice below says.
    assert found.slices == list(range(12))


def test_between_two_clicked_slices_the_nearer_one_says_more() -> None:
    high, low = (SliceAnswer(torch.full((2, 3), value), iou) for value, iou in ((8.0, 0.9), (-8.0, 0.7)))
    found = PropagatedObject(
        size=(3, 2, 6),
        clicked={0: high, 4: low},
        upwards={1: high, 2: high, 3: None, 5: low},
        downwards={1: low, 2: None, 3: low},
    )
    values = [None if (answer := found.answer(z)) is None else float(answer.logits[0, 0]) for z in range(6)]
    assert values == [8, 4, 8, -8, -8, -8]
    assert found.answer(1).iou == 0.7
    assert found.slices == [0, 1, 2]


@pytest.mark.parametrize("megabytes", [0, 0.02, 0.1, 100])
def test_a_cache_changes_no_answer_and_stays_within_its_bound(volume: torch.Tensor, megabytes: float) -> None:
    network, cache = Painter(), EmbeddingCache(megabytes=megabytes)
    plain = propagate(volume, network, BOTH)
    encoded = network.encoded
    cached = propagate(volume, network, BOTH, cache=cache)
    assert same(plain, cached) and cache.bytes <= megabytes * 1e6
    network.encoded = 0
    propagate(volume, network, BOTH, cache=cache)
    # Slices without anything look alike, and are kept as one.
    assert network.encoded == (0 if megabytes == 100 else encoded) or 0 < len(cache) < encoded
    cache.clear()
    assert len(cache) == cache.bytes == 0


def test_the_cache_forgets_what_was_not_used_for_longest() -> None:
    pictures = [torch.full((1, 3, 4, 4), float(value)) for value in range(3)]
    encoded: list[float] = []

    def encode(image: torch.Tensor) -> ImageEmbedding:
        encoded.append(float(image[0, 0, 0, 0]))
        return ImageEmbedding(torch.zeros(1000), (torch.zeros(0), torch.zeros(0)), (4, 4))

    cache = EmbeddingCache(megabytes=0.008)  # two of them
    for number in (0, 1, 0, 2, 0, 1):
        cache.get(pictures[number], encode)
    assert encoded == [0, 1, 2, 1] and len(cache) == 2


def sphere(noise: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright ball in noise, and its mask."""
    grid = torch.meshgrid(*(torch.arange(float(side)) for side in (96, 80, 17)), indexing="ij")
    ball = ((grid[0] - 50) / 24) ** 2 + ((grid[1] - 36) / 20) ** 2 + ((grid[2] - 8) / 6.5) ** 2 < 1
    random = torch.randn(ball.shape, generator=torch.Generator().manual_seed(noise))
    return (ball * 2.5 - 1.2 + 0.2 * random).expand(1, 3, -1, -1, -1), ball


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.fixture(scope="module")
def micro() -> SAM2Segmenter:
    return SAM2Segmenter(size="micro", weights="micro").eval()


@pytest.mark.parametrize("window", [None, 64])
def test_micro_finds_a_ball_from_one_click(micro: SAM2Segmenter, window: int | None) -> None:
    volume, ball = sphere()
    found = MaskPropagationInferer(window=window).propagate(volume, micro, **clicks(((50.0, 36.0), 8, 1)))
    assert dice(found.mask[0] > 0, ball) > 0.85
    assert found.slices[0] >= 1 and found.slices[-1] <= 15  # the ball is on 2 to 14


def upright(paths: dict[str, Path]) -> tuple[Compose, dict[str, Any]]:
    """What the bundle for CT does to a volume, and to clicks in voxels of its file."""
    preprocessing = Compose(
        [
            LoadImaged("image", reader=VolumeReader(), ensure_channel_first=True),
            ApplyTransformToPointsd("points", refer_keys="image", invert_affine=False),
            EnsureTyped("points", track_meta=False),
            Orientationd("image", "LPS", labels=None),
            Spacingd("image", (1.0, 1.0, -1.0)),
            ApplyTransformToPointsd("points", refer_keys="image"),
            CTWindowsd(keys="image"),
            NormalizeIntensityd("image", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], channel_wise=True),
        ]
    )
    return preprocessing, preprocessing(paths)


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_clicks_on_a_file_give_a_mask_on_its_grid(kind: str, micro: SAM2Segmenter, tmp_path: Path) -> None:
    values, spleen = ct_phantom((72, 64, 8))
    if kind == "nifti":  # stored from left to right and from foot to head turned round
        affine = np.array([[2.0, 0, 0, -70], [0, -1.5, 0, 30], [0, 0, -5, 100], [0, 0, 0, 1]])
        values, spleen = values[::-1, :, ::-1], spleen[::-1, :, ::-1]
        path = write_nifti(tmp_path / "ct.nii.gz", values, affine)
    else:
        path = write_series(tmp_path / "ct", values)
    z = int(spleen.sum((0, 1)).argmax())
    truth = torch.as_tensor(spleen.copy())
    middle = CorrectionClicks(where="middle")(truth[..., z].T[None, None])
    x, y = middle["points"].flatten().tolist()
    preprocessing, item = upright({"image": path, "points": torch.tensor([[[x, y, float(z)]]])})
    item["pred"] = MaskPropagationInferer()(
        item["image"].unsqueeze(0), micro, points=item["points"].as_tensor(), point_labels=torch.tensor([[1]])
    )[0]
    found = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert found.shape[1:] == truth.shape
    assert dice(found.as_tensor()[0] > 0, truth) > 0.6


def test_the_real_spleen_from_one_click(micro: SAM2Segmenter, shared_data: Path) -> None:
    """The base was trained on this volume, so this is no accuracy; each of its slices is in the file four times."""
    folder = shared_data / "msd_spleen"
    load = Compose(
        [
            LoadImaged(["image", "label"], reader=VolumeReader(), ensure_channel_first=True),
            Orientationd(["image", "label"], "LPS", labels=None),
            CTWindowsd(keys="image", windows=["abdomen"] * 3),
            NormalizeIntensityd("image", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], channel_wise=True),
        ]
    )
    item = load({k: folder / f"{k}sTr" / "spleen_8.nii.gz" for k in ("image", "label")})
    image, truth = item["image"].as_tensor()[None, ..., ::4], item["label"].as_tensor()[0, ..., ::4] > 0
    z = int(truth.sum((0, 1)).argmax())
    middle = CorrectionClicks(where="middle")(truth[..., z].T[None, None])
    place = tuple(middle["points"].flatten().tolist())
    found = MaskPropagationInferer(window=224).propagate(image, micro, **clicks((place, z, 1)))
    assert dice(found.mask[0] > 0, truth) > 0.7
    assert set(truth.any(0).any(0).nonzero().flatten().tolist()) - set(found.slices) <= {2}


def test_errors(volume: torch.Tensor) -> None:
    network, click = Painter(), clicks((LONG, 7, 1))
    several = SAM2Segmenter(size="micro", labels=["liver", "spleen"])
    infer = MaskPropagationInferer()
    other = PropagatedObject(size=(1, 2, 3))
    box = {"points": torch.tensor([[1.0, 1, 1]]), "point_labels": torch.tensor([2])}
    for make, message in (
        (lambda: MaskPropagationInferer(window=4), "window must be at least 8"),
        (lambda: MaskPropagationInferer(least_iou=2), "least_iou must be"),
        (lambda: MaskPropagationInferer(smallest=0), "smallest must be"),
        (lambda: MaskPropagationInferer(settled=0), "settled must be"),
        (lambda: MaskPropagationInferer(deviations=0), "deviations must be"),
        (lambda: EmbeddingCache(megabytes=-1), "megabytes must be"),
        (lambda: infer(volume, network), "points and point_labels must be given"),
        (lambda: infer(volume[..., 0], network, **click), "one volume"),
        (lambda: infer(volume, several, **click), "label must be one of the network's labels .liver, spleen."),
        (lambda: infer(volume, network, label="liver", **click), "label must be one"),
        (lambda: infer(volume, network, earlier=other, **click), "earlier must be of a volume of .30, 20, 22."),
        (lambda: infer(volume, network, **clicks((LONG, 22, 1))), "inside the volume of .30, 20, 22. voxels, not at"),
        (lambda: infer(volume, network, **clicks(((float("nan"), 1), 2, 1))), "inside the volume"),
        (lambda: infer(volume, network, **clicks((LONG, 2, 0))), "at least one click on the object"),
        (lambda: infer(volume, network, **clicks((LONG, 2, 7))), "point_labels must be"),
        (lambda: infer(volume, network, **box), "both its corners"),
        (lambda: infer(volume, network, points=torch.zeros(2, 2), point_labels=torch.ones(2)), "points must be"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    assert network.decoded == network.encoded == 0
