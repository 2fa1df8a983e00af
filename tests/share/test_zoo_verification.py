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

"""
The model zoo's own verification, step by step as its ``ci/verify_bundle.py`` runs it, on every bundle and offline.

The zoo keeps lists of bundles for which a step is left out; here a bundle is on those that ``zoo_steps`` tells its
author to add it to. What the zoo downloads, the large files and the schema, is stood in for.
"""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import torch
from bundle_runs import BUNDLES, load_config
from monai.apps.utils import download_url
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out

from monai_ext.share import copy_to_zoo
from monai_ext.share.metadata_schema import METADATA_SCHEMA
from monai_ext.share.zoo import zoo_steps


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: path.name)
def original(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def checkout(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the zoo with the bundle in it, as its author's pull request has it."""
    folder = tmp_path_factory.mktemp("zoo") / "model-zoo"
    (folder / "ci").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "models" / "model_info.json").write_text('{"another_bundle_v0.9.0": {"checksum": "1", "source": ""}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_ext.share.pack.check_bundle", lambda _: [])  # tests/share/test_check.py
        copy = copy_to_zoo(original, folder)
    # What `ci/prepare_schema.py` downloads.
    (copy / "eval").mkdir()
    (copy / "eval" / "schema.json").write_text(json.dumps(METADATA_SCHEMA))
    return folder


@pytest.fixture
def bundle(checkout: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the bundle as the zoo's script has it, which starts in the root of the clone."""
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(Path("models") / original.name))
    return Path("models") / original.name


def left_out(original: Path, step: str) -> bool:
    return any(f"exclude_{step}_list" in words for words in zoo_steps(original))


def test_min(bundle: Path, original: Path) -> None:
    """What every pull request must pass."""
    verify_large_files(bundle)
    verify_files(bundle, original)
    verify_version(bundle)
    verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(bundle / "eval/schema.json"))


def test_full(bundle: Path, original: Path, tmp_path: Path) -> None:
    """What a bundle must pass before it is released, beside that; properties of apps are asked of none of ours."""
    assert "supported_apps" not in load_config(bundle, "metadata")
    assert not left_out(original, "verify_shape")
    names = {
        "net_id": "network_def",
        "config_file": str(bundle / "configs/inference.json"),
        "meta_file": str(bundle / "configs/metadata.json"),
        "bundle_root": str(bundle),
    }
    verify_net_in_out(**names, device="cpu")
    # Scripting is what the zoo does with a bundle that is not left out. Once it works, nobody needs the list.
    names |= {"ckpt_file": str(weights_of(bundle, tmp_path)), "filepath": str(tmp_path / "verify_model.ts")}
    with pytest.raises(Exception, match="nn.Parameter"):
        ckpt_export(**names)
    assert left_out(original, "verify_torchscript")
    assert "TorchScript" in (bundle / "docs/README.md").read_text()
    # What holds instead: the same export by tracing.
    ckpt_export(**names, use_trace=True, input_shape=(1, 3, 64, 64))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = network_of(bundle).eval()
    network.load_state_dict(torch.load(names["ckpt_file"], weights_only=True))
    with torch.no_grad():
        traced, eager = torch.jit.load(names["filepath"])(image), network(image)
    torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-4)


def verify_large_files(bundle: Path) -> None:
    """The zoo hands each entry of the list to MONAI's download; the file must land where the bundle looks for it."""
    download = create_autospec(download_url)
    listed = next((path for path in bundle.iterdir() if path.stem == "large_files"), None)
    for entry in ConfigParser.load_config_file(listed)["large_files"] if listed else ():
        download(filepath=str(bundle / entry.pop("path")), **entry, fuzzy=True)
    for call in download.call_args_list:
        assert Path(call.kwargs["filepath"]).parent == bundle / "models/base"


def verify_files(bundle: Path, original: Path) -> None:
    assert (bundle / "configs/metadata.json").is_file() and (bundle / "LICENSE").is_file()
    assert (bundle / "configs/inference.json").is_file()
    assert (bundle / "models/model.pt").is_file() != left_out(original, "verify_preferred_files")


def verify_version(bundle: Path) -> None:
    metadata = load_config(bundle, "metadata")
    assert metadata["version"] in metadata["changelog"]
    released = json.loads((bundle.parent / "model_info.json").read_text())
    assert f"{bundle.name}_v{metadata['version']}" not in released


def weights_of(bundle: Path, folder: Path) -> Path:
    """The bundle's model, or for one that brings none what its training would write."""
    path = bundle / "models/model.pt"
    if not path.is_file():
        path = folder / "model.pt"
        torch.save(network_of(bundle).trained_state_dict(), path)
    return path


def network_of(bundle: Path) -> torch.nn.Module:
    config = ConfigParser(load_config(bundle, "inference") | {"bundle_root": str(bundle)})
    return config.get_parsed_content("network_def")
