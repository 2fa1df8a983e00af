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

"""Every trick is told with its level and a word on it, and nothing of it happens."""

from __future__ import annotations

import encodings.cp437  # noqa: F401  (zipfile imports it for old names, which is not what is watched for)
import os
import pickle
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile import CANARY, TRICKS, Trick, write_plain, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ext.share import Finding, inspect_bundle

_EVENTS = ("exec", "import", "os.", "pickle.find_class", "shutil.", "socket.", "subprocess.", "tempfile.", "ctypes.")
# Reading folders is what an inspection does.
_HARMLESS = {"os.listdir", "os.scandir", "os.walk", "os.fwalk"}
_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is None:
        return
    if event == "open":
        flags = arguments[2]
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _seen.append(f"{event} {arguments[0]}")
    elif event.startswith(_EVENTS) and event not in _HARMLESS:
        _seen.append(f"{event} {arguments[:1]}")


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What Python does meanwhile, beyond reading."""
    global _seen
    _seen = events = []
    try:
        yield events
    finally:
        _seen = None


@pytest.fixture(scope="module", autouse=True)
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inspected once with some code: what Python imports for itself is there before it counts."""
    folder = write_plain(tmp_path_factory.mktemp("plain"))
    (folder / "code.py").write_text("import os")
    inspect_bundle(folder)
    (folder / "code.py").unlink()
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plain bundle, which is the working folder: what runs in it leaves its canary there."""
    monkeypatch.chdir(write_plain(tmp_path / "bundle"))
    return tmp_path / "bundle"


def test_the_plain_bundle_has_nothing_to_look_at(plain: Path) -> None:
    assert [finding for finding in inspect_bundle(plain) if finding.level != "ok"] == []


def test_there_are_enough() -> None:
    assert len(TRICKS) > 150 and len({trick.name for trick in TRICKS}) == len(TRICKS)


@pytest.mark.parametrize("trick", TRICKS, ids=[trick.name for trick in TRICKS])
def test_trick(trick: Trick, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        trick.make(folder)
    modules, start = set(sys.modules), time.process_time()
    with watched() as events:
        findings = inspect_bundle(folder)
    assert time.process_time() - start < 10
    told = [finding for finding in findings if finding.level == trick.level]
    assert any(trick.word in f"{finding.what} {finding.why}" for finding in told), told
    assert events == [] and set(sys.modules) == modules and not (folder / CANARY).exists()


# Pipes and links are no files that zipfile packs.
PACKED = [trick for trick in TRICKS if not {"pipe", "link"} & set(trick.name.split())][::12]
NAMES = [
    "a.json",
    "a.yaml",
    "large_files.yml",
    "a.py",
    "a.conf",
    "a.pt",
    "a.pkl",
    "a.npy",
    "a.safetensors",
    "a.png",
    "a",
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.binary(max_size=80) | st.text(alphabet='{}[]":,$@%#\n -_a1', max_size=60).map(str.encode),
)
def test_any_content_is_told_without_an_error(name: str, content: bytes) -> None:
    assert inspect_contents(name, content)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["a.pt", "a.zip", "a.npz", "a.ts"]),
    st.lists(st.tuples(st.integers(0), st.integers(1, 255)), max_size=3),
)
def test_a_damaged_archive_is_told_without_an_error(name: str, damages: list[tuple[int, int]]) -> None:
    content = bytearray(
        zipped(("a/data.pkl", pickle.dumps({"a": print}, 2)), ("a/code/b.py", b"c"), ("a/d.json", b"{}"))
    )
    for place, change in damages:
        content[place % len(content)] ^= change
    assert any(finding.level != "ok" for finding in inspect_contents(name, bytes(content)))


def inspect_contents(name: str, content: bytes) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        return inspect_bundle(folder)


def test_the_folder_in_an_archive_is_no_part_of_the_paths(plain: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for path in [*plain.rglob("*.json"), *plain.rglob("*.pt")]:
            archive.write(path, Path("top") / path.relative_to(plain))
        archive.writestr("top/copy.py", "")
    files = {finding.file: finding.level for finding in inspect_bundle(tmp_path / "bundle.zip")}
    assert files["copy.py"] == "refused" and files["configs/train.json"] == "ok"


@pytest.mark.parametrize("trick", PACKED, ids=[trick.name for trick in PACKED])
def test_the_archive_tells_the_same_as_the_folder(trick: Trick, folder: Path, tmp_path: Path) -> None:
    trick.make(folder)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder))
    in_folder, in_archive = (
        {(finding.level, finding.file, finding.key, finding.what) for finding in inspect_bundle(path)}
        for path in (folder, tmp_path / "bundle.zip")
    )
    assert in_folder == in_archive
