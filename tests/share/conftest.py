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

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle_runs import SHORT, VESSELS
from filelock import FileLock
from hub_server import TOKEN, Hub, running_hub, use_hub

from monai_ext.share import export_bundle


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vessel bundle's shipped model in all formats, for small windows; read only, made once for all workers."""
    folder = tmp_path_factory.getbasetemp() / "exported"
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parents[1] / "exported"
    with FileLock(f"{folder}.lock"):
        if not (folder / "export.json").is_file():
            export_bundle(VESSELS, folder, size=(SHORT["image_size"], SHORT["image_size"]))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a bundle with a model, to break or to share."""
    left_out = shutil.ignore_patterns("eval", "export", "base", "__pycache__")
    return Path(shutil.copytree(VESSELS, tmp_path / "bundles" / VESSELS.name, ignore=left_out))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in for the hub, which the library takes for the real one, with a token that it knows."""
    with running_hub() as server:
        use_hub(server.url, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
