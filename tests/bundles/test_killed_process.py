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


"""A process of a training is killed under torchrun; the training goes on in another number of processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bundle_runs import ROOT, VESSELS
from processes import Forks, Runs, curves

SETTINGS = {"batch_size": 3, "steps_per_epoch": 2, "max_epochs": 6}
DEADLINE = 1200  # seconds, on the busiest of machines


def test_a_killed_process_ends_the_job_and_no_epoch_is_lost(forks: Forks, tmp_path: Path) -> None:
    runs = Runs(forks, VESSELS, tmp_path)
    whole = runs.train("whole", 1, **SETTINGS)
    killed = tmp_path / "killed"
    words = runs.command("killed", 2, "train", **SETTINGS, dataset_dir=runs.data, ckpt_dir=killed)
    job = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=2",
            "--standalone",
            "-m",
            "monai.bundle",
            *words,
        ],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(killed / "resume.pt", job)
        os.kill(second_process(job.pid), signal.SIGKILL)
        said = job.communicate(timeout=DEADLINE)[1]
    finally:
        job.kill()
    assert job.returncode != 0
    done = torch.load(killed / "resume.pt", weights_only=True)["trainer"]["epoch"]
    assert 1 <= done < SETTINGS["max_epochs"]
    # torchrun says what happened, and the other process how to go on.
    assert "Signal 9 (SIGKILL) received" in said
    assert f"The training stopped in epoch {done + 1}" in said and f"from {killed / 'resume.pt'}" in said, said[-3000:]

    for processes in (1, 3):
        resumed = shutil.copytree(killed, tmp_path / f"resumed{processes}")
        runs.train(resumed.name, processes, **SETTINGS)
        np.testing.assert_allclose(curves(resumed), curves(whole), rtol=0, atol=1e-4)
        assert not list(resumed.glob(".*"))


def wait_for(path: Path, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def second_process(agent: int) -> int:
    """The process of rank 1 that torchrun has started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return next(int(child) for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes())
