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


"""The bundle of the promptable base: training, evaluation by clicks and inference, on files in the sources' layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from base_sources import write_sources
from bundle_runs import BASE, copy_bundle, load_config, run_bundle
from safetensors import safe_open
from safetensors.torch import load_file

from monai_ext.data import PretrainingData
from monai_ext.networks import SAM2Segmenter

COUNTS = {
    "hrf": 2,
    "idrid_disc": 8,
    "idrid_disc_validation": 1,
    "dsb2018_stained": 60,
    "dsb2018_stained_validation": 1,
    "msd_spleen": 1,
    "totalsegmentator_ct": 1,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    write_sources(root)
    return root


def counts(data: PretrainingData) -> dict[str, int]:
    return {name: len(records) for name, records in vars(data).items() if isinstance(records, list)}


def test_every_source_is_found(sources: Path) -> None:
    assert counts(PretrainingData(root=sources)) == COUNTS


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("hrf", "hrf must hold images/01_h.jpg with mask/01_h.tif, but nothing of it was found"),
        ("idrid_disc/masks/IDRiD_03_OD.tif", "IDRiD_03_OD.tif is missing"),
        ("msd_spleen/labelsTr/spleen_8.nii.gz", "labelsTr/spleen_8.nii.gz is missing"),
        ("totalsegmentator_ct/example_ct_sm.nii.gz", "example_ct_sm.nii.gz with example_seg.nii.gz, but nothing"),
    ],
)
def test_what_is_missing_is_named(sources: Path, tmp_path: Path, lost: str, message: str) -> None:
    for file in (path for path in sources.rglob("*") if path.is_file()):
        relative = file.relative_to(sources)
        if not relative.as_posix().startswith(lost):
            (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / relative).symlink_to(file)
    with pytest.raises(FileNotFoundError, match=message):
        PretrainingData(root=tmp_path)


def test_the_real_sources(shared_data: Path) -> None:
    data = PretrainingData(root=shared_data)
    assert counts(data) == COUNTS | {"hrf": 15, "idrid_disc_validation": 4, "dsb2018_stained_validation": 19}
    assert not any("chase" in record["image"] for name in COUNTS for record in getattr(data, name))


@pytest.fixture(scope="module")
def trained(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle, trained for a moment."""
    root = copy_bundle(BASE, tmp_path_factory.mktemp("base") / BASE.name)
    shares = {"scenes": 0.4, "hrf": 0.2, "dsb2018_stained": 0.2, "msd_spleen": 0.2}
    run_bundle(root, "train", run_id="training", dataset_dir=sources, nuclei_zoom=1, shares=shares)
    return root


def test_training_leaves_base_weights(trained: Path) -> None:
    models = trained / "models"
    assert sorted(path.name for path in models.iterdir()) == ["adapter.json", "model.pt", "sam2_micro.safetensors"]
    assert (models / "sam2_micro.safetensors").stat().st_size <= 12_000_000
    with safe_open(models / "sam2_micro.safetensors", "pt") as file:
        assert file.metadata() == load_config(BASE, "train")["about"]
    assert "val_click_iou" in (trained / "eval" / "curves.csv").read_text()
    image = torch.rand(1, 3, 64, 64)
    kept = SAM2Segmenter(size="micro", train=["*"]).eval()
    kept.load_state_dict(torch.load(models / "model.pt"))
    base = SAM2Segmenter(size="micro", weights=models / "sam2_micro.safetensors").eval()
    with torch.no_grad():
        torch.testing.assert_close(base(image), kept(image), atol=0.02, rtol=0.02)


def test_the_second_part_goes_on_from_the_first(trained: Path, sources: Path, tmp_path: Path) -> None:
    root, first = copy_bundle(BASE, tmp_path / BASE.name), trained / "models" / "sam2_micro.safetensors"
    shares = {"hrf": 1}
    run_bundle(
        root,
        "train",
        "more_vessels",
        run_id="training",
        dataset_dir=sources,
        nuclei_zoom=1,
        shares=shares,
        weights=first,
        lr=0,
    )
    begun, ended = (load_file(path) for path in (first, root / "models" / first.name))
    assert begun.keys() == ended.keys()
    assert all(torch.equal(value, ended[key]) for key, value in begun.items())


@pytest.mark.parametrize("mode", ["points", "box"])
def test_clicks_are_scored(trained: Path, sources: Path, tmp_path: Path, mode: str) -> None:
    weights = trained / "models" / "sam2_micro.safetensors"
    settings = {"dataset_dir": sources, "output_dir": tmp_path, "nuclei_zoom": 1, "prompt_mode": mode, "clicks": 2}
    run_bundle(trained, "train", "evaluate", run_id="evaluating", weights=weights, **settings)
    summary = json.loads((tmp_path / f"summary_{mode}.json").read_text())
    objects = {name: (part["images"], part["objects"]) for name, part in summary["sources"].items()}
    assert objects == {"idrid_disc": (1, 1), "dsb2018_stained": (1, 2)}
    assert all(list(part["answers"]) == ["1", "2"] for part in summary["sources"].values())
    assert len(list((tmp_path / mode).glob("*.jpg"))) == 2


def test_robust_prompts_train_the_shift_and_leave_the_base(sources: Path, tmp_path: Path) -> None:
    root, settings = copy_bundle(BASE, tmp_path / BASE.name), {"dataset_dir": sources, "nuclei_zoom": 1}
    shares = {"scenes": 0.5, "hrf": 0.5}
    overrides = {"shares": shares, "train#inferer#box": 0}
    run_bundle(root, "train", "robust_prompts", run_id="training", **overrides, **settings)
    part = torch.load(root / "models" / "model.pt")
    assert {name.partition(".")[0] for name in part} == {"class_tokens", "click_shift", "fingerprint"}
    assert part["click_shift.delta.2.weight"].abs().sum() > 0
    assert not (root / "models" / "sam2_micro.safetensors").exists()
    run_bundle(root, "train", "evaluate", "evaluate_robust", run_id="evaluating", clicks=1, **settings)
    assert (root / "eval" / "summary_points.json").is_file()


def test_inference_from_clicks_and_boxes(trained: Path, sources: Path, tmp_path: Path) -> None:
    image = str(next((sources / "idrid_disc" / "images").iterdir()))
    prompts = {
        "click": {"points": [[30, 20]], "point_labels": [1]},
        "box": {"points": [[20, 10], [39, 29]], "point_labels": [2, 3]},
    }
    prompts["nothing"] = {}
    pictures = {}
    for name, prompt in prompts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([{"image": image, **prompt}]))
        output = tmp_path / name
        run_bundle(BASE, "inference", dataset_dir=tmp_path / f"{name}.json", output_dir=output)
        pictures[name] = next(output.glob("*_probability.png")).read_bytes()
        assert (output / "results.csv").is_file()
    assert len(set(pictures.values())) == 3


def test_no_object_is_in_training_and_validation(shared_data: Path) -> None:
    data = PretrainingData(root=shared_data)
    for name in ("idrid_disc", "dsb2018_stained"):
        training, validation = ({r["image"] for r in getattr(data, key)} for key in (name, f"{name}_validation"))
        assert training and validation and not training & validation
