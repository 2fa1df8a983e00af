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


"""What goes wrong with a user's files and settings is told in one sentence, before anything changes."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_runs import ROOT, copy_bundle, load_config, run_bundle, write_fundus
from PIL import Image

from monai_ext.networks import SAM2Segmenter

NOTHING = {"_target_": "monai_ext.adapters.LoRA", "targets": ["*nothing*like*this*"], "rank": 2}


def sentence(run: Callable[[], object]) -> str:
    """What our code said when the run failed; MONAI wraps it in errors that tell where in the config it happened."""
    with pytest.raises(Exception) as caught:
        run()
    error: BaseException | None = caught.value
    while error is not None:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        if Path(place).is_relative_to(ROOT / "monai_ext"):
            assert "\n" not in str(error), f"more than one line: {error}"
            return str(error)
        error = error.__cause__ or error.__context__
    raise AssertionError(f"not one of our own sentences: {caught.value!r}") from caught.value


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    """Data of one's own to damage."""
    return Path(shutil.copytree(data, tmp_path / "own"))


def first(folder: Path, kind: str) -> Path:
    return min((folder / "training" / kind).iterdir())


def no_mask(own: Path) -> str:
    first(own, "masks").unlink()
    return f"{first(own, 'images')} has no mask"


def small_mask(own: Path) -> str:
    path = first(own, "masks")
    Image.open(path).resize((48, 40)).save(path)
    return f"{first(own, 'images')} and its label {path} differ in size: 96x96 against 48x40"


def truncated_image(own: Path) -> str:
    path = first(own, "images")
    path.write_bytes(path.read_bytes()[:2000])
    return str(path)


def empty_image(own: Path) -> str:
    path = first(own, "images")
    path.write_bytes(b"")
    return str(path)


def nan_image(own: Path) -> str:
    path = first(own, "images").with_suffix(".tif")
    pixels = np.full((96, 96, 3), 0.5, np.float32)
    pixels[3, 4] = np.nan
    path.with_suffix(".png").unlink()
    tifffile.imwrite(path, pixels, photometric="rgb")
    return f"{path} must hold finite values"


def constant_image(own: Path) -> str:
    path = first(own, "images")
    Image.new("RGB", (96, 96), (9, 9, 9)).save(path)
    return f"{path} has the same colour everywhere"


def coloured_mask(own: Path) -> str:
    path = first(own, "masks")
    shutil.copy(first(own, "images"), path)
    return f"{path} must be a mask of one channel"


def one_subject(own: Path) -> str:
    for kind in ("images", "masks"):
        for path in sorted((own / "training" / kind).iterdir())[2:]:
            path.unlink()
    return "holds out all of the training subjects"


def no_folder(own: Path) -> str:
    shutil.rmtree(own)
    return f"{own} does not exist"


def other_folder(own: Path) -> str:
    for part in ("training", "test"):
        (own / part).rename(own / f"my_{part}")
    return f"{own} holds no images that we know how to find"


DAMAGES = [no_mask, small_mask, truncated_image, empty_image, nan_image, constant_image, coloured_mask, one_subject]


@pytest.mark.parametrize("damage", [*DAMAGES, no_folder], ids=lambda damage: damage.__name__)
def test_training_on_bad_data(damage: Callable[[Path], str], own: Path, root: Path) -> None:
    expected = damage(own)
    before = files(root)
    assert expected in sentence(lambda: run_bundle(root, "train", dataset_dir=own))
    assert not (root / "models").exists()
    assert {path.name for path in files(root).keys() - before.keys() if "tfevents" not in path.name} == set()


def test_a_folder_of_no_layout_lists_the_layouts(own: Path, root: Path) -> None:
    expected = other_folder(own)
    with pytest.raises(Exception) as caught:
        run_bundle(root, "train", dataset_dir=own)
    told = "".join(traceback.format_exception(caught.value))
    assert expected in told and "images/ with masks/" in told


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "adapter": ({"adapters": [NOTHING]}, "targets: '*nothing*like*this*' matches no module"),
    "train": ({"network_def#train": ["nothing.*"]}, "train: 'nothing.*' matches no parameter"),
    "size": ({"size": "huge"}, "size must be one of micro, tiny, small, base_plus, large, not 'huge'"),
    "labels": ({"labels": ["vessel", "vessel"]}, "different names"),
    "weights": ({"weights": "sam2.1_hiera_tiny", "size": "tiny"}, "python -m monai_ext weights sam2.1_hiera_tiny"),
    "no weights": ({"weights": "sam2.1_hiera_teeny"}, "Did you mean 'sam2.1_hiera_tiny'?"),
    "no file": ({"weights": "nowhere/base.pt"}, "nowhere/base.pt does not exist"),
    "resume": ({"resume": "yes"}, "resume must be True or False"),
}


def fitted(root: Path, overrides: dict[str, Any], expected: str) -> tuple[dict[str, Any], str]:
    """Where names are the prompts, a label without an embedding is refused as such; LoRA is another adapter to most."""
    config = load_config(root, "train")
    labels, known = overrides.get("labels", []), config["labels"]
    if "label_embeddings" in config["network_def"] and len(labels) == len(set(labels)) and set(labels) - set(known):
        return overrides, "python -m monai_ext labels"
    if any(key.startswith("adapters#0#") for key in overrides) and "rank" not in config["adapters"][0]:
        lora = {"_target_": "monai_ext.adapters.LoRA", "targets": ["*trunk*attn.qkv"], "rank": 4}
        return {"adapters": [lora]}, "another size, adapter or number of labels"
    return overrides, expected


@pytest.mark.parametrize("name", SETTINGS)
def test_training_with_bad_settings(
    name: str, root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MONAI_EXT_WEIGHTS", raising=False)
    overrides, expected = SETTINGS[name]
    overrides, expected = fitted(root, overrides, expected)
    assert expected in sentence(lambda: run_bundle(root, "train", dataset_dir=data, **overrides))
    assert not (root / "models").exists()
    assert not (root / "eval" / "resume.pt").exists()


def test_masks_that_do_not_hold_the_labels(tmp_path: Path) -> None:
    write_fundus(tmp_path)
    root = copy_bundle(ROOT / "bundles" / "fundus_vessel_segmentation", tmp_path / "fundus_vessel_segmentation")
    expected = "must hold 0 for the ground and 1..2 for vessel, lesion, not 0..255"
    run = {"dataset_dir": tmp_path, "labels": ["vessel", "lesion"]}
    assert expected in sentence(lambda: run_bundle(root, "train", **run))
    assert not (root / "models").exists()


def of_another_size(root: Path) -> str:
    path = root / "models" / "model.pt"
    torch.save(SAM2Segmenter(size="tiny", labels=["vessel"]).state_dict(), path)
    return f"{path} does not fit: These weights are not this network's (another size"


def truncated_model(root: Path) -> str:
    path = root / "models" / "model.pt"
    path.write_bytes(path.read_bytes()[:100_000])
    return f"{path} is damaged"


def empty_model(root: Path) -> str:
    path = root / "models" / "model.pt"
    path.write_bytes(b"")
    return f"{path} is empty (0 bytes)"


def no_model(root: Path) -> str:
    (root / "models" / "model.pt").unlink()
    return f"{root / 'models' / 'model.pt'} does not exist: train first"


@pytest.mark.parametrize("damage", [of_another_size, truncated_model, empty_model, no_model], ids=lambda d: d.__name__)
@pytest.mark.parametrize("use", [("inference",), ("train", "evaluate")], ids="+".join)
def test_a_bad_model(
    damage: Callable[[Path], str], use: tuple[str, ...], trained: Path, data: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "bundle"))
    expected = damage(root)
    source = data / "test" / "images" if use == ("inference",) else data
    assert expected in sentence(lambda: run_bundle(root, *use, dataset_dir=source, output_dir=tmp_path / "out"))
    assert not files(tmp_path / "out")


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "labels": ({"labels": ["disc"]}, "trained for other labels or adapter settings"),
    "more labels": ({"labels": ["vessel", "disc"]}, "another size, adapter or number of labels"),
    "rank": ({"adapters#0#rank": 4}, "another size, adapter or number of labels"),
    "alpha": ({"adapters#0#alpha": 5}, "trained for other labels or adapter settings"),
    "no adapter": ({"adapters": []}, "another size, adapter or number of labels"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_model_for_other_settings(name: str, trained: Path, data: Path, tmp_path: Path) -> None:
    overrides, expected = MISFITS[name]
    overrides, expected = fitted(trained, overrides, expected)
    source = data / "test" / "images"
    told = sentence(
        lambda: run_bundle(trained, "inference", dataset_dir=source, output_dir=tmp_path / "out", **overrides)
    )
    file = "labels.safetensors" if "monai_ext labels" in expected else str(trained / "models" / "model.pt")
    assert expected in told and file in told
    assert not files(tmp_path / "out")


@pytest.mark.parametrize("use", [("train",), ("inference",), ("train", "evaluate")], ids="+".join)
def test_an_output_folder_that_cannot_be_written(
    use: tuple[str, ...], trained: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    source = data / "test" / "images" if use == ("inference",) else data
    told = sentence(
        lambda: run_bundle(trained, *use, dataset_dir=source, output_dir=tmp_path / "file" / "out", ckpt_dir=tmp_path)
    )
    assert str(tmp_path / "file") in told and "cannot be written" in told
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("full", ["resume.pt", "model.pt"])
def test_a_disk_that_becomes_full(full: str, root: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def torch_save(value: Any, path: Path) -> None:
        if Path(path).name.startswith(f".{Path(full).stem}-"):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(value, path)

    monkeypatch.setattr(torch, "save", torch_save)
    told = sentence(lambda: run_bundle(root, "train", dataset_dir=data, max_epochs=1, steps_per_epoch=1))
    assert full in told and "No space left on device" in told and "Free some space" in told
    assert not [path for path in root.rglob("*.pt") if path.name == full or path.name.startswith(".")]
