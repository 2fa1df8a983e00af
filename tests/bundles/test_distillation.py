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

"""Both stages of distillation as a user runs them: a random teacher of size tiny, the vessel bundle as its student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_runs import SAMPLES, VESSELS, copy_bundle, load_config, run_bundle, write_fundus

from monai_ext.networks import SAM2Segmenter

# A random teacher: all of it is in its file.
TEACHER: dict[str, Any] = {"teacher_size": "tiny", "teacher_weights": "$None", "teacher_adapters": [], "enlarge": 1}
SHORT = {"max_epochs": 1, "steps_per_epoch": 2, "batch_size": 1}
STAGES = (("train", "distil_encoder"), ("train", "distil_encoder", "distil_decoder"))


def write_teacher(folder: Path, labels: list[str]) -> None:
    folder.mkdir()
    torch.save(SAM2Segmenter(size="tiny", labels=labels, train=["*"]).trained_state_dict(), folder / "model.pt")


def test_encoder_then_decoder_give_an_ordinary_model(tmp_path: Path) -> None:
    write_fundus(tmp_path / "data")
    root = copy_bundle(VESSELS, tmp_path / VESSELS.name)
    write_teacher(tmp_path / "teacher", ["vessel"])
    settings = TEACHER | SHORT | {"dataset_dir": tmp_path / "data", "teacher_dir": tmp_path / "teacher"}
    encoder, decoder = (tmp_path / name for name in ("encoder", "decoder"))
    run_bundle(root, *STAGES[0], **settings, ckpt_dir=encoder, output_dir=encoder)
    run_bundle(root, *STAGES[1], **settings, ckpt_dir=decoder, output_dir=decoder, encoder_dir=encoder)

    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in (encoder, decoder))
    assert set(first) == set(second)
    start = SAM2Segmenter(size="micro", weights="micro", labels=["vessel"]).class_tokens.weight
    assert torch.equal(first["class_tokens.weight"], start) and not torch.equal(second["class_tokens.weight"], start)
    trunk = [key for key in first if "trunk" in key and "lora_b" in key]
    assert trunk and all(first[key].any() and torch.equal(first[key], second[key]) for key in trunk)
    # What was trained is described as the bundle's own training describes it.
    described = json.loads((decoder / "adapter.json").read_text())
    shipped = json.loads((VESSELS / "models" / "adapter.json").read_text())
    for key in ("size", "weights", "labels", "adapters", "train", "trained_parameters"):
        assert described[key] == shipped[key], key
    assert (decoder / "curves.csv").is_file() and (decoder / "resume.pt").is_file()

    images = tmp_path / "data" / "test" / "images"
    run_bundle(root, "inference", dataset_dir=images, ckpt_dir=decoder, enlarge=1, output_dir=tmp_path / "masks")
    assert len(list((tmp_path / "masks").glob("*_mask.png"))) == len(list(images.iterdir()))


def test_the_overlays_fit_other_bundles(tmp_path: Path) -> None:
    """Nothing in them belongs to vessels: here they are laid over a bundle with two labels."""
    bundle = VESSELS.parent / "fundus_disc_cup_segmentation"
    SAMPLES[bundle.name](tmp_path / "data")
    root = copy_bundle(bundle, tmp_path / bundle.name)
    for name in STAGES[1][1:]:
        (root / "configs" / f"{name}.json").write_bytes((VESSELS / "configs" / f"{name}.json").read_bytes())
    labels = load_config(bundle, "train")["labels"]
    write_teacher(tmp_path / "teacher", labels)
    settings = TEACHER | SHORT | {"dataset_dir": tmp_path / "data", "teacher_dir": tmp_path / "teacher"}
    run_bundle(root, *STAGES[0], **settings, ckpt_dir=tmp_path / "encoder")
    assert json.loads((tmp_path / "encoder" / "adapter.json").read_text())["labels"] == labels


@pytest.mark.parametrize(("missing", "names"), [("teacher", STAGES[0]), ("encoder", STAGES[1])])
def test_nothing_is_written_before_what_is_learned_from_is_there(
    missing: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    write_fundus(tmp_path / "data")
    root = copy_bundle(VESSELS, tmp_path / VESSELS.name)
    if missing == "encoder":
        write_teacher(root / "teacher", ["vessel"])
    with pytest.raises(Exception) as caught:
        run_bundle(root, *names, **TEACHER, dataset_dir=tmp_path / "data")
    reasons = f"{caught.value} {caught.value.__cause__}"
    assert f"{missing}/model.pt does not exist" in reasons
    assert not (root / "models").exists() and not (root / "eval").exists()
