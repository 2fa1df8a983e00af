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


"""Bundles with small data, run in one process or in several, and what they have written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from base_sources import write_sources
from bundle_runs import BASE, ROOT, SAMPLES, SHORT, SMALL, VOLUMES, config_files, copy_bundle
from ct_phantoms import write_ct_data, write_nifti, write_series

# For training in up to three processes; the rest is short anyway.
TRAINING: dict[str, Any] = {"batch_size": 4, "steps_per_epoch": 2, "max_epochs": 2}
BASE_SETTINGS: dict[str, Any] = {"nuclei_zoom": 1, "disc_size": 64}
SEVERAL = {
    "train": "multi_gpu_train",
    "evaluate": "multi_gpu_evaluate",
    "inference": "multi_gpu_inference",
    "slides": "multi_gpu_inference",
}


class Forks:
    """The program `several_processes.py`, started once for all tests."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("several_processes.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )

    def run(self, processes: int, words: list[str], log: Path) -> list[int]:
        """
        Run ``monai.bundle`` with these words of a command line, in the present working directory.

        Returns the exit codes of the processes.
        """
        job = {"processes": processes, "words": words, "log": str(log), "folder": os.getcwd()}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        self._server.communicate(timeout=600)


def copy_images(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir())[:3]:
        shutil.copy(path, folder)


class Runs:
    """One bundle with small data, run in as many processes as one likes."""

    def __init__(self, forks: Forks, bundle: Path, folder: Path) -> None:
        self.forks, self.folder = forks, folder
        self.root = copy_bundle(bundle, folder / bundle.name)
        self.settings: dict[str, Any] = {}
        self.data, self.images = folder / "data", folder / "images"
        self.images.mkdir()
        if bundle == VOLUMES:
            self.data = write_ct_data(self.data)
            write_nifti(self.images / "a.nii.gz")
            for place in ("one", "other"):
                write_series(self.images / place / "a")
        elif bundle == BASE:
            self.settings = BASE_SETTINGS
            write_sources(self.data)
            copy_images(self.data / "idrid_disc" / "images", self.images)
        else:
            SAMPLES[bundle.name](self.data)
            copy_images(self.data / "training" / "images", self.images)
        self.bad = self.images / ("bad.nii.gz" if bundle == VOLUMES else "bad.png")
        self.bad.write_bytes(b"")

    def run(self, output: str, processes: int, *names: str, codes: list[int] | None = None, **overrides: Any) -> Path:
        """Run configs, with that for several processes if there are several; returns the output folder."""
        words = self.command(output, processes, *names, **overrides)
        log = self.folder / f"{output}.log"
        found = self.forks.run(processes, words, log)
        assert found == (codes or [0] * processes), log.read_text()[-5000:]
        return self.folder / output

    def command(self, output: str, processes: int, *names: str, **overrides: Any) -> list[str]:
        """What follows ``-m monai.bundle`` on the command line."""
        configs = [*names, SEVERAL[names[-1]]] if processes > 1 else list(names)
        short = SHORT if names[0] == "train" else {key: SHORT[key] for key in ("image_size", "device")}
        settings = short | SMALL.get(self.root.name, {}) | {"logging_file": False, "bundle_root": self.root} | overrides
        words = [
            "run",
            "--config_file",
            str(config_files(self.root, configs)),
            "--output_dir",
            str(self.folder / output),
        ]
        return words + [word for key, value in settings.items() for word in (f"--{key}", str(value))]

    def train(self, output: str, processes: int, **overrides: Any) -> Path:
        settings = {**TRAINING, **self.settings, "dataset_dir": self.data, "ckpt_dir": self.folder / output}
        return self.run(output, processes, "train", **{**settings, **overrides})


def curves(folder: Path) -> np.ndarray:
    with (folder / "curves.csv").open(newline="") as file:
        return np.array([[float(value or "nan") for value in row] for row in list(csv.reader(file))[1:]])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def results(folder: Path) -> dict[str, Any]:
    """The content of all files that a run has written; of summaries without date, command and machine."""
    found: dict[str, Any] = {}
    for path in files(folder):
        content: Any = path.read_bytes()
        if path.suffix == ".json":
            content = {key: value for key, value in json.loads(content).items() if key not in ("date", "command")}
        found[str(path.relative_to(folder))] = content
    return found
