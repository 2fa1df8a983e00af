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
import sys
from pathlib import Path

import numpy as np
from label_server import NUCLEI, ROOT, LabelServer


def test_monai_labels_own_application_gives_the_same_mask(server: LabelServer, tmp_path: Path) -> None:
    """`monaibundle` with `zoo_source local` and `sam2 false`, which needs no internet."""
    app = tmp_path / "monaibundle"
    shutil.copytree(Path(sys.prefix, "monailabel/sample-apps/monaibundle"), app)
    (app / "model").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "bundles" / NUCLEI, app / "model" / NUCLEI)
    studies = tmp_path / "studies"
    studies.mkdir()
    shutil.copy(server.studies / "tissue_0.png", studies)
    words = ["--app", str(app), "--host", "127.0.0.1"]
    for name, value in (("models", NUCLEI), ("zoo_source", "local"), ("sam2", "false")):
        words += ["--conf", name, value]
    other = LabelServer(studies, *words, command=("monailabel.main", "start_server"), cwd=tmp_path)
    try:
        theirs = other.wait().mask(NUCLEI, "tissue_0")
    finally:
        other.kill()
    ours = server.mask(NUCLEI, "tissue_0")
    assert theirs.shape == (80, 96) and theirs.any() and np.array_equal(theirs, ours)
