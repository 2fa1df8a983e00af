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
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.metrics import Metric
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointLoader
from toy_training import ToyNetwork, images

from monai_ext.handlers.files import require_writable
from monai_ext.handlers.trained import TrainedPartSaver


class GivenMetric(Metric):
    """Whatever the validator is told to find."""

    value = 0.5

    def reset(self) -> None: ...

    def update(self, output: Any) -> None: ...

    def compute(self) -> float:
        return self.value


def make_saver(folder: Path, network: torch.nn.Module | None = None) -> TrainedPartSaver:
    return TrainedPartSaver(network=network or ToyNetwork(), path=folder / "models" / "model.pt")


def make_validator(*savers: TrainedPartSaver, **kwargs: Any) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(images(1)), batch_size=1),
        network=ToyNetwork(),
        val_handlers=savers,
        **{"key_val_metric": {"score": GivenMetric()}} | kwargs,
    )


def report(validator: SupervisedEvaluator, metric: float, epoch: int) -> None:
    """A validation that ends with this metric."""
    GivenMetric.value = metric
    validator.run(epoch)


def saved_epoch(folder: Path) -> int | None:
    path = folder / "models" / "adapter.json"
    return json.loads(path.read_text())["epoch"] if path.exists() else None


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("metrics", "kept"),
    [
        ([0.1, 0.3, 0.2], [1, 2, 2]),
        ([0.3, 0.3], [1, 1]),
        ([0.0, NAN], [1, 1]),
        ([NAN, -0.5, NAN, 0.1], [None, 2, 2, 4]),
        ([INF, 0.1], [None, 2]),
        ([NAN, NAN], [None, None]),
    ],
)
def test_only_the_best_so_far_is_saved(metrics: list[float], kept: list[int | None], tmp_path: Path) -> None:
    validator = make_validator(make_saver(tmp_path))
    for epoch, metric in enumerate(metrics, 1):
        report(validator, metric, epoch)
        assert saved_epoch(tmp_path) == kept[epoch - 1]
        assert validator.state.best_metric_epoch == (kept[epoch - 1] or -1)


def test_lower_is_better_where_the_validator_says_so(tmp_path: Path) -> None:
    validator = make_validator(make_saver(tmp_path), metric_cmp_fn=lambda new, best: new < best)
    for epoch, metric in enumerate([3.0, 1.0, 2.0], 1):
        report(validator, metric, epoch)
    assert saved_epoch(tmp_path) == 2
    assert validator.state.best_metric == 1.0


def test_the_best_so_far_outlives_a_restart(tmp_path: Path) -> None:
    first = make_saver(tmp_path)
    report(make_validator(first), 0.5, 1)
    second = make_saver(tmp_path)
    validator = make_validator(second)
    second.load_state_dict(first.state_dict())
    assert (validator.state.best_metric, validator.state.best_metric_epoch) == (0.5, 1)
    report(validator, 0.4, 2)
    assert saved_epoch(tmp_path) == 1
    report(validator, 0.6, 3)
    assert saved_epoch(tmp_path) == 3


def test_the_file_is_a_bare_dict_of_what_was_trained_and_monai_loads_it(tmp_path: Path) -> None:
    network = ToyNetwork()
    report(make_validator(make_saver(tmp_path, torch.nn.DataParallel(network))), 0.5, 4)
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert set(state) == set(network.trained_state_dict())
    other = ToyNetwork()
    base = other.base.weight.clone()
    CheckpointLoader(load_path=str(tmp_path / "models" / "model.pt"), load_dict={"network": other}).attach(
        validator := make_validator()
    )
    validator.run()
    assert all(torch.equal(a, b) for a, b in zip(other.trained.parameters(), network.trained.parameters(), strict=True))
    assert torch.equal(other.base.weight, base)
    described = json.loads((tmp_path / "models" / "adapter.json").read_text())
    assert described["labels"] == ["vessel"]
    assert (described["key_metric"], described["best_metric"], described["epoch"]) == ("score", 0.5, 4)


def test_a_slice_of_a_large_tensor_is_saved_alone(tmp_path: Path) -> None:
    class Sliced(ToyNetwork):
        def trained_state_dict(self) -> dict[str, torch.Tensor]:
            return {"slice": torch.zeros(1_000_000)[:1]}

    report(make_validator(make_saver(tmp_path, Sliced())), 1.0, 1)
    assert (tmp_path / "models" / "model.pt").stat().st_size < 10_000


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    saver = make_saver(tmp_path)
    validator = make_validator()
    validator.state.rank = 1
    saver.attach(validator)
    report(validator, 0.5, 1)
    assert not list(tmp_path.iterdir())
    assert saver.best_metric == 0.5


def test_a_validator_without_key_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key_val_metric of the validator must be given, not None"):
        make_validator(make_saver(tmp_path), key_val_metric=None)


def test_a_place_that_cannot_be_written_is_told_on_attaching(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(OSError, match=r"model\.pt cannot be written: .*models is not a folder"):
        make_validator(make_saver(tmp_path))
    with pytest.raises(OSError, match="must be a file, not a folder"):
        require_writable(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_told_on_attaching(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"model\.pt cannot be written"):
        make_validator(make_saver(tmp_path))


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes, which the kernel reports much as it does a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_leaves_the_last_best(tmp_path: Path) -> None:
    validator = make_validator(make_saver(tmp_path, ToyNetwork(width=32)))
    report(validator, 0.5, 1)
    content = (tmp_path / "models" / "model.pt").read_bytes()
    with full_disk(20_000), pytest.raises(OSError, match=r"model\.pt could not be saved: .*Free some space") as error:
        report(validator, 0.6, 2)
    assert "\n" not in str(error.value)
    assert (tmp_path / "models" / "model.pt").read_bytes() == content
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["adapter.json", "model.pt"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in (".model-abc.pt", ".adapter-abc.json", ".other.pt"):
        (tmp_path / "models" / name).write_text("half")
    report(make_validator(make_saver(tmp_path)), 0.5, 1)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"adapter.json", "model.pt", ".other.pt"}
