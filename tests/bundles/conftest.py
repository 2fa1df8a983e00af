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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_runs import BUNDLES, SAMPLES, SEGMENTATION, SHORT, SMALL, config_files, copy_bundle, run_bundle
from monai.bundle import ConfigWorkflow
from processes import Forks, Runs


@pytest.fixture(scope="session", params=BUNDLES, ids=lambda path: path.name)
def any_bundle(request: pytest.FixtureRequest) -> Path:
    """Each bundle of the repository; read only."""
    return request.param


@pytest.fixture(scope="session", params=SEGMENTATION, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    """Each bundle that segments labels; read only."""
    return request.param


@pytest.fixture(scope="session")
def data(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data that the bundle can train and be tested on; read only."""
    folder = tmp_path_factory.mktemp("data")
    SAMPLES[bundle.name](folder)
    return folder


@pytest.fixture(scope="session")
def trained(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle, trained for a moment from another working directory; read only."""
    root = copy_bundle(bundle, tmp_path_factory.mktemp("trained") / bundle.name)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        run_bundle(root, "train", run_id="training", dataset_dir=data)
        assert not list(elsewhere.iterdir()), "the training wrote into the working directory"
    return root


@pytest.fixture
def any_runs(any_bundle: Path, forks: Forks, tmp_path: Path) -> Runs:
    """Each bundle with small data, to be run in one process and in several."""
    return Runs(forks, any_bundle, tmp_path)


@pytest.fixture
def root(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle of one's own, not trained."""
    return copy_bundle(bundle, tmp_path / bundle.name)


@pytest.fixture
def make_workflow(bundle: Path, data: Path, tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """Make an initialised workflow of the bundle's configs."""

    def make(*names: str, **overrides: Any) -> ConfigWorkflow:
        train = names[0] == "train"
        short = SHORT if train else {"image_size": SHORT["image_size"], "device": SHORT["device"]}
        short = short | SMALL.get(bundle.name, {})
        source = data if train else data / "test" / "images"
        for embeddings in bundle.glob("labels.safetensors"):
            shutil.copy(embeddings, tmp_path)
        workflow = ConfigWorkflow(
            config_file=config_files(bundle, names),
            logging_file=False,
            workflow_type="train" if train else "infer",
            **{"bundle_root": str(tmp_path), "dataset_dir": str(source), **short, **overrides},
        )
        workflow.initialize()
        return workflow

    return make
