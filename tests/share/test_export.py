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
import json
import zipfile
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from bundle_runs import BASE, BUNDLES, SHORT, VESSELS, load_config
from monai.bundle import ConfigParser
from PIL import Image
from safetensors.torch import load_file

from monai_ext.__main__ import main
from monai_ext.adapters import BottleneckMLP, LoRA
from monai_ext.networks import SAM2Segmenter
from monai_ext.share import export_bundle, formats, merged_network
from monai_ext.share.comparison import compare_logits, windows_of
from monai_ext.share.part_export import PartExport
from monai_ext.share.parts import EncoderPart, part_inputs
from monai_ext.share.trained_bundle import open_trained_bundle

SIDE = SHORT["image_size"]
FILES = {file for entry in formats.FORMATS.values() for file in entry.files.values()}


@pytest.fixture(scope="module")
def network() -> SAM2Segmenter:
    """The network as the bundle runs it, with its adapters."""
    return open_trained_bundle(VESSELS).network


@pytest.fixture(scope="module")
def asked(exported: Path, network: SAM2Segmenter) -> dict[str, formats.Asked]:
    """The exported files that run by themselves, opened once, as functions."""
    return {
        file: entry.read(exported / file, network)
        for name, entry in formats.FORMATS.items()
        for file in entry.files.values()
        if name in ("torchscript", "pt2", "onnx")
    }


def images(count: int, seed: int = 0, side: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class TestFiles:
    def test_what_is_written_and_said_of_it(self, exported: Path) -> None:
        record = json.loads((exported / "export.json").read_text())
        assert {path.name for path in exported.iterdir()} == {*FILES, "export.json", "onnx_runner.py"}
        assert set(record["files"]) == FILES
        for name, file in record["files"].items():
            content = (exported / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
            assert file["dice"] >= 0.999 and file["max_difference"] < 1e-3
        settings, config = record["inference"], load_config(VESSELS, "inference")
        assert settings["labels"] == config["labels"] and settings["threshold"] == config["threshold"]
        assert settings["window"] == settings["size"] == [SIDE] * 2
        assert (settings["overlap"], settings["mode"]) == ([0.5, 0.5], "constant")
        assert record["versions"]["torch"] and record["versions"]["onnx"]

    @pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
    def test_weights_are_a_plain_networks(self, name: str, exported: Path, network: SAM2Segmenter) -> None:
        path = exported / name
        state = torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)
        assert not [key for key in state if "adapter" in key or ".base." in key]
        plain = SAM2Segmenter(**json.loads((exported / "export.json").read_text())["network"]).eval()
        plain.load_state_dict(state)
        with torch.no_grad():
            torch.testing.assert_close(plain(images(1)), network(images(1)), atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("name", ["model.ts", "model.pt2", "model.onnx"])
    def test_any_number_of_images(self, name: str, asked: dict[str, formats.Asked], network: SAM2Segmenter) -> None:
        for count in (1, 3):
            with torch.no_grad():
                logits, expected = asked[name]({"image": images(count)})[0], network(images(count))
            torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)

    def test_files_say_their_settings(self, exported: Path) -> None:
        told = json.loads((exported / "export.json").read_text())["inference"] | {"part": "model"}
        extra = {"monai_ext.json": ""}
        torch.jit.load(exported / "model.ts", _extra_files=extra)
        assert json.loads(extra["monai_ext.json"]) == told
        with zipfile.ZipFile(exported / "model.pt2") as archive:  # torch.export.load takes seconds
            (extra_file,) = (name for name in archive.namelist() if name.endswith("/extra/monai_ext.json"))
            assert json.loads(archive.read(extra_file)) == told
        session = onnxruntime.InferenceSession(exported / "model.onnx")
        assert json.loads(session.get_modelmeta().custom_metadata_map["monai_ext"]) == told

    @pytest.mark.parametrize("clicks", [1, 3])
    def test_a_click_costs_only_the_decoder(
        self, clicks: int, asked: dict[str, formats.Asked], network: SAM2Segmenter
    ) -> None:
        image = images(1, seed=5)
        points = torch.rand(1, clicks, 2, generator=torch.Generator().manual_seed(1)) * SIDE
        kinds = torch.tensor([[1, 0, 1]])[:, :clicks]
        embedded = dict(zip(EncoderPart.outputs, asked["encoder.onnx"]({"image": image}), strict=True))
        with torch.no_grad():
            embedding = network.encode(image)
            for labels in (kinds, torch.full_like(kinds, 2)):
                logits, iou = asked["decoder.onnx"]({**embedded, "points": points, "point_labels": labels})
                expected = network.decode(embedding, points, labels)
                torch.testing.assert_close(logits, expected[0], atol=1e-3, rtol=1e-3)
                torch.testing.assert_close(iou, expected[1], atol=1e-3, rtol=1e-3)


class TestRealImages:
    """Of three modalities; what the network was not trained on must come out the same, too."""

    @pytest.fixture(scope="class", params=["photograph", "ct", "nuclei"])
    def windows(
        self, request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> torch.Tensor:
        if request.param == "ct":
            volume = np.asarray(nibabel.load(shared_data / "totalsegmentator_ct" / "example_ct_sm.nii.gz").dataobj)
            shown = np.clip((volume[..., volume.shape[2] // 2] + 160) / 400, 0, 1)  # soft tissue
            picture = Image.fromarray((255 * shown).astype(np.uint8).T).convert("RGB")
        elif request.param == "nuclei":
            picture = Image.open(sorted(shared_data.glob("dsb2018_stained/*/images/*.png"))[-1])
        else:
            picture = Image.open(shared_data / "chase_db1/test/images/Image_11L.jpg").crop((330, 380, 530, 580))
        path = tmp_path_factory.mktemp(request.param) / "image.png"
        picture.convert("RGB").save(path)
        return windows_of(open_trained_bundle(VESSELS).read_image(path), (SIDE, SIDE))

    @pytest.mark.parametrize("name", ["model.ts", "model.pt2", "model.onnx"])
    def test_masks(
        self, name: str, windows: torch.Tensor, asked: dict[str, formats.Asked], network: SAM2Segmenter
    ) -> None:
        with torch.no_grad():
            difference, dice = compare_logits(asked[name]({"image": windows})[0], network(windows), 0.5)
        assert dice >= 0.999 and difference < 1e-3

    def test_masks_of_clicks(
        self, windows: torch.Tensor, asked: dict[str, formats.Asked], network: SAM2Segmenter
    ) -> None:
        clicks = {name: part_inputs(network, windows)["decoder"][name] for name in ("points", "point_labels")}
        embedded = dict(zip(EncoderPart.outputs, asked["encoder.onnx"]({"image": windows}), strict=True))
        with torch.no_grad():
            expected = network.decode(network.encode(windows), **clicks)[0]
        difference, dice = compare_logits(asked["decoder.onnx"]({**embedded, **clicks})[0], expected, 0.5)
        assert dice >= 0.999 and difference < 1e-3


class TestRefusals:
    """Each comes before anything is written, in one sentence."""

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--format", "tflite"], "format must be one of safetensors, pt, torchscript, pt2, onnx, not 'tflite'"),
            (["--size", "8", "112"], "size must be height and width of at least 16"),
            (["--checkpoint", "nowhere.pt"], "nowhere.pt does not exist: train first"),
            (["--image", "nothing.png", "--format", "pt"], "nothing.png"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_words(
        self, words: list[str], told: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = sorted(tmp_path.rglob("*"))
        assert main(["export", str(bundle), "--output", str(tmp_path / "out"), *words]) == 1
        assert told in self.sentence(capsys) and sorted(tmp_path.rglob("*")) == before

    def test_no_bundle(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["export", str(tmp_path)]) == 1
        assert "is no bundle" in self.sentence(capsys) and not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("network_def", {"_target_": "torch.nn.Identity"}, "network_def must be a SAM2Segmenter, not Identity"),
            ("inferer", {"_target_": "SaliencyInferer", "cam_name": "CAM", "target_layers": "x"}, "inferer must be"),
            ("preprocessing", {"transforms": [{"_target_": "LoadImaged"}]}, "must have NormalizeIntensityd"),
        ],
    )
    def test_a_config_of_another_kind(
        self, key: str, value: object, told: str, bundle: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = bundle / "configs" / "inference.json"
        config.write_text(json.dumps(load_config(bundle, "inference") | {key: value}))
        assert main(["export", str(bundle), "--format", "pt"]) == 1
        assert told in self.sentence(capsys) and not (bundle / "export").exists()

    def test_no_model(self, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (bundle / "models" / "model.pt").unlink()
        assert main(["export", str(bundle)]) == 1
        assert "model.pt does not exist: train first" in self.sentence(capsys)
        assert not (bundle / "export").exists()

    def test_a_model_of_another_base(self, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
        state = torch.load(bundle / "models" / "model.pt", weights_only=True)
        state["fingerprint"] = state["fingerprint"] ^ 1
        torch.save(state, bundle / "models" / "model.pt")
        assert main(["export", str(bundle)]) == 1
        assert "model.pt does not fit" in self.sentence(capsys) and not (bundle / "export").exists()

    def test_a_missing_package(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(formats, "find_spec", lambda name: None)
        assert main(["export", str(bundle), "--format", "pt", "onnx"]) == 1
        assert "pip install onnx onnxruntime onnxscript" in self.sentence(capsys)
        assert not (bundle / "export").exists()

    def test_a_folder_that_is_a_file(self, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["export", str(bundle), "--output", str(bundle / "LICENSE"), "--format", "pt"]) == 1
        assert "LICENSE is not a folder" in self.sentence(capsys)

    def test_adapters_that_are_no_change_of_weights(self, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_as(bundle, SAM2Segmenter(size="micro", adapters=[BottleneckMLP(targets=["*trunk.blocks.0"], width=4)]))
        assert main(["export", str(bundle), "--format", "pt"]) == 1
        assert "cannot be merged" in self.sentence(capsys) and not (bundle / "export").exists()

    def sentence(self, capsys: pytest.CaptureFixture[str]) -> str:
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert out == "" and len(lines) == 1 and "Traceback" not in err
        return lines[0]


def save_as(bundle: Path, network: SAM2Segmenter) -> None:
    torch.save(network.trained_state_dict(), bundle / "models" / "model.pt")
    (bundle / "models" / "adapter.json").write_text(json.dumps(network.describe()))


def test_a_file_that_differs_is_not_left_behind(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_other(source: PartExport, settings: Any, path: Path) -> None:
        state = source.part.network.state_dict()
        torch.save({k: v if v.dtype == torch.uint8 else v * 1.3 for k, v in state.items()}, path)

    table = dict(formats.FORMATS)
    table["pt"] = table["pt"]._replace(write=write_other)
    monkeypatch.setattr("monai_ext.share.export.FORMATS", table)
    assert main(["export", str(bundle), "--format", "pt", "safetensors"]) == 1
    assert "model.pt differs from the network" in capsys.readouterr().err
    assert {path.name for path in (bundle / "export").iterdir()} == {"export.json", "model.safetensors"}
    record = json.loads((bundle / "export" / "export.json").read_text())
    assert set(record["files"]) == {"model.safetensors"}
    # No size was given, so it is the bundle's window.
    assert record["inference"]["size"] == [load_config(bundle, "inference")["image_size"]] * 2


def test_adapter_json_goes_before_the_config(bundle: Path, tmp_path: Path) -> None:
    network = SAM2Segmenter(
        size="micro", weights="micro", labels=["disc", "cup"], adapters=[LoRA(targets=["*trunk*attn.qkv"], rank=2)]
    )
    save_as(bundle, network)
    record = export_bundle(bundle, tmp_path / "out", formats=["safetensors"], size=(48, 64))
    assert record["inference"]["labels"] == ["disc", "cup"] and record["inference"]["size"] == [48, 64]
    assert record["network"]["enlarge"] == 1


@pytest.mark.parametrize("source", BUNDLES, ids=lambda path: path.name)
def test_every_bundle_can_be_exported(source: Path, tmp_path: Path) -> None:
    config = ConfigParser(ConfigParser.load_config_file(source / "configs" / "inference.json"))
    config["bundle_root"] = str(source)
    given = None
    if source != BASE:
        given = tmp_path / "model.pt"
        torch.save(config.get_parsed_content("network_def").trained_state_dict(), given)
    record = export_bundle(source, tmp_path / "out", formats=["pt"], checkpoint=given, size=(SIDE, SIDE))
    settings = record["inference"]
    assert settings["labels"] == config["labels"] and settings["longest_side"] == config.get("longest_side")
    assert settings["field_of_view"] == source.name.startswith("fundus")
    assert settings.get("ct_windows", []) == ([[40, 400], [30, 150], [0, 2000]] if source.name.startswith("ct") else [])


def test_a_merged_network_keeps_the_choice_among_masks() -> None:
    network = SAM2Segmenter(size="micro", weights="micro", multimask=True, dynamic_multimask=True).eval()
    merged = merged_network(network)
    click = {"points": torch.tensor([[[20.0, 30.0]]]).repeat(2, 1, 1), "point_labels": torch.ones(2, 1)}
    with torch.no_grad():
        torch.testing.assert_close(merged(images(2, side=64), **click), network(images(2, side=64), **click))


class TestComparison:
    def test_empty_masks_do_not_hide_a_difference(self) -> None:
        truth = torch.linspace(-9, -5, 100)
        assert compare_logits(truth.clone(), truth, 0.5)[1] == 1
        assert compare_logits(truth.flip(0), truth, 0.5)[1] < 0.1
        assert compare_logits(-truth, -truth.flip(0), 0.5)[1] < 0.1

    @pytest.mark.parametrize("sides", [(20, 500), (112, 112), (1411, 1411)])
    @pytest.mark.parametrize("longest", [None, 300])
    def test_windows_fit_into_any_image(self, sides: tuple[int, int], longest: int | None) -> None:
        assert windows_of(torch.rand(3, *sides), (112, 96), longest).shape == (4, 3, 112, 96)


class TestMonai:
    """What MONAI's own commands do with our bundles."""

    def test_ckpt_export(self, network: SAM2Segmenter, tmp_path: Path) -> None:
        monai.bundle.ckpt_export(
            filepath=str(tmp_path / "model.ts"),
            config_file=str(VESSELS / "configs" / "inference.json"),
            bundle_root=str(VESSELS),
            use_trace=True,
        )
        traced = torch.jit.load(tmp_path / "model.ts")
        with torch.no_grad():
            given = images(2, side=load_config(VESSELS, "inference")["image_size"])
            torch.testing.assert_close(traced(given), network(given), atol=1e-4, rtol=1e-4)
