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

import configparser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundle_runs import ROOT, load_config
from monai.bundle import verify_metadata, verify_net_in_out
from monai.bundle.scripts import _safe_large_file_path
from packaging.requirements import Requirement

from monai_ext.networks.download import BASE_URL
from monai_ext.networks.weights import OFFICIAL_WEIGHTS

REQUIRED = {
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"),
    *("required_packages_version", "task", "description", "authors", "copyright", "network_data_format"),
}
SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"


@pytest.fixture
def metadata(any_bundle: Path) -> dict[str, Any]:
    return load_config(any_bundle, "metadata")


def test_the_zoo_finds_what_it_requires(metadata: dict[str, Any]) -> None:
    assert set(metadata) >= REQUIRED
    assert metadata["schema"] == SCHEMA
    assert metadata["version"] in metadata["changelog"]
    for tensors in metadata["network_data_format"].values():
        for tensor in tensors.values():
            assert set(tensor) >= {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"}
            assert len(tensor["channel_def"]) == tensor["num_channels"]


def test_metadata_fit_the_published_schema(any_bundle: Path, shared_data: Path, tmp_path: Path) -> None:
    schema = shared_data.parent / "reference" / "meta_schema_20240725.rebuilt.json"
    if not schema.is_file():
        pytest.skip(f"{schema.name} is checked only where it lies beside the project")
    # MONAI downloads the schema unless it is there.
    shutil.copy(schema, tmp_path / "schema.json")
    verify_metadata(meta_file=str(any_bundle / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))


def test_the_network_is_what_the_metadata_say(any_bundle: Path, metadata: dict[str, Any]) -> None:
    config, meta = (str(any_bundle / "configs" / name) for name in ("inference.json", "metadata.json"))
    verify_net_in_out(
        net_id="network_def", config_file=config, meta_file=meta, device="cpu", bundle_root=str(any_bundle)
    )
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
        assert re.fullmatch(r"\d+(\.\d+)+", version), f"{name} {version} must be one release"
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


def test_only_one_model_is_offered(bundle: Path) -> None:
    assert {path.name for path in bundle.glob("models/*.pt")} <= {"model.pt"}
    for path in bundle.glob("models/model.pt"):
        assert json.loads(path.with_name("adapter.json").read_text())["labels"]
