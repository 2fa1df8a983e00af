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


"""What the tests of the bundles share: where they are, small data for each, and a run as on the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
from PIL import Image
from tissue import write_tissue

from monai_ext.data.phantom import write_phantoms

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
# The base has no labels, no photographs of its own and no test split: its tests are in test_pretraining.py.
BASE = ROOT / "bundles" / "sam2_micro_pretraining"
VESSELS = ROOT / "bundles" / "fundus_vessel_segmentation"
# What it reads and writes are volumes: its tests are in test_ct.py.
VOLUMES = ROOT / "bundles" / "ct_organ_segmentation"
SEGMENTATION = [bundle for bundle in BUNDLES if bundle not in (BASE, VOLUMES)]
# Settings of `--tracking`, for all bundles.
TRACKING = ROOT / "bundles" / "mlflow.json"
KINDS = ("images", "masks", "fov")
# Two epochs of two steps on patches of 64 pixels.
SHORT: dict[str, Any] = {
    "image_size": 64,
    "max_epochs": 2,
    "steps_per_epoch": 2,
    "batch_size": 2,
    "val_interval": 1,
    "device": "$torch.device('cpu')",
}
# What else makes a bundle small.
SMALL: dict[str, dict[str, Any]] = {
    "endoscopy_scene_segmentation": {"longest_side": 64},
    "fundus_disc_cup_segmentation": {"longest_side": 96},
    "ultrasound_abdomen_segmentation": {"longest_side": 64},
    "xray_finding_segmentation": {"longest_side": 64},
}


def write_fundus(folder: Path, seed: int = 0) -> None:
    """Two subjects to train, one of them held out, and one to test, two eyes each."""
    paths = write_phantoms(folder / "all", count=6, size=96, seed=seed)
    for part, chosen in (("training", paths[:4]), ("test", paths[4:])):
        for kind in KINDS:
            (folder / part / kind).mkdir(parents=True)
            for path in chosen:
                shutil.move(folder / "all" / kind / path.name, folder / part / kind)
    shutil.rmtree(folder / "all")


def write_discs(folder: Path) -> None:
    """The same with two labels in every mask: 1 and, in its right half, 2."""
    write_fundus(folder)
    for path in folder.glob("*/masks/*.png"):
        mask = (np.asarray(Image.open(path)) > 0).astype(np.uint8)
        mask[:, mask.shape[1] // 2 :] *= 2
        Image.fromarray(mask).save(path)


def write_scenes(folder: Path, labels: int) -> None:
    """Pictures of coloured stripes, one for each label but the last, which is never there."""
    rng = np.random.default_rng(0)
    mask = np.minimum(np.arange(96) * labels // 96, labels - 1).astype(np.uint8)[None].repeat(96, 0)
    for part, names in (("training", ("1_L", "1_R", "2_L", "2_R")), ("test", ("3_L", "3_R"))):
        for name in names:
            noise = rng.integers(0, 60, (96, 96, 3))
            for kind, pixels in (("images", (noise + mask[..., None] * [14, 5, 11]).astype(np.uint8)), ("masks", mask)):
                (folder / part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / part / kind / f"{name}.png")


# A new bundle needs small data of its kind here; a test says so.
SAMPLES: dict[str, Callable[[Path], None]] = {
    "endoscopy_scene_segmentation": lambda folder: write_scenes(folder, 12),
    "fundus_disc_cup_segmentation": write_discs,
    "fundus_vessel_segmentation": write_fundus,
    "histology_gland_segmentation": write_tissue,
    "histology_nuclei_segmentation": write_tissue,
    "ultrasound_abdomen_segmentation": lambda folder: write_scenes(folder, 8),
    "xray_finding_segmentation": lambda folder: write_scenes(folder, 13),
}


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """The bundle as it is shared, without what somebody trained in it."""
    return Path(shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("models", "eval")))


def config_files(bundle: Path, names: Sequence[str]) -> list[str]:
    return [str(bundle / "configs" / f"{name}.json") for name in names]


def load_config(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


def run_bundle(bundle: Path, *names: str, run_id: str = "run", **overrides: Any) -> None:
    """What `python -m monai.bundle run` does, in this process and shortened."""
    inference = {key: SHORT[key] for key in ("image_size", "device")}
    short = (inference if names[0] == "inference" else SHORT) | SMALL.get(bundle.name, {})
    monai.bundle.run(
        run_id,
        config_file=config_files(bundle, names),
        logging_file=False,
        **{"bundle_root": str(bundle), **short, **{key: _plain(value) for key, value in overrides.items()}},
    )


def run_python(*words: str | Path, **environment: str) -> str:
    """Run a Python process of its own; it must succeed. Returns what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
