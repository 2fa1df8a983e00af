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

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from label_pictures import draw_picture

from monai_ext.inferers import ClickTrialInferer
from monai_ext.label import ClickPrompts, ClickSegmenter, ModelShelf, RequestRefused
from monai_ext.networks import SAM2Segmenter
from monai_ext.transforms import CorrectionClicks

ROOT = Path(__file__).parents[2]
NUCLEI = "histology_nuclei_segmentation"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "tissue.png"
    draw_picture(path, seed=3)
    return path


@pytest.fixture
def shelf(tmp_path: Path) -> ModelShelf:
    return ModelShelf(bundles=ROOT / "bundles", state=tmp_path / "state")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of what was encoded so far."""
    sizes: list[tuple[int, ...]] = []
    encode = SAM2Segmenter.encode

    def counted(self: SAM2Segmenter, image: torch.Tensor) -> object:
        sizes.append(tuple(image.shape[-2:]))
        return encode(self, image)

    monkeypatch.setattr(SAM2Segmenter, "encode", counted)
    return sizes


def click(segmenter: ClickSegmenter, path: Path, **params: object) -> np.ndarray:
    size = segmenter.digests.picture(path)[1]
    return segmenter.segment(path, ClickPrompts.from_request(params, size, segmenter.model.labels))


def test_the_answers_are_those_of_the_trial_that_measures_the_base(shelf: ModelShelf, picture: Path) -> None:
    """Click for click what `ClickTrialInferer` gives, whose scores the model card has."""
    base = shelf.clicks["sam2_micro"]
    truth = torch.as_tensor(draw_picture(picture, seed=3)).float()[None, None]
    network = base.model.network().network
    with torch.no_grad():
        trial = ClickTrialInferer(clicks=3)(base.model.picture(picture)[None], network, label=truth)[0, :, 0].numpy()
    clicks, next_click = [], CorrectionClicks(where="middle")
    for number in range(3):
        wrong = None if number == 0 else torch.as_tensor(trial[number - 1])[None, None] > 0
        made = next_click(truth) if wrong is None else next_click(truth, wrong)
        clicks.append((made["points"][0, 0, 0].tolist(), int(made["point_labels"][0, 0, 0])))
        if number and not clicks[-1][1] == clicks[0][1] == 1:
            break  # the request lists clicks on the object first; another order is another question
        mask = click(base, picture, foreground=[point for point, _ in clicks])
        assert np.array_equal(mask, trial[number]), f"click {number + 1}"
        assert mask.any() and mask.shape == (80, 96)


def test_an_image_is_encoded_once_for_each_adapter(shelf: ModelShelf, picture: Path, encoded: list) -> None:
    first = click(shelf.clicks["sam2_micro"], picture, foreground=[[20, 20]])
    click(shelf.clicks["sam2_micro"], picture, foreground=[[20, 20], [24, 22]], background=[[60, 60]])
    click(shelf.clicks["sam2_micro"], picture, roi=[10, 10, 40, 40])
    assert encoded == [(80, 96)]
    click(shelf.clicks[f"{NUCLEI}_clicks"], picture, foreground=[[20, 20]], label="nucleus")
    assert len(encoded) == 2
    again = click(shelf.clicks["sam2_micro"], picture, foreground=[[20, 20]])
    assert len(encoded) == 2 and np.array_equal(first, again)


def test_the_content_counts_not_the_name(shelf: ModelShelf, picture: Path, tmp_path: Path, encoded: list) -> None:
    base, copy = shelf.clicks["sam2_micro"], tmp_path / "copy.png"
    shutil.copy(picture, copy)
    same = click(base, picture, foreground=[[20, 20]]), click(base, copy, foreground=[[20, 20]])
    assert np.array_equal(*same) and len(encoded) == 1
    draw_picture(copy, seed=4)
    click(base, copy, foreground=[[20, 20]])
    assert len(encoded) == 2


def test_answers_do_not_depend_on_what_is_remembered(tmp_path: Path, picture: Path, encoded: list) -> None:
    clicks = {"foreground": [[20, 20], [25, 25]], "background": [[70, 70]]}
    warm = ModelShelf(bundles=ROOT / "none", state=tmp_path / "warm").clicks["sam2_micro"]
    click(warm, picture, foreground=clicks["foreground"][:1])
    cold = ModelShelf(bundles=ROOT / "none", state=tmp_path / "cold", memory=0, disk=0).clicks["sam2_micro"]
    assert np.array_equal(click(warm, picture, **clicks), click(cold, picture, **clicks))
    restarted = ModelShelf(bundles=ROOT / "none", state=tmp_path / "warm").clicks["sam2_micro"]
    before = len(encoded)
    click(restarted, picture, **clicks)
    assert len(encoded) == before, "embeddings on disk outlive the server"


def test_large_pictures_are_encoded_around_the_click_only(shelf: ModelShelf, tmp_path: Path, encoded: list) -> None:
    path = tmp_path / "large.png"
    draw_picture(path, size=(900, 700))
    mask = click(shelf.clicks["sam2_micro"], path, foreground=[[600, 300]])
    assert encoded == [(224, 224)] and mask.shape == (700, 900)
    rows, columns = np.nonzero(mask)
    assert abs(rows - 300).max() < 224 and abs(columns - 600).max() < 224


def test_a_bundle_that_sees_the_whole_picture_reduced_is_clicked_so(
    shelf: ModelShelf, tmp_path: Path, encoded: list
) -> None:
    path = tmp_path / "large.png"
    draw_picture(path, size=(900, 700))
    assert click(shelf.clicks["fundus_disc_cup_segmentation_clicks"], path, foreground=[[600, 300]]).shape == (700, 900)
    assert encoded == [(348, 448)]


def test_an_earlier_mask_is_shown_to_the_network(shelf: ModelShelf, picture: Path) -> None:
    base = shelf.clicks["sam2_micro"]
    prompts = ClickPrompts(foreground=((20.0, 20.0),))
    drawn = np.zeros((80, 96), np.uint8)
    drawn[50:75, 60:90] = 1
    with_mask = base.segment(picture, prompts, drawn)
    assert not np.array_equal(with_mask, base.segment(picture, prompts))


def test_several_annotators_at_once_get_what_one_gets(shelf: ModelShelf, picture: Path, encoded: list) -> None:
    base = shelf.clicks["sam2_micro"]
    spots = [[20, 20], [60, 40], [30, 60], [80, 20]]
    alone = [
        click(
            ModelShelf(bundles=ROOT / "none", state=shelf.embeddings.folder / "x").clicks["sam2_micro"],
            picture,
            foreground=[s],
        )
        for s in spots[:1]
    ]
    found: dict[int, np.ndarray] = {}

    def annotate(number: int) -> None:
        found[number] = click(base, picture, foreground=[spots[number]])

    before = len(encoded)
    threads = [threading.Thread(target=annotate, args=(number,)) for number in range(len(spots))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encoded) == before + 1 and np.array_equal(found[0], alone[0])
    assert all(np.array_equal(found[n], click(base, picture, foreground=[spots[n]])) for n in found)


def test_a_model_that_was_never_trained_says_so(shelf: ModelShelf, picture: Path, tmp_path: Path) -> None:
    bundle = shelf.bundles["histology_gland_segmentation"]
    bundle.versions.shipped = tmp_path / "empty"
    with pytest.raises(RequestRefused, match="no trained model yet: .*POST /train/histology_gland") as caught:
        click(shelf.clicks["histology_gland_segmentation_clicks"], picture, foreground=[[20, 20]])
    assert caught.value.status == 409


@pytest.mark.parametrize(("content", "sentence"), [(b"", "empty"), (b"\x89PNG\r\n\x1a\n", "tissue.png")])
def test_bad_pictures(shelf: ModelShelf, tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "tissue.png"
    path.write_bytes(content)
    with pytest.raises(RequestRefused):
        click(shelf.clicks["sam2_micro"], path, foreground=[[1, 1]])


def test_a_truncated_picture_is_refused_with_its_name(shelf: ModelShelf, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(picture.read_bytes()[:2000])
    with pytest.raises(RequestRefused, match="cut.png") as caught:
        click(shelf.clicks["sam2_micro"], path, foreground=[[1, 1]])
    assert str(tmp_path) not in str(caught.value), "clients learn no paths of the server"
