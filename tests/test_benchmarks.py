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


"""The table of methods (``tests/benchmarks/methods.py``) works for every row; its figures are not tested."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_sources import write_sources

from monai_ext import adapters, optimizers
from monai_ext.adapters import AdapterLayer
from monai_ext.adapters.base import find_targets
from monai_ext.data.phantom import write_phantoms
from monai_ext.networks.sam2 import sam2_modules
from tests.benchmarks import adapters as steps_of_adapters
from tests.benchmarks import methods


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_sources(root)
    paths = write_phantoms(root / "chase_db1", count=6, size=96)
    for part, chosen in (("training", paths[:4]), ("test", paths[4:])):
        for kind in ("images", "masks"):
            folder = root / "chase_db1" / part / kind
            folder.mkdir(parents=True)
            for path in chosen:
                (root / "chase_db1" / kind / path.name).rename(folder / path.name)
    return root


@pytest.mark.parametrize("name", methods.ROWS)
def test_every_row_can_be_made_and_gets_gradients(name: str) -> None:
    torch.manual_seed(0)
    method = methods.ROWS[name]
    network = methods.make_network(method, replace(methods.TASKS["vessels"], enlarge=1), seed=0)
    target = (torch.rand(1, 1, 32, 32) > 0.8).float()
    methods.make_loss(method.loss)(network(torch.rand(1, 3, 32, 32)), target).backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    ours = [p for n, p in network.named_parameters() if ".adapters." in n]
    assert bool(ours) == bool(method.adapters)
    assert not ours or any(p.grad.abs().sum() > 0 for p in ours if p.grad is not None)
    assert method.perturbation is None or hasattr(optimizers, method.perturbation)


@pytest.mark.parametrize("name", steps_of_adapters.ADAPTERS)
def test_every_adapter_of_the_step_benchmark_fits_tiny(name: str) -> None:
    trunk = torch.nn.ModuleDict(sam2_modules("tiny") | {"no_mem_embed": torch.nn.Identity()})
    adapter = getattr(adapters, name)(**steps_of_adapters.ADAPTERS[name])
    assert all(isinstance(adapter.layer(trunk.get_submodule(n)), AdapterLayer) for n in find_targets(trunk, adapter))


@pytest.mark.parametrize(
    ("task", "name"), [("discs", "LoRA, rank 16"), ("nuclei", "U-Net"), ("vessels", "steps: GlobalPerturbation")]
)
def test_a_run_and_its_report(
    task: str,
    name: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(methods, "TASKS", {t: replace(v, patch=32, height=None) for t, v in methods.TASKS.items()})
    results = tmp_path / "results.jsonl"
    torch.save(methods.load(task, data), tmp_path / f"{task}.pt")
    words = ["methods", str(data), "--steps", "2", "--results", str(results)]
    threads = torch.get_num_threads()
    try:
        for seed in (0, 1):
            found = methods.run_job(task, name, seed, tmp_path, budget=2)
            assert found["steps"] >= 1 and found["trained"] > 0 and found["scores"][task]
            methods.add_result(results, found)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(sys, "argv", [*words, "--report"])
    assert methods.main() == 0
    table = capsys.readouterr().out
    assert f"![Dice of every method]({task}.png)" in table and f"| {name} | 2 |" in table
    assert (tmp_path / "methods.md").read_text() == table
    assert (tmp_path / f"{task}.png").stat().st_size > 1000


def test_a_run_that_fails_stops_no_other(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.jsonl"
    pending = [("nuclei", "no such row", 0), ("nuclei", "base as it is", 0)]
    assert methods.run_all(pending, data, 1, 2, results) == 1
    assert [found["method"] for found in methods.read_results(results)] == ["base as it is"]
    assert "failed: ('nuclei', 'no such row', 0)" in capsys.readouterr().err


def test_what_is_there_is_not_run_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[methods.Job] = []
    monkeypatch.setattr(methods, "run_all", lambda pending, *_: asked.extend(pending) or 0)
    results = tmp_path / "new" / "results.jsonl"
    for seed, budget in ((0, 7), (1, 8)):  # the second is of another budget
        methods.add_result(
            results, {"task": "discs", "method": "decoder", "seed": seed, "budget": budget, "scores": {}}
        )
    words = ["methods", str(data), "--steps", "7", "--seeds", "0", "1", "--only", "decoder", "--results", str(results)]
    monkeypatch.setattr(sys, "argv", words)
    assert methods.main() == 0
    assert ("discs", "decoder", 1) in asked and ("discs", "decoder", 0) not in asked
    assert all("decoder" in name for _, name, _ in asked)


def test_data_that_are_missing_are_named_before_any_run(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        methods.run_all([("discs", "decoder", 0)], tmp_path, 1, 2, results)
    assert not results.exists()
