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

"""What only the bundles for tissue do: objects, whole slides and the recipe of S-SAM."""

from __future__ import annotations

import csv
import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from bundle_runs import BUNDLES, copy_bundle, load_config, run_bundle
from PIL import Image
from tissue import draw_tissue, write_tissue

from monai_ext.data.polygons import polygon_mask, read_polygons

NUCLEI, GLANDS = (next(b for b in BUNDLES if b.name == f"histology_{n}_segmentation") for n in ("nuclei", "gland"))


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tissue")
    write_tissue(folder)
    return folder


@pytest.fixture(scope="module", params=[NUCLEI, GLANDS], ids=lambda path: path.name)
def tuned(request: pytest.FixtureRequest, tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle, trained for a moment."""
    root = copy_bundle(request.param, tmp_path_factory.mktemp("bundles") / request.param.name)
    run_bundle(root, "train", run_id="training", dataset_dir=tissue, max_epochs=1)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_has_objects(tuned: Path, tissue: Path, tmp_path: Path) -> None:
    run_bundle(tuned, "train", "evaluate", dataset_dir=tissue, output_dir=tmp_path, smallest=1)
    for row in rows(tmp_path / "per_image_automatic.csv"):
        assert all(0 <= float(row[name]) <= 1 for name in ("object_f1", "aji", "pq", "object_dice"))
    scores = json.loads((tmp_path / "summary_automatic.json").read_text())["labels"]
    assert all({"dice", "hd95", "object_f1", "aji", "pq", "object_dice"} <= set(score) for score in scores.values())


def test_tiles_get_objects_beside_masks(tuned: Path, tissue: Path, tmp_path: Path) -> None:
    run_bundle(tuned, "inference", dataset_dir=tissue / "test" / "images", output_dir=tmp_path, smallest=1)
    table = rows(tmp_path / "objects.csv")
    assert len(table) == 2
    for row in table:
        numbers = np.asarray(Image.open(tmp_path / row["instances"]))
        assert int(row["objects"]) == numbers.max()
        polygons = read_polygons(tmp_path / row["polygons"])
        assert len(polygons) == numbers.max()
        found = sum((polygon_mask(polygon, numbers.shape) for _, polygon in polygons), np.zeros(numbers.shape, bool))
        assert (found == (numbers > 0)).all()


def test_a_slide_is_segmented_as_its_image_is(tuned: Path, tmp_path: Path) -> None:
    pixels, _ = draw_tissue(0, (300, 520))
    (tmp_path / "slides").mkdir()
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "one.tif", pixels, tile=(128, 128), photometric="rgb")
    (tmp_path / "slides" / "bad.svs").touch()
    Image.fromarray(pixels).save(tmp_path / "images" / "one.png")
    run_bundle(tuned, "inference", dataset_dir=tmp_path / "images", output_dir=tmp_path / "whole")
    config: dict[str, Any] = {"tile": 256, "margin": 128, "inferer#tissue": "$None"}
    with pytest.raises(SystemExit, match=r"bad\.svs is empty"):
        run_bundle(
            tuned, "inference", "slides", dataset_dir=tmp_path / "slides", output_dir=tmp_path / "tiled", **config
        )
    whole = np.asarray(Image.open(tmp_path / "whole" / "one_probability.png")) / 65535
    tiled = tifffile.imread(tmp_path / "tiled" / "one_probability.tif", key=0) / 255
    assert np.abs(whole - tiled).max() < 0.01
    (row,) = rows(tmp_path / "tiled" / "slides.csv")
    assert (row["width"], row["height"], row["mask"]) == ("520", "300", "one_mask.tif")
    kinds = {
        f["properties"]["objectType"] for f in json.loads((tmp_path / "tiled/one.geojson").read_text())["features"]
    }
    assert kinds <= {load_config(tuned, "slides")["kind"]}


@pytest.mark.parametrize("bundle", [NUCLEI, GLANDS], ids=lambda path: path.name)
def test_the_recipe_of_ssam_trains(bundle: Path, tissue: Path, tmp_path: Path) -> None:
    root = copy_bundle(bundle, tmp_path / bundle.name)
    small: dict[str, Any] = {"size": "micro", "weights": "micro", "max_epochs": 1, "steps_per_epoch": 1}
    run_bundle(root, "train", "ssam", dataset_dir=tissue, batch_size=1, **small)
    described = json.loads((root / "models" / "adapter.json").read_text())
    assert described["adapters"][0]["method"] == "SingularValues" and described["text_encoder"] == "all-MiniLM-L6-v2"
    assert "image_encoder.trunk.pos_embed*" in described["train"]


def test_slides_need_a_model(tmp_path: Path) -> None:
    root = copy_bundle(NUCLEI, tmp_path / "bundle")
    pixels, _ = draw_tissue(0, (300, 300))
    tifffile.imwrite(tmp_path / "one.tif", pixels, tile=(128, 128), photometric="rgb")
    with pytest.raises(Exception) as caught:
        run_bundle(root, "inference", "slides", dataset_dir=tmp_path / "one.tif", output_dir=tmp_path / "out")
    assert "model.pt does not exist: train first" in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "out").exists()
