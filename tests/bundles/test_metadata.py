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


"""What the metadata say beside the rules of the zoo, which `tests/share/test_check.py` checks for every bundle."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundle_runs import ROOT, load_config
from monai.bundle.scripts import _safe_large_file_path
from packaging.requirements import Requirement

from monai_ext.networks.download import BASE_URL
from monai_ext.networks.weights import OFFICIAL_WEIGHTS


@pytest.fixture
def metadata(any_bundle: Path) -> dict[str, Any]:
    return load_config(any_bundle, "metadata")


def test_every_tensor_names_its_channels(metadata: dict[str, Any]) -> None:
    for tensors in metadata["network_data_format"].values():
        assert all(tensor["channel_def"] for tensor in tensors.values())


def test_the_labels_are_those_of_the_metadata(any_bundle: Path, metadata: dict[str, Any]) -> None:
    settings = load_config(any_bundle, "train")
    formats = metadata["network_data_format"]
    assert list(formats["outputs"]["pred"]["channel_def"].values()) == settings["labels"]
    assert formats["inputs"]["image"]["spatial_shape"] == [settings["image_size"]] * 2


def test_versions_are_ones_that_the_package_allows(metadata: dict[str, Any]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    allowed = {r.name: r.specifier for r in map(Requirement, setup["options"]["install_requires"].split())}
    named = {name: metadata[f"{name}_version"] for name in ("monai", "numpy")}
    named |= {"torch": metadata["pytorch_version"], **metadata["required_packages_version"]}
    for name, version in named.items():
        assert name in allowed and allowed[name].contains(version), f"{name} {version} is outside setup.cfg"


def test_large_files_are_the_official_ones(bundle: Path) -> None:
    entries = yaml.safe_load((bundle / "large_files.yml").read_text())["large_files"]
    assert entries
    for entry in entries:
        path = Path(_safe_large_file_path(bundle, entry["path"]))
        assert path.parent == bundle / "models" / "base", "elsewhere MONAI Label would offer it as a model"
        assert entry["url"] == f"{BASE_URL}/{path.name}"
        assert (entry["hash_type"], entry["hash_val"]) == ("sha256", OFFICIAL_WEIGHTS[path.stem].sha256)
        assert set(entry) == {"path", "url", "hash_type", "hash_val"}
