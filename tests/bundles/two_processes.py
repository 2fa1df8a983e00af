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


"""Run a bundle in two processes, as torchrun starts them: ``python two_processes.py ROOT DATA [OVERRIDES]``."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch.multiprocessing
from bundle_runs import run_bundle

USES = {"eval": ("train", "multi_gpu_train"), "evaluation": ("train", "evaluate", "multi_gpu_evaluate")}


def work(rank: int, port: int, root: Path, data: Path, output: str, overrides: dict[str, Any]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    run_bundle(root, *USES[output], dataset_dir=data, output_dir=root / output, **overrides)


if __name__ == "__main__":
    root, data = Path(sys.argv[1]), Path(sys.argv[2])
    overrides = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    for output, names in USES.items():
        if not (root / "configs" / f"{names[-1]}.json").is_file():
            continue
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.multiprocessing.start_processes(
            work, (port, root, data, output, overrides), nprocs=2, start_method="fork"
        )
