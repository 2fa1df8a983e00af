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


"""Each bundle as a user runs it, shortened: training, evaluation, inference, and the overlays."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_runs import ROOT, TRACKING, VESSELS, copy_bundle, load_config, run_bundle, write_discs, write_fundus
from PIL import Image

from monai_ext.transforms import FieldOfView

MODES = ("none", "points_1", "points_2", "points_5", "points_5_1", "box", "all")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hidden(folder: Path) -> list[Path]:
    """Leftovers of files that were written half."""
    return [path for path in folder.rglob(".*") if path.is_file()]


def test_training_leaves_the_model_and_its_description(trained: Path) -> None:
    models = trained / "models"
    assert sorted(path.name for path in models.iterdir()) == ["adapter.json", "model.pt"]
    state = torch.load(models / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert (models / "model.pt").stat().st_size < 25_000_000, "the zoo keeps larger files out of git"
    described = json.loads((models / "adapter.json").read_text())
    config = load_config(trained, "train")
    assert (described["labels"], described["size"]) == (config["labels"], config["size"])
    assert described["key_metric"] == "val_mean_dice" and 0 <= described["best_metric"] <= 1


def test_training_leaves_curves_logs_and_what_resuming_needs(trained: Path) -> None:
    results = trained / "eval"
    curves = rows(results / "curves.csv")
    assert [row["epoch"] for row in curves] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["val_mean_dice"]) <= 1 for row in curves)
    assert Image.open(results / "curves.png").size[0] > 600
    assert torch.load(results / "resume.pt", weights_only=True)["trainer"]["iteration"] == 4
    assert any(path.stat().st_size > 100 for path in results.glob("events.out.tfevents.*"))
    assert not hidden(trained)


def test_evaluation_scores_every_test_image(trained: Path, data: Path, tmp_path: Path) -> None:
    run_bundle(trained, "train", "evaluate", run_id="evaluating", dataset_dir=data, output_dir=tmp_path)
    images = sorted((data / "test" / "images").iterdir())
    labels = load_config(trained, "train")["labels"]
    table = rows(tmp_path / "per_image_automatic.csv")
    assert [(row["image"], row["label"]) for row in table] == [(str(i), label) for i in images for label in labels]
    summary = json.loads((tmp_path / "summary_automatic.json").read_text())
    assert summary["images"] == len(images)
    dice = summary["labels"][labels[0]]["dice"]
    assert dice["n"] == len(images) and dice["low"] <= dice["mean"] <= dice["high"]
    assert dice["mean"] == pytest.approx(np.mean([float(row["dice"]) for row in table if row["label"] == labels[0]]))
    overlays = {path.stem: Image.open(path).size for path in (tmp_path / "overlays").iterdir()}
    assert overlays == {path.stem: Image.open(path).size for path in images}
    assert not hidden(tmp_path)


def test_every_prompt_mode_is_one_override_with_files_of_its_own(trained: Path, data: Path, tmp_path: Path) -> None:
    for mode in MODES:
        run_bundle(trained, "train", "evaluate", dataset_dir=data, output_dir=tmp_path, prompt_mode=mode)
    names = ["automatic", *MODES[1:]]
    assert {path.name for path in tmp_path.glob("summary_*")} == {f"summary_{name}.json" for name in names}
    tables = {name: rows(tmp_path / f"per_image_{name}.csv") for name in names}
    assert len({json.dumps(table) for table in tables.values()}) == len(names), "two modes gave the same"
    for name in names:
        assert json.loads((tmp_path / f"summary_{name}.json").read_text())["mode"] == name


@pytest.fixture(scope="module")
def photographs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image, wider than high, in the formats that users have, and four files that cannot be used."""
    folder = tmp_path_factory.mktemp("photographs")
    source = Image.open(next((data / "test" / "images").iterdir())).convert("RGB").crop((0, 10, 96, 90))
    pixels = np.asarray(source)
    for name in ("a.png", "b.ppm", "c.bmp", "jpeg.jpg"):
        source.save(folder / name)
    tifffile.imwrite(folder / "d.tif", pixels.astype(np.uint16) * 257, photometric="rgb")
    opaque = np.full_like(pixels[..., :1], 255)
    Image.fromarray(np.concatenate([pixels, opaque], axis=2)).save(folder / "e.png")
    source.convert("L").save(folder / "grey.png")
    (folder / "truncated.png").write_bytes((folder / "a.png").read_bytes()[:3000])
    (folder / "nothing.jpg").touch()
    Image.new("RGB", (96, 80), (9, 9, 9)).save(folder / "constant.png")
    tifffile.imwrite(folder / "nan.tif", np.full((80, 96, 3), np.nan, np.float32), photometric="rgb")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_inference_does_all_it_can_and_lists_the_rest(trained: Path, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        run_bundle(trained, "inference", dataset_dir=photographs, output_dir=tmp_path / "out")
    first, *failed = str(end.value).splitlines()
    assert first == "4 of the images failed:"
    bad = ("constant.png", "nan.tif", "nothing.jpg", "truncated.png")
    assert all(str(photographs / name) in line for name, line in zip(bad, failed, strict=True))

    good = ["a", "b", "c", "d", "e", "grey", "jpeg"]
    labels = load_config(trained, "inference")["labels"]
    table = rows(tmp_path / "out" / "results.csv")
    assert sorted({Path(row["image"]).stem for row in table}) == good and len(table) == len(good) * len(labels)
    files = {row["image"]: row for row in table}
    for row in files.values():
        assert (row["width"], row["height"]) == ("96", "80")
        for kind in ("mask", "probability", "overlay"):
            assert Image.open(tmp_path / "out" / row[kind]).size == (96, 80)
    chances = {Path(name).stem: Image.open(tmp_path / "out" / row["probability"]) for name, row in files.items()}
    maps = {name: np.asarray(picture).astype(int) for name, picture in chances.items()}
    # The same picture in four other formats, one of them 16 bit, gives the same answer; grey and JPEG do not.
    assert all(np.abs(maps[name] - maps["a"]).max() <= 1 for name in "bcde")
    assert np.abs(maps["grey"] - maps["a"]).max() > 1
    assert not hidden(tmp_path)


def test_nothing_is_found_outside_the_field_of_view(trained: Path, data: Path, tmp_path: Path) -> None:
    if "FieldOfViewd" not in json.dumps(load_config(trained, "inference")):
        pytest.skip("the images have no field of view")
    images = data / "test" / "images"
    run_bundle(trained, "inference", dataset_dir=images, output_dir=tmp_path, threshold=0.0)
    for path in images.iterdir():
        photograph = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")) / 255).permute(2, 0, 1)
        view = np.asarray(FieldOfView()(photograph))[0] > 0.5
        mask = np.asarray(Image.open(tmp_path / f"{path.stem}_mask.png")) > 0
        assert not view.all() and mask.any() and not mask[~view].any()


def test_two_runs_give_the_same(trained: Path, data: Path, tmp_path: Path) -> None:
    image = next((data / "test" / "images").iterdir())
    for name in ("one", "two"):
        run_bundle(trained, "inference", dataset_dir=image, output_dir=tmp_path / name)
    one, two = (
        [p.read_bytes() for p in sorted((tmp_path / name).glob("*_probability*.png"))] for name in ("one", "two")
    )
    assert one and one == two


@pytest.mark.parametrize("mode", ["none", "points_1"])
def test_the_base_can_be_evaluated_as_it_is(root: Path, data: Path, tmp_path: Path, mode: str) -> None:
    if not (root / "configs" / "evaluate_base.json").exists():
        pytest.skip("the bundle has no base to evaluate")
    assert not (root / "models").exists()
    names = ("train", "evaluate", "evaluate_base")
    run_bundle(root, *names, run_id="evaluating", dataset_dir=data, output_dir=tmp_path, prompt_mode=mode)
    assert json.loads(next(tmp_path.glob("summary_*.json")).read_text())["images"] == 2


def test_published_recipe_trains(root: Path, data: Path) -> None:
    if not (root / "configs" / "sam2lora.json").exists():
        pytest.skip("the bundle has no published recipe")
    # Expressions, because MONAI takes a plain None for "not overridden".
    small: dict[str, Any] = {"size": "micro", "weights": "$None", "max_epochs": 1, "steps_per_epoch": 1}
    run_bundle(root, "train", "sam2lora", dataset_dir=data, batch_size=1, **{"adapters#0#rank": 4}, **small)
    described = json.loads((root / "models" / "adapter.json").read_text())
    assert described["adapters"][0]["rank"] == 4 and described["adapters"][0]["dropout"] == 0.1
    assert described["enlarge"] == 1


def test_several_labels(tmp_path: Path) -> None:
    """A label more is one override; the masks hold its number."""
    write_discs(tmp_path / "data")
    root = copy_bundle(ROOT / "bundles" / "fundus_vessel_segmentation", tmp_path / "fundus_vessel_segmentation")
    two: dict[str, Any] = {"labels": ["first", "second"], "dataset_dir": tmp_path / "data"}
    run_bundle(root, "train", max_epochs=1, steps_per_epoch=1, **two)
    run_bundle(root, "train", "evaluate", output_dir=tmp_path / "out", **two)
    table = rows(tmp_path / "out" / "per_image_automatic.csv")
    assert [row["label"] for row in table] == ["first", "second"] * 2


def test_tracking_keeps_settings_scores_figures_and_the_model(root: Path, data: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    tracked: dict[str, Any] = {"tracking": str(TRACKING), "dataset_dir": data}
    run_bundle(root, "train", max_epochs=1, steps_per_epoch=1, **tracked)
    results = root / "eval"
    client = mlflow.MlflowClient(f"sqlite:///{results / 'mlruns.db'}")
    experiment = client.get_experiment_by_name(load_config(root, "metadata")["name"])
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", str(results))
    described = json.loads((root / "models" / "adapter.json").read_text())
    for key in ("size", "adapters", "fingerprint", "trained_parameters"):
        assert run.data.params[key] == str(described[key])
    assert {"lr", "batch_size", "image_size", "seed", "max_epochs"} <= set(run.data.params)
    assert run.data.metrics["train_loss"] > 0 and 0 <= run.data.metrics["val_mean_dice"] <= 1
    kept = {path.name: path for path in (results / "mlruns").rglob("*.*") if path.is_file()}
    assert set(kept) > {"model.pt", "adapter.json", "curves.png", "curves.csv"}
    assert any(name.startswith("config_") for name in kept)
    assert kept["model.pt"].read_bytes() == (root / "models" / "model.pt").read_bytes()

    # An evaluation is a run of its own, with the scores of each label.
    run_bundle(root, "train", "evaluate", output_dir=root / "test", evaluation=True, **tracked)
    client = mlflow.MlflowClient(f"sqlite:///{root / 'test' / 'mlruns.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name(experiment.name).experiment_id])
    assert run.info.status == "FINISHED"
    assert {f"dice_{label}" for label in described["labels"]} <= set(run.data.metrics)


def test_a_killed_training_goes_on_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    write_fundus(tmp_path / "data")
    root = copy_bundle(VESSELS, tmp_path / VESSELS.name)
    settings: dict[str, Any] = {"dataset_dir": tmp_path / "data", "max_epochs": 1, "steps_per_epoch": 1}

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("monai_ext.handlers.curves.draw_curves", kill)
        run_bundle(root, "train", **settings, tracking=str(TRACKING))
    client = mlflow.MlflowClient(f"sqlite:///{root / 'eval' / 'mlruns.db'}")
    experiment = client.get_experiment_by_name(load_config(root, "metadata")["name"]).experiment_id
    (killed,) = client.search_runs([experiment])
    assert killed.info.status == "RUNNING"
    run_bundle(root, "train", **settings, tracking=str(TRACKING))
    (run,) = client.search_runs([experiment])
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
