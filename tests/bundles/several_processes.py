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
Run ``monai.bundle`` in several processes, as torchrun starts them, one job after the other.

A job is a line of JSON, ``{"processes": N, "words": [...], "folder": WORKING_DIRECTORY, "log": FILE}``; the answer is a
line with the exit codes of its processes. All are forks of this one, so that the imports are paid for once. One process
alone is started as without torchrun. What they say goes to the log.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import fire
import monai.bundle

# Imported before the forks, so that each of them is quick.
import tensorboard
import torch.utils.tensorboard
from sam2.modeling.backbones import hieradet

import monai_ext.adapters
import monai_ext.data
import monai_ext.inferers
import monai_ext.losses
import monai_ext.metrics
import monai_ext.networks
import monai_ext.transforms
from monai_ext.handlers import curves

__all__ = ["hieradet", "monai_ext", "run_job", "tensorboard"]


def run_job(job: dict[str, Any]) -> list[int]:
    """Start the processes of one job, wait for them all, and return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [start(job, rank, port) for rank in range(job["processes"])]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def start(job: dict[str, Any], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        log = Path(job["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(job["folder"])
        if job["processes"] > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["processes"])}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        fire.Fire({"run": monai.bundle.run}, command=job["words"])
        status = 0
    except SystemExit as end:
        sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("ignite").setLevel(logging.ERROR)
    curves.draw_curves = lambda history, path: None  # most of the time of a run, and nothing here depends on it
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_job(json.loads(line))) + "\n")
        sys.stdout.flush()
    os._exit(0)  # nothing to tidy up, which would take seconds
