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

import errno
import json
import os
from pathlib import Path

import pytest
from bundle_runs import BUNDLES

from monai_ext.__main__ import main
from monai_ext.share import copy_to_zoo
from monai_ext.share.zoo import zoo_steps


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied is checked elsewhere."""
    monkeypatch.setattr("monai_ext.share.pack.check_bundle", lambda _: [])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What matters here of a clone of the zoo."""
    folder = tmp_path / "model-zoo"
    (folder / "ci").mkdir(parents=True)
    (folder / "models" / "another_bundle").mkdir(parents=True)
    (folder / "models" / "model_info.json").write_text('{"another_bundle_v0.9.0": {"checksum": "1", "source": ""}}')
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def set_version(bundle: Path, version: str) -> None:
    path = bundle / "configs/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version, "changelog": {version: "new"}}))


def test_the_bundle_and_nothing_else_is_copied(
    bundle: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, files = tree(checkout), tree(bundle)
    (bundle / "eval").mkdir()
    (bundle / "eval" / "schema.json").write_text("{}")
    (bundle / "models/base").mkdir()
    (bundle / "models/base/sam2.1_hiera_tiny.pt").write_bytes(b"listed in large_files.yml")
    assert main(["publish", str(bundle), "--zoo", str(checkout)]) == 0
    assert tree(checkout) == before | {f"models/{bundle.name}/{name}": content for name, content in files.items()}
    assert [path.name for path in (checkout / "models").iterdir() if path.name.startswith(".")] == []
    out = capsys.readouterr().out
    for words in (
        "exclude_verify_torchscript_list",
        "install_dependency_dict",
        "ci/verify_bundle.py -b",
        "pull request",
    ):
        assert words in out
    assert "exclude_verify_preferred_files_list" not in out


def test_a_listed_model_stays_behind(bundle: Path, checkout: Path) -> None:
    with (bundle / "large_files.yml").open("a") as file:
        file.write('  - path: "models/model.pt"\n    url: "https://example.org/model.pt"\n')
    target = copy_to_zoo(bundle, checkout)
    assert not (target / "models/model.pt").exists() and (target / "models/adapter.json").exists()
    assert not any("preferred" in step for step in zoo_steps(bundle))


@pytest.mark.parametrize("there", ["0.1.0", "0.2.0", "0.10.0"])
@pytest.mark.parametrize("released", [False, True])
def test_an_equal_or_newer_version_stays(there: str, released: bool, bundle: Path, checkout: Path) -> None:
    if released:
        (checkout / "models/model_info.json").write_text(json.dumps({f"{bundle.name}_v{there}": {}}))
    else:
        set_version(bundle, there)
        copy_to_zoo(bundle, checkout)
        set_version(bundle, "0.1.0")
    before = tree(checkout)
    with pytest.raises(ValueError, match=f"has {bundle.name} {there} already.*raise `version`"):
        copy_to_zoo(bundle, checkout)
    assert tree(checkout) == before


def test_an_older_version_is_replaced_whole(bundle: Path, checkout: Path) -> None:
    (bundle / "docs/old.txt").write_text("old")
    copy_to_zoo(bundle, checkout)
    (bundle / "docs/old.txt").unlink()
    set_version(bundle, "0.1.1")
    assert tree(copy_to_zoo(bundle, checkout)) == tree(bundle)


@pytest.mark.parametrize("killed", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=repr)
def test_half_a_copy_is_never_seen(
    killed: BaseException, bundle: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_to_zoo(bundle, checkout)
    set_version(bundle, "0.1.1")
    before = tree(checkout)

    def stop(*_: object) -> None:
        raise killed

    monkeypatch.setattr("monai_ext.share.zoo.shutil.copyfile", stop)
    with pytest.raises(type(killed)):
        copy_to_zoo(bundle, checkout)
    assert tree(checkout) == before


def test_another_folder_is_no_checkout(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(bundle), "--zoo", str(tmp_path)]) == 1
    assert "is no checkout of Project-MONAI/model-zoo" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--hf", "a/b", "--zoo", "c"]])
def test_one_place_at_a_time(words: list[str], bundle: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["publish", str(bundle), *words])
    assert caught.value.code == 2


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_bundles_without_a_model_say_so_to_the_zoo(path: Path) -> None:
    assert any("preferred" in step for step in zoo_steps(path)) == (not (path / "models/model.pt").is_file())
