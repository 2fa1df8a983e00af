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

"""The command `python -m monai_ext demo`: the whole way from data to pictures, on data drawn on the spot."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from monai_ext.data.phantom import write_phantoms, write_retina

BUNDLE = Path(__file__).parents[2] / "bundles" / "fundus_vessel_segmentation"
PARTS = ("before", "after")
MODES = {"none": "automatic", "points_1": "one click per vessel tree"}
SYNTHETIC = "The images are SYNTHETIC: drawn, not photographed. The figures say that all parts work, nothing more."


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``demo`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "demo",
        help="train, segment and evaluate on synthetic fundus images (about 7 minutes on 2 cores)",
        description=f"Draws fundus images with vessel masks, trains SAM 2.1 micro with LoRA, segments and evaluates. "
        f"{SYNTHETIC}",
    )
    parser.add_argument("--folder", default="runs/demo", help="where everything goes (default: runs/demo)")
    parser.add_argument("--epochs", type=int, default=6, help="training epochs (default: 6)")
    parser.add_argument("--steps", type=int, default=60, help="steps of an epoch (default: 60)")
    parser.add_argument("--size", type=int, default=384, help="pixels on a side of the images (default: 384)")
    parser.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    if not BUNDLE.is_dir():
        raise FileNotFoundError(f"{BUNDLE} is missing: the demo runs from a clone of the repository, with its bundles.")
    folder = Path(args.folder).resolve()
    print(SYNTHETIC)
    _draw(folder / "data", args.size)
    model = ["--ckpt_dir", str(folder / "models"), "--bundle_root", str(BUNDLE)]
    data = ["--dataset_dir", str(folder / "data")]
    length = ["--max_epochs", str(args.epochs), "--steps_per_epoch", str(args.steps)]
    length += ["--val_interval", str(min(2, args.epochs))]  # only an epoch that is validated can be kept as the best
    before, after = [*data, *model, "--output_dir", str(folder / "before")], [*data, *model]
    for mode in MODES:
        _run("evaluating", ["train", "evaluate", "evaluate_base"], [*before, "--prompt_mode", mode])
    _run("training", ["train"], [*after, *length, "--output_dir", str(folder / "training")])
    after += ["--output_dir", str(folder / "after")]
    for mode in MODES:
        _run("evaluating", ["train", "evaluate"], [*after, "--prompt_mode", mode])
    photographs = ["--dataset_dir", str(folder / "photographs"), "--output_dir", str(folder / "inference")]
    _run("run", ["inference"], [*photographs, *model])
    _report(folder)
    return 0


def _draw(data: Path, size: int) -> None:
    """Twenty eyes of ten subjects: the last two subjects are the test."""
    if not data.is_dir():
        drawn = data.with_name("drawing")
        paths = write_phantoms(drawn, count=20, size=size)
        for part, chosen in (("training", paths[:16]), ("test", paths[16:])):
            for kind in ("images", "masks", "fov"):
                (drawn / part / kind).mkdir(parents=True, exist_ok=True)
                for path in chosen:
                    (drawn / kind / path.name).rename(drawn / part / kind / path.name)
        for kind in ("images", "masks", "fov"):
            (drawn / kind).rmdir()
        drawn.rename(data)
    write_retina(data.parent / "photographs")


def _run(name: str, configs: list[str], overrides: list[str]) -> None:
    files = [str(BUNDLE / "configs" / f"{config}.json") for config in configs]
    chosen = str(files) if len(files) > 1 else files[0]
    command = ["-m", "monai.bundle", "run", name, "--config_file", chosen, *overrides]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    result = subprocess.run([sys.executable, *command], check=False)
    if result.returncode:
        raise OSError(f"the step {name!r} failed (exit code {result.returncode}); its message stands above.")


def _report(folder: Path) -> None:
    print("\nFour test images that training never saw; mean Dice and its 95 % interval:")
    print(f"{'':26}{'base as it is':26}adapted with LoRA")
    for mode, words in MODES.items():
        dice = [_dice(folder / part / f"summary_{mode.replace('none', 'automatic')}.json") for part in PARTS]
        print(f"{words:26}{dice[0]:26}{dice[1]}")
    print("A click is made from the truth: its row must not be compared with the automatic one.")
    described = json.loads((folder / "models" / "adapter.json").read_text())
    share = described["trained_parameters"] / described["parameters"]
    size = (folder / "models" / "model.pt").stat().st_size / 1e6
    print(
        f"\nThe model  {folder / 'models' / 'model.pt'}   ({size:.1f} MB; {share:.1%} of the parameters were trained)"
        f"\nTables     {folder}/before and after"
        f"\nCurves     {folder / 'training' / 'curves.png'}"
        f"\nOverlays   {folder}/before and after, overlays*/   (green right, red too much, blue missed)"
        f"\nA photograph of a real retina, without truth: {folder / 'inference'}"
        f"\n{SYNTHETIC}"
    )


def _dice(summary: Path) -> str:
    dice = json.loads(summary.read_text())["labels"]["vessel"]["dice"]
    return f"{dice['mean']:.3f} ({dice['low']:.3f} .. {dice['high']:.3f})"
