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

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_runs import run_bundle
from label_pictures import draw_picture
from PIL import Image

from monai_ext.label import ModelShelf, RequestRefused, disagreement, tune_adapter, uncertainty
from monai_ext.label.mask_files import index_mask, write_mask
from monai_ext.label.saved_labels import SavedLabel
from monai_ext.label.studies import FileDigests, check_name, inside
from monai_ext.label.tuning import read_settings

ROOT = Path(__file__).parents[2]
NUCLEI = "histology_nuclei_segmentation"


@pytest.fixture
def shelf(tmp_path: Path) -> ModelShelf:
    return ModelShelf(bundles=ROOT / "bundles", state=tmp_path / "state")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for number in range(3):
        discs = draw_picture(folder / f"{number}.png", size=(64, 48), seed=number)
        (folder / "labels").mkdir(exist_ok=True)
        write_mask(discs.astype(np.uint8), folder / "labels" / f"{number}.png")
    return folder


def test_the_automatic_mask_is_that_of_the_bundle(shelf: ModelShelf, studies: Path, tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / NUCLEI
    shelf.bundles[NUCLEI].config["image_size"] = 64  # as run_bundle shortens it
    run_bundle(bundle, "inference", dataset_dir=studies / "1.png", output_dir=tmp_path / "direct")
    direct = np.asarray(Image.open(tmp_path / "direct/1_mask.png")) > 0
    served = index_mask(shelf.bundles[NUCLEI].segment(studies / "1.png").masks).T
    assert served.shape == (48, 64) and served.any() and np.array_equal(served > 0, direct)


def test_tuning_makes_a_version_that_the_next_request_uses(shelf: ModelShelf, studies: Path, tmp_path: Path) -> None:
    model = shelf.bundles[NUCLEI]
    shipped = (model.root / "models/model.pt").read_bytes()
    before = model.network()
    saved = [SavedLabel(studies / f"{n}.png", studies / "labels" / f"{n}.png", {}) for n in range(3)]
    short = {"max_epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "image_size": 64}
    assert tune_adapter(model, saved, device="$torch.device('cpu')", **short) == 1
    after = model.network()
    assert after.identity != before.identity and model.network() is after
    assert (model.root / "models/model.pt").read_bytes() == shipped
    assert {path.name for path in (tmp_path / "state/adapters" / NUCLEI / "0001").iterdir()} == {
        "model.pt",
        "adapter.json",
    }
    changed = [k for k, v in after.network.state_dict().items() if not torch.equal(v, before.network.state_dict()[k])]
    assert changed and set(changed) <= set(before.network.trained_state_dict())
    model.versions.use(0)
    assert model.network().identity == before.identity


def test_too_few_labels_leave_everything_as_it_was(shelf: ModelShelf, studies: Path, tmp_path: Path) -> None:
    saved = [SavedLabel(studies / "0.png", studies / "labels/0.png", {})]
    with pytest.raises(RequestRefused, match="at least two pictures"):
        tune_adapter(shelf.bundles[NUCLEI], saved)
    assert not list((tmp_path / "state/adapters" / NUCLEI).iterdir())


def test_a_file_of_another_bundle_is_refused_and_the_old_one_goes_on(shelf: ModelShelf, tmp_path: Path) -> None:
    model = shelf.bundles[NUCLEI]
    other = ROOT / "bundles/fundus_disc_cup_segmentation/models/model.pt"
    with model.versions.new() as folder:
        (folder / "model.pt").write_bytes(other.read_bytes())
    with pytest.raises(RequestRefused, match="does not fit histology_nuclei_segmentation"):
        model.network()
    model.versions.use(0)
    assert model.network().network.labels == ["nucleus"]


def test_requests_while_a_version_changes(shelf: ModelShelf, studies: Path) -> None:
    model, seen = shelf.bundles[NUCLEI], []
    shipped = (model.root / "models/model.pt").read_bytes()

    def ask() -> None:
        seen.extend(model.network().identity for _ in range(30))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with model.versions.new() as folder:
        (folder / "model.pt").write_bytes(shipped)
    for thread in threads:
        thread.join()
    assert len(seen) == 90 and len(set(seen)) == 1


@pytest.mark.parametrize(
    "request_",
    [{"max_epochs": 0}, {"max_epochs": "5"}, {"steps_per_epoch": 1.5}, {"max_epochs": True}, {"batch_size": 10**9}],
)
def test_settings_that_make_no_sense(request_: dict) -> None:
    with pytest.raises(RequestRefused, match="must be a whole number from"):
        read_settings(request_)


def test_disagreement_is_what_answers_differ_by() -> None:
    p = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    assert (disagreement(p) >= 0).all() and (disagreement(p) <= np.log(2)).all()
    assert torch.allclose(disagreement(p[:1].expand(4, 5)), torch.zeros(5), atol=1e-6)


def test_uncertainty_is_higher_where_flips_disagree(
    shelf: ModelShelf, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shelf.bundles[NUCLEI]
    value = uncertainty(model, studies / "0.png")
    assert 0 <= value < np.log(2)
    monkeypatch.setattr(model, "logits", lambda path, flip: torch.full((1, 2, 2), 9.0 if flip else -9.0))
    assert uncertainty(model, studies / "0.png") > value
    monkeypatch.setattr(model, "logits", lambda path, flip: torch.full((1, 2, 2), 9.0))
    assert uncertainty(model, studies / "0.png") == pytest.approx(0, abs=1e-6)


def test_links_out_of_the_folder_are_not_followed(studies: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"x")
    (tmp_path / "studies").mkdir()
    link = tmp_path / "studies/link.png"
    link.symlink_to(outside)
    with pytest.raises(RequestRefused, match=r"link.png is a link that leads out") as caught:
        inside(link, tmp_path / "studies")
    assert caught.value.status == 403
    with pytest.raises(RequestRefused, match="not there any more"):
        inside(tmp_path / "studies/none.png", tmp_path / "studies")
    assert inside(studies / "0.png", studies).name == "0.png"


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", "/etc/passwd", "a\\b", "a\0b", ".hidden", "x" * 201, "a\nb"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(RequestRefused, match="without slashes"):
        check_name(name)


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.pbm"
    path.write_bytes(b"P4\n100000 100000\n")
    with pytest.raises(RequestRefused, match="more than the 200 million pixels") as caught:
        FileDigests().picture(path)
    assert caught.value.status == 413
