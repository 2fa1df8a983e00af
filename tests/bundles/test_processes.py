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


"""Runs that need Python processes of their own: several for one training, evaluation or inference; another numpy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from bundle_runs import BASE, BUNDLES, VESSELS, run_python
from processes import Forks, Runs, curves, files, results
from tissue import draw_tissue

HERE = Path(__file__).parent
NUCLEI = next(bundle for bundle in BUNDLES if bundle.name == "histology_nuclei_segmentation")


def test_several_processes_give_what_one_gives(any_runs: Runs) -> None:
    """Of the vessels three, more than there are images to evaluate; of the others two, and shorter."""
    count, length = (3, {}) if any_runs.root.name == VESSELS.name else (2, {"max_epochs": 1, "steps_per_epoch": 3})
    one, several = any_runs.train("one", 1, **length), any_runs.train("several", count, **length)
    np.testing.assert_allclose(curves(several), curves(one), rtol=0, atol=1e-4)
    states = [torch.load(folder / "model.pt", weights_only=True) for folder in (one, several)]
    # AdamW makes a step of rounding errors where a gradient is none, so single weights differ more.
    assert all((value.double() - states[1][key].double()).abs().mean() < 1e-4 for key, value in states[0].items())
    # One writer: the files of one process, no more logs of events, and no leftovers.
    assert [path.name.split(".")[0] for path in files(several)] == [path.name.split(".")[0] for path in files(one)]

    settings = {**any_runs.settings, "dataset_dir": any_runs.data, "ckpt_dir": one}
    if any_runs.root.name == BASE.name:
        settings["weights"] = one / "sam2_micro.safetensors"
    evaluated = any_runs.run("evaluated_one", 1, "train", "evaluate", **settings)
    assert results(any_runs.run("evaluated_several", count, "train", "evaluate", **settings)) == results(evaluated)

    settings = {"dataset_dir": any_runs.images, "ckpt_dir": one}
    segmented = [
        any_runs.run(f"segmented_{n}", n, "inference", codes=[1] + [0] * (n - 1), **settings) for n in (1, count)
    ]
    assert len(results(segmented[0])) > 3 and results(segmented[1]) == results(segmented[0])
    for folder in segmented:
        log = folder.with_suffix(".log").read_text()
        assert log.count("1 of the images failed:") == 1 and str(any_runs.bad) in log


@pytest.mark.parametrize("count", [3, 1], ids=["slides", "the tiles of one slide"])
def test_several_processes_divide_slides(forks: Forks, tmp_path: Path, count: int) -> None:
    runs = Runs(forks, NUCLEI, tmp_path)
    trained = runs.train("trained", 1, max_epochs=1, steps_per_epoch=1)
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(count):
        pixels = draw_tissue(number, (300, 320))[0]
        tifffile.imwrite(slides / f"{number}.tif", pixels, tile=(128, 128), photometric="rgb")
    (slides / "bad.svs").touch()
    settings = {"dataset_dir": slides, "ckpt_dir": trained, "tile": 256, "margin": 64}
    one, two = (runs.run(f"slides{n}", n, "inference", "slides", codes=[1] + [0] * (n - 1), **settings) for n in (1, 2))
    assert (one / "slides.csv").read_text() == (two / "slides.csv").read_text()
    assert [path.name for path in files(one)] == [path.name for path in files(two)]
    for path in [*one.glob("*_mask.tif"), *one.glob("*_probability.tif")]:
        assert (tifffile.imread(path) == tifffile.imread(two / path.name)).all()
    for path in one.glob("*.geojson"):
        assert path.read_text() == (two / path.name).read_text()
    assert "1 of the images failed:" in (tmp_path / "slides2.log").read_text()


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
