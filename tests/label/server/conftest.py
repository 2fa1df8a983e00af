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

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from label_pictures import draw_picture  # noqa: E402
from label_server import LabelServer  # noqa: E402


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small pictures of three formats, one that is cut off, and one that lies elsewhere."""
    folder = tmp_path_factory.mktemp("work") / "studies"
    for number, suffix in enumerate(("png", "png", "jpg", "tif", "png", "png")):
        draw_picture(folder / f"tissue_{number}.{suffix}", size=(96, 80), seed=number)
    draw_picture(folder.parent / "elsewhere.png", seed=9)
    (folder / "linked.png").symlink_to(folder.parent / "elsewhere.png")
    (folder / "cut.png").write_bytes((folder / "tissue_0.png").read_bytes()[:3000])
    return folder


@pytest.fixture(scope="session")
def server(studies: Path) -> Iterator[LabelServer]:
    running = LabelServer(studies)
    try:
        yield running.wait()
    finally:
        running.kill()
