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
import hashlib
import json
import os
import random
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fire
import monai.bundle
import pytest
import yaml
from bundle_runs import run_bundle
from PIL import Image

from monai_ext.__main__ import main
from monai_ext.data.phantom import write_phantoms
from monai_ext.share import check_bundle, model_card, pack_bundle

EVALUATION = {
    "date": "2026-11-22",
    "command": "/home/me/.venv/bin/python -m monai.bundle run evaluating --dataset_dir /data/secret/eyes",
    "seed": 0,
    "labels": {
        "vessel": {"dice": {"mean": 0.7123, "std": 0.1, "n": 8, "low": 0.69, "high": 0.75}, "hd95": {"mean": 27.61}}
    },
}


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed is checked elsewhere."""
    monkeypatch.setattr("monai_ext.share.pack.check_bundle", lambda _: [])


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_zip_holds_the_bundle_and_its_card(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(bundle), "--output", str(tmp_path / "out")]) == 0
    path = tmp_path / "out" / f"{bundle.name}_v0.1.0.zip"
    assert str(path) in capsys.readouterr().out
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.sha256"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{digest}  {path.name}\n"
    inside = entries(path)
    card = inside.pop(f"{bundle.name}/MODEL_CARD.md").decode()
    assert card == model_card(bundle)
    files = {
        file.relative_to(bundle.parent).as_posix(): file.read_bytes() for file in bundle.rglob("*") if file.is_file()
    }
    assert inside == files
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {stat.S_IMODE(info.external_attr >> 16) for info in archive.infolist()} == {0o644}


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, tmp_path: Path, trusted: None) -> None:
    first = pack_bundle(bundle, tmp_path / "a").read_bytes()
    for number, path in enumerate(sorted(bundle.rglob("*"), key=lambda _: random.random())):
        path.chmod(0o700 if path.is_dir() else 0o600 + 0o11 * (number % 2))
        os.utime(path, (number, number))
    for name in (
        "eval/results.csv",
        "export/model.onnx",
        ".git/config",
        "models/base/x.pt",
        "resume.pt",
        "scripts/__pycache__/a.pyc",
        ".env",
    ):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("left behind")
    assert pack_bundle(bundle, tmp_path / "b").read_bytes() == first
    # What was unpacked is packed again to the same bytes.
    with zipfile.ZipFile(tmp_path / "a" / f"{bundle.name}_v0.1.0.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert pack_bundle(tmp_path / "unpacked" / bundle.name, tmp_path / "c").read_bytes() == first


def test_a_bundle_that_is_not_in_order_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "LICENSE").unlink()
    (bundle / "docs" / "link.txt").symlink_to(bundle / "large_files.yml")
    assert main(["pack", str(bundle), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "LICENSE is missing, and 1 more" in error and "python -m monai_ext check" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("killed", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=repr)
def test_half_a_zip_is_never_seen(
    killed: BaseException, bundle: Path, tmp_path: Path, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = pack_bundle(bundle, tmp_path / "out").read_bytes()
    (bundle / "docs" / "more.txt").write_text("more")

    def stop(*_: object) -> None:
        raise killed

    monkeypatch.setattr("monai_ext.share.pack.shutil.copyfileobj", stop)
    with pytest.raises(type(killed)) as caught:
        pack_bundle(bundle, tmp_path / "out")
    if isinstance(killed, OSError):
        assert "Free some space" in str(caught.value)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".sha256", ".zip"]
    assert (tmp_path / "out" / f"{bundle.name}_v0.1.0.zip").read_bytes() == old


def front_matter(card: str) -> dict[str, object]:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


class TestCard:
    def test_says_what_the_bundle_says(self, bundle: Path):
        card = model_card(bundle)
        assert front_matter(card) == {
            "license": "apache-2.0",
            "library_name": "monai",
            "pipeline_tag": "image-segmentation",
            "tags": ["monai", "medical", "segmentation", "sam2"],
        }
        described = json.loads((bundle / "models/adapter.json").read_text())
        model = bundle / "models/model.pt"
        for fact in (
            f"{described['trained_parameters']:,} of {described['parameters']:,}",
            f"{model.stat().st_size / 1e6:.1f} MB",
            hashlib.sha256(model.read_bytes()).hexdigest(),
            "SAM 2 micro, part of the package monai_ext, Apache-2.0",
            "| vessel | dice | 0.755 | 0.742 .. 0.766 | 8 |",
            "Research only; not a medical device",
            "children 01-08 of CHASE_DB1",
            "may fail on others",
            "monai 1.6.1, torch 2.13.0",
        ):
            assert fact in card, fact

    def test_an_evaluation_goes_before_the_metadata_and_names_no_folder(self, bundle: Path, tmp_path: Path):
        (tmp_path / "summary.json").write_text(json.dumps(EVALUATION))
        card = model_card(bundle, evaluation=tmp_path / "summary.json")
        assert "| vessel | dice | 0.712 | 0.690 .. 0.750 | 8 |" in card and "| vessel | hd95 | 27.61 |  |  |" in card
        assert "0.755" not in card.split("## Limitations")[0].split("## Results")[1]
        assert "- command: python -m monai.bundle run evaluating --dataset_dir eyes" in card
        assert not re.search("/home|/data/secret", card)

    def test_what_is_not_known_is_said_to_be_unknown(self, bundle: Path):
        metadata = json.loads((bundle / "configs/metadata.json").read_text())
        for key in ("intended_use", "eval_metrics", "data_source"):
            del metadata[key]
        del metadata["network_data_format"]["inputs"]["image"]["modality"]
        (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
        (bundle / "docs/README.md").write_text("# Nothing\n")
        (bundle / "LICENSE").write_text("All rights reserved.\n")
        (bundle / "models/adapter.json").unlink()
        card = model_card(bundle)
        assert front_matter(card)["license"] == "other"
        assert "| modality | Not known. |" in card and "| base | Not known. |" in card
        assert "| trained parameters | Not known. |" in card
        assert "## Intended use\n\nNot known." in card and "## Limitations\n\nNot known." in card
        assert "## Results\n\nNot measured, or not known." in card

    @pytest.mark.parametrize(
        ("weights", "base", "words"),
        [
            ("sam2.1_hiera_tiny", "facebook/sam2.1-hiera-tiny", "Apache-2.0, Meta Platforms"),
            ("sam2.1_hiera_base_plus", "facebook/sam2.1-hiera-base-plus", "Apache-2.0, Meta Platforms"),
            ("/home/me/own.pt", None, "| base | own.pt; its licence is not known |"),
            (None, None, "trained from random weights"),
        ],
    )
    def test_the_base(self, weights: str | None, base: str | None, words: str, bundle: Path):
        path = bundle / "models/adapter.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": weights}))
        card = model_card(bundle)
        assert front_matter(card).get("base_model") == base
        assert words in card

    def test_a_bundle_without_a_model(self, bundle: Path):
        (bundle / "models/model.pt").unlink()
        assert "| model | none: the bundle comes without `models/model.pt` |" in model_card(bundle)

    @pytest.mark.parametrize("content", ["", "[]", '{"labels": {}}', '{"labels": {"a": {"dice": "good"}}}'])
    def test_a_file_that_is_no_evaluation(self, content: str, bundle: Path, tmp_path: Path):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match="holds no scores"):
            model_card(bundle, evaluation=tmp_path / "x.json")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served on 127.0.0.1, and its address."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join(5)


def test_monai_downloads_it_and_it_runs(bundle: Path, server: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = server
    path = pack_bundle(bundle, folder)
    command = ["download", "--name", bundle.name, "--url", f"{url}/{path.name}", "--bundle_dir", str(tmp_path / "got")]
    # What `monai.bundle.__main__` does with the command line.
    fire.Fire({"download": monai.bundle.download}, command=[*command, "--progress", "False"])
    copy = tmp_path / "got" / bundle.name
    assert check_bundle(copy) == []
    (image,) = write_phantoms(tmp_path / "photographs", count=1, size=64)
    run_bundle(copy, "inference", dataset_dir=image.parent, output_dir=tmp_path / "masks", image_size=64)
    assert Image.open(tmp_path / "masks" / f"{image.stem}_mask.png").size == (64, 64)
