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

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from monai_ext.label import AdapterVersions, RequestRefused


@pytest.fixture
def versions(tmp_path: Path) -> AdapterVersions:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").write_bytes(b"0")
    return AdapterVersions(tmp_path / "tuned", tmp_path / "models")


def add(versions: AdapterVersions, content: bytes) -> None:
    with versions.new() as folder:
        (folder / "model.pt").write_bytes(content)
        (folder / "adapter.json").write_text(json.dumps({"content": content.decode()}))


def test_new_ones_come_into_use_and_the_way_back_stays_open(versions: AdapterVersions) -> None:
    assert versions.numbers() == [0] and versions.current == 0
    add(versions, b"1")
    add(versions, b"2")
    assert versions.numbers() == [0, 1, 2] and versions.path.read_bytes() == b"2"
    for number in (1, 0, 2):
        versions.use(number)
        assert versions.current == number and versions.path.read_bytes() == str(number).encode()
    assert versions.describe()["versions"][1] == {"content": "1"}
    versions.use(0)
    add(versions, b"3")
    assert versions.current == 3


def test_the_bundle_is_never_written_to(versions: AdapterVersions) -> None:
    before = {path: path.read_bytes() for path in versions.shipped.rglob("*")}
    add(versions, b"1")
    assert {path: path.read_bytes() for path in versions.shipped.rglob("*")} == before


def test_a_training_that_fails_or_keeps_nothing_leaves_no_trace(versions: AdapterVersions) -> None:
    with pytest.raises(RequestRefused, match="kept no model"), versions.new():
        pass
    with pytest.raises(KeyboardInterrupt), versions.new() as folder:
        (folder / "model.pt").write_bytes(b"half")
        raise KeyboardInterrupt
    assert versions.current == 0 and not list(versions.folder.iterdir())


def test_unknown_versions_are_refused(versions: AdapterVersions) -> None:
    add(versions, b"1")
    with pytest.raises(RequestRefused, match="Version 7 is not there: there are 0, 1") as caught:
        versions.use(7)
    assert caught.value.status == 404 and versions.current == 1


@pytest.mark.parametrize("content", ["", "{", '{"version": 9}', "[]", '{"version": "a"}'])
def test_a_choice_that_cannot_be_read_is_the_newest(versions: AdapterVersions, content: str) -> None:
    add(versions, b"1")
    (versions.folder / "current.json").write_text(content)
    assert versions.current == 1


def test_nothing_trained(tmp_path: Path) -> None:
    versions = AdapterVersions(tmp_path / "tuned", tmp_path / "models")
    assert versions.numbers() == [] and versions.current is None and versions.path is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_killed_at_any_moment_all_versions_stay_whole(versions: AdapterVersions) -> None:
    draw = random.Random(0)
    for _ in range(20):
        before = versions.numbers()
        if not (child := os.fork()):
            for _ in range(1000):
                add(versions, b"x" * 100_000)
            os._exit(0)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        versions.clean()
        assert set(before) <= set(versions.numbers())
        assert all(versions.path_of(n).stat().st_size == 100_000 for n in versions.numbers() if n)
        assert versions.current in versions.numbers()
        assert not list(versions.folder.glob(".*"))
