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
Kill a training at random moments, start it again each time, and tell what was seen.

``python sigkill.py FILE.py:FUNCTION FOLDER --kills N`` calls FUNCTION(folder) once undisturbed, in FOLDER/whole, and
then in FOLDER/killed_0, FOLDER/killed_1, ... until N runs of it were killed and the last one has ended. FUNCTION must
go on by itself with what it finds in its folder. Every second kill waits for a file that is just being written. After
each kill every visible ``.pt`` and ``.json`` file must load.
Each run is a fork of this process, so that the imports are paid for once; the report is one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Training = Callable[[Path], None]


def run_killed(train: Training, folder: Path, *, kills: int, seed: int = 0) -> dict[str, Any]:
    """Train in ``folder / "whole"`` undisturbed and in ``folder / "killed_*"`` with ``kills`` kills in all."""
    draw = random.Random(seed)
    began = time.monotonic()
    finish(start(train, folder / "whole"))
    duration = time.monotonic() - began
    delays: list[float] = []
    leftovers = runs = 0
    while len(delays) < kills:
        place = folder / f"killed_{runs}"
        while len(delays) < kills:
            delay = draw.uniform(0, duration / 2)
            child = start(train, place)
            if ended_within(delay, child) or (len(delays) % 2 and ended_before_writing(child, place)):
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            delays.append(round(delay, 3))
            leftovers += load_all(place)
        else:
            finish(start(train, place))
        runs += 1
    return {"kills": delays, "runs": runs, "leftovers": leftovers, "seconds": round(duration, 2)}


def start(train: Training, folder: Path) -> int:
    """Fork a process that trains and ends; its output goes to a log beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        train(folder)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stderr.flush()
    finally:
        os._exit(status)


def finish(child: int) -> None:
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("the training failed by itself: see the log beside its folder")


def ended_within(delay: float, child: int) -> bool:
    """Whether the child ended, well, before ``delay`` seconds were over."""
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline:
        if ended(child):
            return True
        time.sleep(0.002)
    return False


def ended_before_writing(child: int, folder: Path) -> bool:
    """Wait until the child writes a file; whether it ended, well, before it did."""
    before = temporary_files(folder)
    while temporary_files(folder) <= before:
        if ended(child):
            return True
    return False


def ended(child: int) -> bool:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the training failed by itself: see the log beside its folder")
    return bool(pid)


def temporary_files(folder: Path) -> set[Path]:
    return set(folder.rglob(".*"))


def load_all(folder: Path) -> int:
    """Load every visible file; return how many hidden temporary ones lie there."""
    for path in folder.rglob("[!.]*"):
        if path.suffix in (".pt", ".json"):
            load(path)
    return len(temporary_files(folder))


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else json.loads(path.read_text())


def same(a: Any, b: Any) -> bool:
    """Whether two loaded files are equal to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def function(name: str) -> Training:
    """FUNCTION of FILE.py:FUNCTION; the folder of the file can be imported from."""
    file, _, attribute = name.rpartition(":")
    sys.path.insert(0, str(Path(file).parent))
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("function")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = run_killed(function(arguments.function), arguments.folder, kills=arguments.kills, seed=arguments.seed)
    sys.stdout.write(json.dumps(report) + "\n")
