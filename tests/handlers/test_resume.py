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

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DistributedSampler
from monai.handlers import EarlyStopHandler
from sigkill import load, same
from toy_training import ToyNetwork, loader, make_training

from monai_ext.handlers.files import save_tensors
from monai_ext.handlers.resume import ResumeHandler
from monai_ext.handlers.seeding import EpochSeeding
from monai_ext.inferers import PromptedInferer
from monai_ext.transforms import SimulatePrompts


class Stop:
    """Breaks a training off at one iteration, as Ctrl-C does."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self)

    def __call__(self, engine: Any) -> None:
        raise KeyboardInterrupt


def run_broken_off(folder: Path, at: int, make: Any = make_training) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(folder, handlers=(Stop(at),)).run()


def same_files(one: Path, other: Path) -> bool:
    names = [path.relative_to(one) for path in sorted(one.rglob("*.*"))]
    assert {n.name for n in names} >= {"resume.pt"}
    return all(same(load(one / name), load(other / name)) for name in names)


def distributed(**kwargs: Any) -> Any:
    dataset = loader().dataset
    return loader(shuffle=False, sampler=DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True))


CASES: dict[str, Any] = {
    "plain": {},
    "rate_per_epoch": {"per_iteration": False},
    "workers": {"train_loader": lambda: loader(num_workers=2)},
    "own_generator": {"train_loader": lambda: loader(generator=torch.Generator())},
    "distributed_sampler": {"train_loader": distributed},
    "short_epochs": {"epoch_length": 2},
    "long_epochs": {"epoch_length": 5},
    "validated_before": {"exec_at_start": True},
    "accumulating": {"accumulation_steps": 2},
    "stopped_early": {"patience": 1, "lr": 1e-9, "max_epochs": 6},
}


def maker(**kwargs: Any) -> Any:
    """A training from scratch each time it is called, loader included."""

    def make(folder: Path, **more: Any) -> Any:
        made = {key: value() if key == "train_loader" else value for key, value in kwargs.items()}
        return make_training(folder, **made, **more)

    return make


@pytest.mark.parametrize("name", CASES)
def test_a_run_broken_off_anywhere_ends_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    make = maker(**CASES[name])
    make(tmp_path / "whole").run()
    run_broken_off(tmp_path / "broken", 7 if name == "long_epochs" else 5, make)
    assert (tmp_path / "broken" / "resume.pt").exists()
    make(tmp_path / "broken").run()
    assert same_files(tmp_path / "whole", tmp_path / "broken")


def test_the_scaler_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: torch.amp.GradScaler("cpu", growth_interval=3))
    make = maker(amp=True)
    make(tmp_path / "whole").run()
    run_broken_off(tmp_path / "broken", 7, make)
    trainer = make(tmp_path / "broken")
    trainer.run()
    assert trainer.scaler.get_scale() > 2**16
    assert same_files(tmp_path / "whole", tmp_path / "broken")


def test_validation_does_not_disturb_the_randomness_of_training(tmp_path: Path) -> None:
    runs = [make_training(tmp_path / str(validate), validate=validate) for validate in (True, False)]
    for trainer in runs:
        trainer.run()
    assert same(*(trainer.network.state_dict() for trainer in runs))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_epoch_has_its_own_crops_and_order(num_workers: int, tmp_path: Path) -> None:
    seen: dict[int, list[torch.Tensor]] = {}
    trainer = make_training(tmp_path, max_epochs=3, validate=False, train_loader=loader(num_workers))
    trainer.add_event_handler(
        Events.GET_BATCH_COMPLETED, lambda e: seen.setdefault(e.state.epoch, []).append(e.state.batch["image"].clone())
    )
    trainer.run()
    epochs = [torch.cat(batches) for batches in seen.values()]
    assert len(epochs) == 3
    # No crop of one epoch comes again in another, whatever its place.
    assert all((a[:, None] != b[None]).flatten(2).any(2).all() for a, b in itertools.pairwise(epochs))


def test_seeding_differs_by_seed_and_epoch_and_covers_all_generators() -> None:
    def draws(seed: int, epoch: int, rank: int) -> tuple[float, ...]:
        trainer = make_training(Path("unused"), validate=False)
        trainer.state.rank, trainer.state.epoch, trainer.state.dataloader = rank, epoch, trainer.data_loader
        trainer.inferer = PromptedInferer(prompts=SimulatePrompts(mode="points_1"))
        EpochSeeding(seed=seed)(trainer)
        crop = next(iter(trainer.data_loader))["image"].sum().item()
        x, y = trainer.inferer.prompts(torch.ones(1, 1, 999, 999))["points"].flatten().tolist()
        return (np.random.random(), torch.rand(1).item(), crop, x + 999 * y)

    first = draws(0, 1, 0)
    # All processes draw the same.
    assert draws(0, 1, 0) == draws(0, 1, 1) == first
    for other in (draws(1, 1, 0), draws(0, 2, 0)):
        assert all(a != b for a, b in zip(first, other, strict=True))


def test_processes_that_do_not_find_the_same_file_do_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idist, "all_gather", lambda value: [value, (3,)])
    with pytest.raises(ValueError, match=r"resume\.pt must be the same file for all processes, .* of 0, 3 epochs"):
        make_training(tmp_path).run()


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_training(tmp_path).run()
    before = load(tmp_path / "resume.pt")
    for max_epochs in (3, 2):
        trainer = make_training(tmp_path, max_epochs=max_epochs)
        trainer.run()
        assert "finished (3 epochs): to train on, raise max_epochs, choose another output_dir" in caplog.text
        assert str(tmp_path / "resume.pt") in caplog.text
        caplog.clear()
        assert trainer.state.epoch == 3
        assert same(trainer.network.trained_state_dict(), before["network"])
    assert same(load(tmp_path / "resume.pt"), before)


def test_a_finished_run_goes_on_with_more_epochs_and_their_schedule(tmp_path: Path) -> None:
    make_training(tmp_path, max_epochs=2).run()
    rates = []
    trainer = make_training(tmp_path, max_epochs=4)
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: rates.append(e.optimizer.param_groups[0]["lr"]))
    trainer.run()
    expected = []
    fresh = make_training(tmp_path / "fresh", max_epochs=4)
    fresh.add_event_handler(Events.ITERATION_STARTED, lambda e: expected.append(e.optimizer.param_groups[0]["lr"]))
    fresh.run()
    assert rates == expected[6:]


def test_an_early_stop_is_final(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kwargs: dict[str, Any] = {"patience": 1, "lr": 1e-9, "max_epochs": 6}
    make_training(tmp_path, **kwargs).run()
    trainer = make_training(tmp_path, **kwargs)
    trainer.run()
    assert trainer.state.epoch < 6
    assert "stopped early" in caplog.text


def test_resume_false_starts_anew_and_forgets_the_old_run(tmp_path: Path) -> None:
    make_training(tmp_path, max_epochs=2).run()
    run_broken_off(tmp_path, 1, maker(resume=False, lr=0.5))
    assert not (tmp_path / "resume.pt").exists()
    make_training(tmp_path, max_epochs=2, resume=False).run()
    make_training(tmp_path / "fresh", max_epochs=2).run()
    assert same_files(tmp_path / "fresh", tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": ("disc",)}, "labels ['vessel'], not ['disc']"),
        ({"width": 5}, "width 4, not 5"),
        ({"sgd": True}, "optimizer 'AdamW', not 'SGD'"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"epoch_length": 2}, "iterations per epoch 3, not 2"),
    ],
)
def test_the_file_of_another_run_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    make_training(tmp_path, max_epochs=1).run()
    assert_refused(tmp_path, told, **change)


def damage(kind: str, path: Path) -> None:
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a file of tensors")
    elif kind == "model":
        save_tensors(load(path)["network"], path)
    elif kind == "code":
        torch.save({"run": Path}, path)
    elif kind == "misfit":
        # Everything is in order up to the last state.
        saved = load(path)
        del saved["states"]["schedule"]["last_epoch"]
        save_tensors(saved, path)


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "model", "code", "misfit"])
def test_a_damaged_file_is_refused_before_anything_changes(kind: str, tmp_path: Path) -> None:
    make_training(tmp_path, max_epochs=1).run()
    damage(kind, tmp_path / "resume.pt")
    assert_refused(tmp_path, "")


def assert_refused(folder: Path, told: str, **change: Any) -> None:
    content = (folder / "resume.pt").read_bytes()
    trainer = make_training(folder, **change)
    network, optimizer, schedule = (
        trainer.network.state_dict(),
        trainer.optimizer.state_dict(),
        trainer.saver.state_dict(),
    )
    network = {key: value.clone() for key, value in network.items()}
    with pytest.raises(ValueError, match=r"resume\.pt .*delete it, .* or set --resume False") as error:
        trainer.run()
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert same(network, trainer.network.state_dict())
    assert same((optimizer, schedule), (trainer.optimizer.state_dict(), trainer.saver.state_dict()))
    assert trainer.state.epoch == 0
    assert (folder / "resume.pt").read_bytes() == content


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path: Path) -> None:
    class Curve:
        def __init__(self) -> None:
            self.values: Any = [np.float64(0.5), (np.int32(3),)]

        def state_dict(self) -> dict[str, Any]:
            return {"values": self.values}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.values = state["values"]

    trainer = make_training(tmp_path / "new", validate=False, max_epochs=1)
    curve, path = Curve(), tmp_path / "curve.pt"
    ResumeHandler(path=path, network=trainer.network, states={"curve": curve}).attach(trainer)
    trainer.run()
    assert load(path)["states"]["curve"]["values"] == [0.5, (3,)]


def test_wrong_states_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"states\['loss'\] must have state_dict"):
        ResumeHandler(path=tmp_path / "r.pt", network=ToyNetwork(), states={"loss": 3})
    with pytest.raises(TypeError, match="resume must be True or False.* not 'false'"):
        ResumeHandler(path=tmp_path / "r.pt", network=ToyNetwork(), states={}, resume="false")  # type: ignore[arg-type]
    stop = EarlyStopHandler(1, score_function=lambda e: 0.0)
    trainer = make_training(tmp_path, validate=False)
    ResumeHandler(path=tmp_path / "r.pt", network=trainer.network, states={"stop": stop}).attach(trainer)
    with pytest.raises(ValueError, match=r"states\['stop'\] must know its trainer"):
        trainer.run()


def test_workers_that_stay_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="persistent_workers of the data loader must be false, not true"):
        make_training(tmp_path, train_loader=loader(num_workers=1, persistent_workers=True))


def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    trainer = make_training(tmp_path, validate=False)
    (tmp_path / "file").write_text("")
    ResumeHandler(path=tmp_path / "file" / "resume.pt", network=trainer.network, states={}).attach(trainer)
    with pytest.raises(OSError, match=r"file/resume\.pt cannot be written: .*file is not a folder"):
        trainer.run()
    assert trainer.state.iteration == 0


def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    """The quick form of what tests/bundles/test_killed_training.py does to a whole bundle."""
    here = Path(__file__).parent
    command = [sys.executable, here / "sigkill.py", f"{here / 'toy_training.py'}:train", tmp_path, "--kills", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in tmp_path.glob("*.log"))
    report = json.loads(done.stdout)
    assert len(report["kills"]) == 4
    assert report["leftovers"] > 0, "no kill fell into the writing of a file"
    for run in range(report["runs"]):
        assert same_files(tmp_path / "whole", tmp_path / f"killed_{run}")
        assert not list((tmp_path / f"killed_{run}").rglob(".*"))
