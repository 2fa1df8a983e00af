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


"""Runs that need a Python process of their own."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from bundle_runs import load_config, run_bundle, run_python

HERE = Path(__file__).parent


def scores(path: Path) -> list[tuple[str, float]]:
    with path.open(newline="") as file:
        return [(row["image"], float(row["dice"])) for row in csv.DictReader(file)]


def test_two_processes_train_one_model_and_share_the_evaluation(root: Path, data: Path) -> None:
    run_python(HERE / "two_processes.py", root, data)
    images = sorted(str(path) for path in (data / "test" / "images").iterdir())
    labels = load_config(root, "train")["labels"]
    shared = scores(root / "evaluation" / "per_image_automatic.csv")
    assert [image for image, _ in shared] == [image for image in images for _ in labels]
    assert json.loads((root / "evaluation" / "summary_automatic.json").read_text())["images"] == len(images)
    # The model that two have trained is one that one process can evaluate, with the same result.
    run_bundle(root, "train", "evaluate", dataset_dir=data, output_dir=root / "alone")
    alone = scores(root / "alone" / "per_image_automatic.csv")
    assert shared == [(image, pytest.approx(dice, abs=1e-6)) for image, dice in alone]


WITH_NUMPY_1 = """
import sys
from pathlib import Path
import numpy
assert numpy.__version__.startswith("1.26."), f"numpy {numpy.__version__} stands in the way of 1.26"
from bundle_runs import run_bundle
root, data = map(Path, sys.argv[1:])
run_bundle(root, "train", run_id="training", dataset_dir=data, max_epochs=1, steps_per_epoch=1)
run_bundle(root, "inference", dataset_dir=data / "test" / "images", output_dir=root / "masks")
"""


def test_training_and_inference_with_numpy_1(root: Path, data: Path) -> None:
    numpy = Path(sys.prefix) / "numpy1"
    if not (numpy / "numpy").is_dir():
        pytest.skip(f"numpy 1.26 is not in {numpy}: run `make test`, which puts it there")
    run_python("-c", WITH_NUMPY_1, root, data, PYTHONPATH=os.pathsep.join([str(numpy), str(HERE)]))
    assert (root / "models" / "model.pt").is_file()
    images = {path.stem for path in (data / "test" / "images").iterdir()}
    assert {path.name for path in (root / "masks").glob("*_mask.png")} == {f"{image}_mask.png" for image in images}
