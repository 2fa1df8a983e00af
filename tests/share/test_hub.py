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

"""Uploads to a stand-in for the hub on this machine; nothing leaves it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_runs import ROOT
from hub_server import TOKEN, Hub, use_hub

from monai_ext.__main__ import main
from monai_ext.share import check_bundle, push_bundle

REPOSITORY = "someone/vessels"


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is uploaded is checked elsewhere."""
    monkeypatch.setattr("monai_ext.share.pack.check_bundle", lambda _: [])


def tree(bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def test_the_hub_gets_the_bundle_the_card_and_the_version(bundle: Path, hub: Hub, tmp_path: Path) -> None:
    before = tree(bundle)
    (bundle / "eval").mkdir()
    (bundle / "eval" / "results.csv").write_text("mine")
    assert push_bundle(bundle, REPOSITORY) == f"{hub.url}/{REPOSITORY}"
    shutil.rmtree(bundle / "eval")
    repository = hub.repositories[REPOSITORY]
    assert repository.private
    card = repository.files["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n") and card.count("\n---\n") == 1
    assert {name: content for name, content in repository.files.items() if name != "README.md"} == before
    assert repository.tags == {"0.1.0": repository.files}
    assert tree(bundle) == before, "publishing changed the bundle"
    # What comes back from the hub is a bundle in order.
    copy = tmp_path / "back" / bundle.name
    for name, content in repository.files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    assert check_bundle(copy) == []


def test_a_version_is_published_once(bundle: Path, hub: Hub) -> None:
    (bundle / "docs/old.txt").write_text("of the first version")
    push_bundle(bundle, REPOSITORY)
    commits = hub.repositories[REPOSITORY].commits
    with pytest.raises(FileExistsError, match="has version 0.1.0 already: raise `version`"):
        push_bundle(bundle, REPOSITORY)
    assert hub.repositories[REPOSITORY].commits == commits
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    metadata |= {"version": "0.1.1", "changelog": {"0.1.1": "better", "0.1.0": "first"}}
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
    (bundle / "docs/old.txt").unlink()
    push_bundle(bundle, REPOSITORY)
    tags = hub.repositories[REPOSITORY].tags
    assert set(tags) == {"0.1.0", "0.1.1"}
    assert set(tags["0.1.0"]) - set(tags["0.1.1"]) == {"docs/old.txt"} and set(tags["0.1.1"]) < set(tags["0.1.0"])


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ("POST /api/repos/create", 401, "refused access.*hf auth login"),
        ("POST /api/repos/create", 403, "refused access.*HF_TOKEN"),
        ("POST /api/repos/create", 0, "could not be reached.*HF_ENDPOINT"),
        ("preupload", 403, "refused access"),
        ("objects/batch", 413, "no room"),
        ("PUT /lfs", 0, "could not be reached"),
        ("PUT /lfs", 403, "refused access"),
        ("commit", 409, "changed by somebody else"),
        ("commit", 412, "changed by somebody else"),
        ("commit", 500, "answered 500"),
        ("tag", 403, "refused access"),
    ],
)
def test_failures_are_one_sentence_and_leave_no_version(
    request_: str, status: int, words: str, bundle: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failures[request_] = status
    assert main(["publish", str(bundle), "--hf", REPOSITORY]) == 1
    # Progress of the upload may stand before it.
    error = capsys.readouterr().err.rpartition("error: ")[2]
    assert error.count("\n") == 1
    assert re.search(words, error), error
    assert not any(repository.tags for repository in hub.repositories.values())
    # The same command, given again, does it.
    hub.failures.clear()
    assert main(["publish", str(bundle), "--hf", REPOSITORY]) == 0
    assert set(hub.repositories[REPOSITORY].tags) == {"0.1.0"}


def test_without_a_token_nothing_is_asked(bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PermissionError, match="no token.*HF_TOKEN"):
        push_bundle(bundle, REPOSITORY)
    assert hub.requests == []


def test_a_wrong_token(bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PermissionError, match="refused access to someone/vessels \\(401\\)"):
        push_bundle(bundle, REPOSITORY)
    assert hub.repositories == {}


def test_nobody_answers(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        use_hub(f"http://127.0.0.1:{free.getsockname()[1]}", monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConnectionError, match="could not be reached"):
        push_bundle(bundle, REPOSITORY)


@pytest.mark.parametrize("name", ["vessels", "a/b/c", "/vessels", "some one/vessels"])
def test_a_name_that_is_none(name: str, bundle: Path, hub: Hub) -> None:
    with pytest.raises(ValueError, match="--hf"):
        push_bundle(bundle, name)
    assert hub.repositories == {}


def test_a_full_disk(bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("monai_ext.share.hub.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left.*TMPDIR"):
        push_bundle(bundle, REPOSITORY)
    assert hub.requests == []


COMMANDS = """
import sys
import monai.bundle
from monai_ext.__main__ import main

bundle, repository, folder = sys.argv[1:]
assert main(["publish", bundle, "--hf", repository]) == 0
name = bundle.rpartition("/")[2]
monai.bundle.download(name=name, source="huggingface_hub", repo=repository, bundle_dir=folder)
"""


def test_what_was_published_is_downloaded_by_monai(bundle: Path, hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, since the library reads the hub's address when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(bundle), REPOSITORY, str(tmp_path / "got")],
        env={**environment, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{hub.url}/{REPOSITORY} holds the bundle." in done.stdout
    assert set(hub.repositories[REPOSITORY].tags) == {"0.1.0"}
    shutil.rmtree(tmp_path / "got" / bundle.name / ".cache")  # of the library
    assert tree(tmp_path / "got" / bundle.name) == hub.repositories[REPOSITORY].files
