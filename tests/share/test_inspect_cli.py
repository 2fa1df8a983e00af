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
from pathlib import Path

import pytest
from hostile import write, write_plain, zipped

from monai_ext.__main__ import main
from monai_ext.share import inspect_bundle

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_plain(tmp_path / "bundle")


@pytest.mark.parametrize("bundle", BUNDLES, ids=[bundle.name for bundle in BUNDLES])
def test_our_bundles_have_nothing_to_look_at(bundle: Path) -> None:
    findings = inspect_bundle(bundle)
    told = [f for f in findings if f.level != "ok" and "__pycache__" not in f.file and not f.file.startswith("eval/")]
    assert told == [], "Is it harmless? Then add this very entry, with its reason, to monai_ext/share/allowed.py."
    # What is fine is listed as well: every target and every expression.
    text = "\n".join(path.read_text() for path in bundle.glob("configs/*.json"))
    kinds = [f for f in findings if f.key.endswith("_target_")], [f for f in findings if f.what.startswith("$")]
    assert (len(kinds[0]), len(kinds[1])) == (text.count('"_target_"'), text.count('"$'))


def test_there_are_bundles() -> None:
    assert len(BUNDLES) >= 9


def test_nothing_to_look_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder}: 0 refused, 0 to look at, ") and out.count("\n") == 1


def test_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "configs/evil.json", json.dumps({"net": {"_target_": "os.system"}, "x": "$eval('1')"}))
    write(folder / "data.pkl", b"cos\nsystem\n(S'ls'\ntR.")
    assert main(["inspect", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data.pkl"
    assert lines[1] == "  refused  os.system" and lines[2].strip().startswith("The pickle imports it")
    at = lines.index("configs/evil.json")
    assert lines[at + 1] == "  look     net#_target_: os.system" and lines[at + 2].strip() == "It starts programs."
    assert lines[at + 3] == "  look     x: $eval('1')"
    assert lines[-1].startswith(f"{folder}: 1 refused, 3 to look at, ")


def test_json(folder: Path, tmp_path: Path) -> None:
    write(folder / "configs/evil.json", json.dumps({"net": {"_target_": "os.system"}}))
    out = tmp_path / "more" / "findings.json"
    assert main(["inspect", str(folder), "--json", str(out)]) == 1
    findings = json.loads(out.read_text())
    assert {"level": "ok", "file": "configs/train.json", "key": "output_dir"}.items() <= next(
        f for f in findings if f["key"] == "output_dir"
    ).items()
    assert [f["what"] for f in findings if f["level"] == "look"] == ["os.system"]
    assert all(set(f) == {"level", "file", "key", "what", "why"} for f in findings)
    assert list(out.parent.iterdir()) == [out]


def test_a_terminal_is_not_steered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "docs" / "a\x1b[2J\u202e.exe", b"MZ")
    write(folder / "configs/a.json", json.dumps({"a\x1b]0;x\x07": {"_target_": "os.system\r\nok"}}))
    assert main(["inspect", str(folder)]) == 1
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\r", "\x07"} & set(out) and r"a\x1b[2J\u202e.exe" in out


def test_long_words_are_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "configs/a.json", json.dumps({"a": "$" + "[" * 1500}))
    assert main(["inspect", str(folder)]) == 1
    assert all(len(line) < 400 for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "name, content",
    [
        ("nothing.zip", None),
        ("empty.zip", zipped()),
        ("cut.zip", zipped(("configs/train.json", b"{}"))[:-25]),
        ("text.zip", b"no archive"),
        ("bundle.tar", b"\0" * 600),
    ],
)
def test_no_bundle(name: str, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        write(tmp_path / name, content)
    assert main(["inspect", str(tmp_path / name)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and name in err


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert "is empty" in capsys.readouterr().err


def test_a_folder_that_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "README.md", "# Nothing")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "no config" in capsys.readouterr().out
