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

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_runs import ROOT, SAMPLES, VESSELS

KILLS = 10


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_a_training_killed_at_random_moments_ends_with_the_same_weights(tmp_path: Path) -> None:
    SAMPLES[VESSELS.name](tmp_path / "data")
    sigkill = ROOT / "tests" / "handlers" / "sigkill.py"
    training = f"{Path(__file__).parent / 'short_training.py'}:train"
    command = [sys.executable, sigkill, training, tmp_path, "--kills", str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in tmp_path.glob("*.log"))
    report = json.loads(done.stdout)
    # `sigkill.py` has loaded every visible file after every kill.
    assert len(report["kills"]) == KILLS and report["leftovers"] > 0
    whole = tmp_path / "whole"
    expected, resume = load(whole / "models" / "model.pt"), load(whole / "eval" / "resume.pt")
    assert resume["trainer"]["epoch"] == 3
    for run in range(report["runs"]):
        killed = tmp_path / f"killed_{run}"
        assert_same(load(killed / "models" / "model.pt"), expected)
        assert_same(load(killed / "eval" / "resume.pt"), resume)
        for name in ("models/adapter.json", "eval/curves.csv"):
            assert (killed / name).read_bytes() == (whole / name).read_bytes()
        assert not [path for path in killed.rglob(".*")]


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit; what is NaN in one is NaN in the other."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        np.testing.assert_equal(one, other)
