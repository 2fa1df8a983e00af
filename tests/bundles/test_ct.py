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


"""The bundle of CT organs as a user runs it, shortened: training, evaluation, inference, and the overlays."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
from bad_volumes import BAD
from bundle_runs import SHORT, VOLUMES, config_files, copy_bundle, load_config, run_bundle
from ct_phantoms import ct_phantom, write_ct_data, write_nifti, write_series
from monai.bundle import ConfigWorkflow
from pydicom import dcmread

TINY: dict[str, Any] = {"max_epochs": 1, "steps_per_epoch": 1, "batch_size": 1}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datalist of four volumes; read only."""
    return write_ct_data(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle, trained for a moment from another working directory; read only."""
    root = copy_bundle(VOLUMES, tmp_path_factory.mktemp("trained") / VOLUMES.name)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        run_bundle(root, "train", run_id="training", dataset_dir=data)
        assert not list(elsewhere.iterdir()), "the training wrote into the working directory"
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_bundle(VOLUMES, tmp_path / VOLUMES.name)


def test_training_leaves_model_and_curves(trained: Path) -> None:
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["adapter.json", "model.pt"]
    described = json.loads((trained / "models" / "adapter.json").read_text())
    assert described["labels"] == ["spleen"] and described["adapters"][0]["method"] == "SingularValues"
    assert described["trained_parameters"] < 0.03 * described["parameters"]
    assert len(rows(trained / "eval" / "curves.csv")) == 2 and not hidden(trained)


def test_evaluation_is_in_three_dimensions_and_prompted_results_are_apart(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    for mode in ("none", "points_1", "box"):
        run_bundle(trained, "train", "evaluate", dataset_dir=data, output_dir=tmp_path, prompt_mode=mode)
    names = ("automatic", "points_1", "box")
    tables = {name: rows(tmp_path / f"per_image_{name}.csv") for name in names}
    assert len({json.dumps(table) for table in tables.values()}) == 3, "two modes gave the same"
    (row,) = tables["automatic"]
    assert Path(row["image"]).name == "case_3.nii.gz" and row["label"] == "spleen"
    truth = np.asarray(nibabel.load(data.parent / "labelsTr" / "case_3.nii.gz").dataobj)
    assert float(row["true_volume_ml"]) == pytest.approx(truth.sum() * 2 * 1.5 * 5 / 1000)
    summary = json.loads((tmp_path / "summary_automatic.json").read_text())
    assert set(summary["labels"]["spleen"]) >= {"dice", "iou", "surface_dice", "volume_ml"}
    assert not hidden(tmp_path)


def test_inference_does_all_it_can_and_lists_the_rest(trained: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    values = ct_phantom((72, 64, 6), seed=7)[0]
    affine = np.array([[0, -1.5, 0.1, 7], [2, 0, 0, -3], [0, 0.1, -5, 1], [0, 0, 0, 1.0]])
    write_nifti(source / "oblique.nii.gz", values, affine)
    write_series(source / "patient" / "CT", values)
    bad = [BAD[name][0](source / name) for name in ("missing_slice", "nifti_nan", "nifti_cut", "localizer")]
    with pytest.raises(SystemExit) as end:
        run_bundle(trained, "inference", dataset_dir=source, output_dir=out, dicom_segmentation=True, rtstruct=True)
    first, *failed = str(end.value).splitlines()
    assert first == "4 of the images failed:"
    assert all(str(path) in line for path, line in zip(sorted(bad), failed, strict=True))
    assert [row["mask"] for row in rows(out / "results.csv")] == ["oblique_mask.nii.gz", "CT_mask.nii.gz"]
    mask = nibabel.load(out / "oblique_mask.nii.gz")
    assert mask.shape == values.shape and np.array_equal(mask.affine, nibabel.load(source / "oblique.nii.gz").affine)
    # The same mask in all three forms.
    series = np.asarray(nibabel.load(out / "CT_mask.nii.gz").dataobj) > 0
    uids = [dcmread(source / "patient" / "CT" / f"{number:03d}.dcm").SOPInstanceUID for number in range(6)]
    segments = highdicom.seg.segread(out / "CT_seg.dcm").get_pixels_by_source_instance(
        uids, assert_missing_frames_are_empty=True
    )
    assert series.any() and np.array_equal(segments[..., 0].transpose(2, 1, 0) > 0, series)
    contours = dcmread(out / "CT_rtstruct.dcm").ROIContourSequence[0].ContourSequence
    used = {contour.ContourImageSequence[0].ReferencedSOPInstanceUID for contour in contours}
    assert used == {uid for uid, there in zip(uids, series.any((0, 1)), strict=True) if there}
    assert not hidden(tmp_path)


def test_resampling_trains_and_comes_back_to_the_grid_of_the_file(root: Path, data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"pixdim": [3.0, 3.0, -1.0]}
    run_bundle(root, "train", dataset_dir=data, **TINY, **settings)
    run_bundle(root, "train", "evaluate", dataset_dir=data, output_dir=tmp_path / "scores", **settings)
    truth = np.asarray(nibabel.load(data.parent / "labelsTr" / "case_3.nii.gz").dataobj)
    (row,) = rows(tmp_path / "scores" / "per_image_automatic.csv")
    assert float(row["true_volume_ml"]) == pytest.approx(truth.sum() * 2 * 1.5 * 5 / 1000)
    prompted = {"output_dir": tmp_path / "scores", "prompt_mode": "box"}
    run_bundle(root, "train", "evaluate", dataset_dir=data, **prompted, **settings)
    (row,) = rows(tmp_path / "scores" / "per_image_box.csv")
    assert float(row["true_volume_ml"]) == pytest.approx(truth.sum() * 2 * 1.5 * 5 / 1000)
    volume = data.parent / "imagesTr" / "case_3.nii.gz"
    run_bundle(root, "inference", dataset_dir=volume, output_dir=tmp_path / "out", **settings)
    mask = nibabel.load(tmp_path / "out" / "case_3_mask.nii.gz")
    assert mask.shape == truth.shape and np.array_equal(mask.affine, nibabel.load(volume).affine)


def test_a_mask_may_begin_at_another_corner(trained: Path, data: Path, tmp_path: Path) -> None:
    """As dcm2niix turns the rows of a DICOM series around."""
    scores = []
    for name, turn in (("plain", 1), ("turned", -1)):
        values, spleen = ct_phantom((72, 64, 6), seed=3)
        write_series(tmp_path / name / "ct", values)
        affine = np.array([[-2.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 5, 100], [0, 0, 0, 1]])
        if turn < 0:
            affine = affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 63], [0, 0, 1, 0], [0, 0, 0, 1]])
        write_nifti(tmp_path / name / "mask.nii.gz", spleen[:, ::turn].astype(np.uint8), affine)
        record = {"image": "ct", "label": "mask.nii.gz", "subject": "1"}
        (tmp_path / name / "list.json").write_text(json.dumps({"training": [], "test": [record]}))
        source, out = tmp_path / name / "list.json", tmp_path / name / "out"
        run_bundle(trained, "train", "evaluate", dataset_dir=source, output_dir=out)
        (row,) = rows(out / "per_image_automatic.csv")
        scores.append({key: value for key, value in row.items() if key != "image"})
    assert scores[0] == scores[1] and float(scores[0]["dice"]) > 0


def test_several_labels(root: Path, data: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(data.parent, tmp_path / "own"))
    for path in (own / "labelsTr").iterdir():
        image = nibabel.load(path, mmap=False)
        mask = np.asarray(image.dataobj).copy()
        mask[:10] = 2
        write_nifti(path, mask, image.affine)
    settings: dict[str, Any] = {"labels": ["spleen", "left kidney"], "dataset_dir": own / "datalist.json"}
    run_bundle(root, "train", **TINY, **settings)
    run_bundle(root, "train", "evaluate", output_dir=tmp_path / "out", **settings)
    assert [row["label"] for row in rows(tmp_path / "out" / "per_image_automatic.csv")] == settings["labels"]


def test_a_mask_of_another_grid_is_named(root: Path, data: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(data.parent, tmp_path / "own"))
    for path in (own / "labelsTr").iterdir():
        image = nibabel.load(path, mmap=False)
        write_nifti(path, np.asarray(image.dataobj), image.affine @ np.diag([-1, 1, 1, 1]))
    with pytest.raises(Exception) as caught:
        run_bundle(root, "train", dataset_dir=own / "datalist.json", **TINY)
    told: BaseException | None = caught.value
    while told is not None and "lie on different grids" not in str(told):
        told = told.__cause__ or told.__context__
    assert told is not None and str(own / "labelsTr") in str(told)


def test_published_recipes_train(root: Path, data: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"size": "micro", "weights": "micro", "dataset_dir": data, **TINY}
    run_bundle(root, "train", "ssam", ckpt_dir=tmp_path / "ssam", **small)
    described = json.loads((tmp_path / "ssam" / "adapter.json").read_text())
    assert described["text_encoder"] == "all-MiniLM-L6-v2" and described["adapters"][0]["method"] == "SingularValues"
    lora: dict[str, Any] = {"ckpt_dir": tmp_path / "lora", "adapters#0#rank": 4}
    run_bundle(root, "train", "sam2lora", output_dir=tmp_path / "eval", **lora, **small)
    assert json.loads((tmp_path / "lora" / "adapter.json").read_text())["adapters"][0]["method"] == "LoRA"


def test_neighbouring_slices_instead_of_windows(root: Path, data: Path) -> None:
    settings: dict[str, Any] = {"windows": ["abdomen"]}
    gather = {"_target_": "monai_ext.transforms.NeighbouringSlicesd", "keys": "image"}
    for part in ("train", "validate"):
        transforms = load_config(root, "train")[part]["preprocessing"]["transforms"]
        place = 1 + max(i for i, t in enumerate(transforms) if t["_target_"] == "Spacingd")
        settings[f"{part}#preprocessing#transforms"] = [*transforms[:place], gather, *transforms[place:]]
    run_bundle(root, "train", dataset_dir=data, **TINY, **settings)


@pytest.mark.parametrize("names", [("train",), ("train", "evaluate"), ("inference",)], ids="+".join)
def test_monai_finds_its_properties(names: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    train = names[0] == "train"
    workflow = ConfigWorkflow(
        config_file=config_files(VOLUMES, names),
        logging_file=False,
        workflow_type="train" if train else "infer",
        bundle_root=str(tmp_path),
        dataset_dir=str(data if train else data.parent / "imagesTr"),
        **(SHORT if train else {key: SHORT[key] for key in ("image_size", "device")}),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_training_evaluation_and_inference_do_not_drift_apart() -> None:
    train, evaluate, inference = (load_config(VOLUMES, name) for name in ("train", "evaluate", "inference"))
    same = ("size", "weights", "labels", "image_size", "windows", "pixdim", "enlarge", "unfrozen", "adapters")
    for key in (*same, "network_def", "network", "ckpt_dir"):
        assert train[key] == inference[key], key
    assert train["validate"]["inferer"] == inference["inferer"]
    seen = [
        {**transform, "keys": "image"}
        for transform in train["validate"]["preprocessing"]["transforms"]
        if "image" in transform["keys"] and transform["_target_"] != "monai_ext.transforms.CheckGridsd"
    ]
    seen[0]["reader"] = {**seen[0]["reader"], "series": "@series"}
    assert seen == inference["preprocessing"]["transforms"]
    # What the network sees in training is shown and normalised the same.
    for name in ("monai_ext.transforms.CTWindowsd", "NormalizeIntensityd"):
        given = [t for t in train["train"]["preprocessing"]["transforms"] if t["_target_"] == name]
        assert given == [t for t in seen if t["_target_"] == name]
    back, turned, _, *scored = evaluate["validate#postprocessing"]["transforms"]
    first, *written = inference["postprocessing"]["transforms"]
    assert scored == written
    assert back == {**first, "keys": "pred", "transform": "@validate#preprocessing"}
    # The truth is turned as the image was, wherever its own file begins.
    assert turned in [{**t, "keys": "pred"} for t in inference["preprocessing"]["transforms"]]
    assert evaluate["threshold"] == inference["threshold"]
    assert evaluate["validate#handlers"][0] == inference["handlers"][0]
