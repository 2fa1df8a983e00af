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

import hashlib
import socket
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from monai_ext.__main__ import main
from monai_ext.networks import cli, weights
from monai_ext.networks.download import download_weights

NAME = "sam2.1_hiera_tiny"
CONTENT = b"the weights"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where weights can lie; the table names CONTENT, and the server is down."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MONAI_EXT_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = dict(weights.OFFICIAL_WEIGHTS)
    table[NAME] = weights.OfficialWeights(hashlib.sha256(CONTENT).hexdigest(), "11 bytes", len(CONTENT))
    monkeypatch.setattr(weights, "OFFICIAL_WEIGHTS", MappingProxyType(table))
    monkeypatch.setattr(cli, "OFFICIAL_WEIGHTS", weights.OFFICIAL_WEIGHTS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setitem(download_weights.__kwdefaults__, "base_url", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr("monai_ext.networks.download.PAUSE", 0.0)
    (tmp_path / "monai_ext").mkdir()
    return tmp_path / "monai_ext"


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr, without a traceback; nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


class TestHelp:
    def test_as_a_module(self):
        done = subprocess.run([sys.executable, "-m", "monai_ext", "--help"], capture_output=True, text=True, check=True)
        assert "usage: python -m monai_ext" in done.stdout
        assert "weights" in done.stdout and "data" in done.stdout

    @pytest.mark.parametrize("words", [["--help"], ["weights", "--help"], ["data", "--help"]])
    def test_every_command_has_help(self, words: list[str], capsys: pytest.CaptureFixture[str]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert "usage: python -m monai_ext" in capsys.readouterr().out

    @pytest.mark.parametrize("words", [[], ["wieghts"], ["weights", NAME, "more"], ["weights", "--fodler", "."]])
    def test_wrong_usage(self, words: list[str], capsys: pytest.CaptureFixture[str]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert "usage:" in capsys.readouterr().err


class TestWeights:
    def test_lists_what_there_is(self, cache: Path, capsys: pytest.CaptureFixture[str]):
        (cache / f"{NAME}.pt").write_bytes(CONTENT)
        assert main(["weights"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["micro", *weights.OFFICIAL_WEIGHTS]
        assert "sam2_micro.safetensors" in lines[0] and str(cache / f"{NAME}.pt") in lines[1]
        assert all("not downloaded" in line for line in lines[2:])

    def test_what_comes_with_the_package_is_not_downloaded(self, capsys: pytest.CaptureFixture[str]):
        assert main(["weights", "micro"]) == 0
        assert "comes with the package" in capsys.readouterr().out

    @pytest.mark.parametrize("folder", [None, "models/base"])
    def test_prints_the_path(self, cache: Path, folder: str | None, capsys: pytest.CaptureFixture[str]):
        path = (cache if folder is None else Path(folder)) / f"{NAME}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
        assert main(["weights", NAME] + ([] if folder is None else ["--folder", folder])) == 0
        assert capsys.readouterr().out == f"{path}\n"

    def test_offline(self, cache: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["weights", NAME]) == 1
        assert f"by hand to {cache / NAME}.pt" in one_error(capsys)

    def test_unknown_name(self, cache: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["weights", "tiny"]) == 1
        assert f"Did you mean '{NAME}'?" in one_error(capsys)

    def test_other_file_there(self, cache: Path, capsys: pytest.CaptureFixture[str]):
        (cache / f"{NAME}.pt").write_bytes(b"something")
        assert main(["weights", NAME]) == 1
        assert "not the official file" in one_error(capsys)

    def test_folder_without_name(self, cache: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["weights", "--folder", "there"]) == 1
        assert "--folder there needs the NAME" in one_error(capsys)

    def test_stopped_by_the_user(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        def stop(*_: object) -> Path:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "download_weights", stop)
        assert main(["weights", NAME]) == 130
        assert capsys.readouterr().err == "stopped\n"
