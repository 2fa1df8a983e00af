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

import copy
import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from monai_ext.data.processes import gather_values
from monai_ext.handlers.files import load_tensors, remove_leftovers, require_writable, save_tensors
from monai_ext.handlers.interruption import InterruptionNotice
from monai_ext.handlers.seeding import EpochSeeding
from monai_ext.handlers.trained import unwrapped

logger = logging.getLogger(__name__)

# Told about a network, but no reason to refuse: where the base weights lie, and who wrote the file.
_FREE = ("monai_ext", "weights")
_ADVICE = "delete it, choose another output_dir or set --resume False."
_COUNTERS = ("epoch", "iteration", "best_metric", "best_metric_epoch")


class ResumeHandler:
    """
    Let a killed training go on where it stopped, and end with the same weights as one that was never interrupted.

    Attached to the trainer, it saves after every epoch, when all other handlers have run: the trained part, everything
    in ``states``, the AMP scaler, the counters and the best metric of the trainer. When a run starts and the file
    exists, it goes on after the last whole epoch. Randomness needs no saving, because :class:`EpochSeeding`, which
    this attaches, makes it a function of the epoch: the epoch that was interrupted is run again the same, by as many
    processes as there are then. What stops a training is reported by :class:`InterruptionNotice`. A run that
    is finished (by its epochs or by an early stop) is said to be so and ends at once.

    Put it first in ``train_handlers`` (after a :class:`TrainedPartLoader`, if there is one), so that whatever else acts
    when the run starts, such as a first validation, sees the restored weights. A run killed in its first epoch begins
    again, so new weights must come out the same: call ``monai.utils.set_determinism`` in the bundle's ``initialize``.

    Args:
        path: the file, for example ``resume.pt`` in the output folder.
        network: has ``trained_state_dict()``, ``load_state_dict()`` and ``describe()``, as :class:`SAM2Segmenter` has;
            may be wrapped in ``DistributedDataParallel``.
        states: everything else that changes while training, by name: objects with ``state_dict`` and
            ``load_state_dict``, or MONAI's ``EarlyStopHandler``. Of a schedule that is a function of its step
            (``LambdaLR``, MONAI's ``WarmupCosineSchedule``) only the step is restored, so that a run can be prolonged.
        resume: False starts anew and removes the file.
        seed: seed of the run, a whole number that is not negative.

    Raises:
        TypeError: an object of ``states`` has no state, or ``resume`` is no bool.
        ValueError: on starting, when the file is damaged or of another run; nothing has been changed then. Or when not
            all of several processes find it.
        OSError: the file cannot be written, on starting, or the disk is full.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> handler = ResumeHandler(path="output/resume.pt", network=net, states={"optimizer": optimizer})
        >>> # SupervisedTrainer(..., train_handlers=[handler, ...])
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        network: torch.nn.Module,
        states: Mapping[str, Any],
        resume: bool = True,
        seed: int = 0,
    ) -> None:
        if not isinstance(resume, bool):  # the word "false" would be true
            raise TypeError(f"resume must be True or False, written so on the command line, not {resume!r}.")
        for name, state in states.items():
            if not (hasattr(state, "state_dict") and hasattr(state, "load_state_dict")) and not isinstance(
                state, EarlyStopHandler
            ):
                raise TypeError(f"states[{name!r}] must have state_dict and load_state_dict, not be {type(state)}.")
        self.path = Path(path)
        self.network = network
        self.states = dict(states)
        self.resume = resume
        self.seed = seed
        self._run: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`monai.engines.Trainer`."""
        engine.add_event_handler(Events.STARTED, self)
        EpochSeeding(seed=self.seed).attach(engine)
        InterruptionNotice(path=self.path).attach(engine)

    def __call__(self, engine: Any) -> None:
        """Restore the run, if there is one, and see to it that every epoch is saved."""
        require_writable(self.path)
        self._run = self._describe_run(engine)
        if self.resume and self.path.exists():
            self._restore(engine, self._read())
        elif engine.state.rank == 0:
            # Killed in its first epoch, this run must not be taken for the one that was here before.
            self.path.unlink(missing_ok=True)
        self._require_agreement(engine)
        if engine.state.rank == 0:
            remove_leftovers(self.path)
            # Only now, when all others are attached: it must come after validation, schedule and early stop.
            if not engine.has_event_handler(self._save):
                engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _require_agreement(self, engine: Any) -> None:
        """All processes must go on from the same epoch, or they would wait for each other in vain."""
        epochs = gather_values(engine.state.epoch)
        if len(set(epochs)) > 1:
            raise ValueError(
                f"{self.path} must be the same file for all processes, but they found a training of "
                f"{', '.join(map(str, epochs))} epochs: choose an output_dir that all nodes share."
            )

    def _save(self, engine: Any) -> None:
        save_tensors(_plain({"run": self._run, **self._collect(engine)}), self.path)

    def _read(self) -> dict[str, Any]:
        """The content of the file, if it is of this run."""
        try:
            saved = load_tensors(self.path)
        except ValueError as error:
            raise ValueError(f"{error}: {_ADVICE}") from error
        if not isinstance(saved, dict) or "run" not in saved:
            raise ValueError(f"{self.path} must be saved by ResumeHandler, and is not: {_ADVICE}")
        was, now = saved["run"], self._run
        differences = [f"{k} {was.get(k)!r}, not {now.get(k)!r}" for k in {**was, **now} if was.get(k) != now.get(k)]
        if differences:
            raise ValueError(f"{self.path} belongs to another run, with {'; '.join(differences)}: {_ADVICE}")
        return saved

    def _restore(self, engine: Any, saved: dict[str, Any]) -> None:
        before = copy.deepcopy(self._collect(engine))
        try:
            self._distribute(engine, saved)
        except Exception as error:
            self._distribute(engine, before)
            raise ValueError(f"{self.path} does not fit this run ({error}): {_ADVICE}") from error
        self._announce(engine, saved["trainer"]["stopped"])

    def _announce(self, engine: Any, stopped: bool) -> None:
        """Say where the run goes on, or end it when nothing is left to do."""
        epoch = engine.state.epoch
        if stopped or epoch >= engine.state.max_epochs:
            how, more = ("stopped early", "") if stopped else ("finished", "raise max_epochs, ")
            advice = f"{more}choose another output_dir or set --resume False"
            logger.warning("The run in %s is %s (%d epochs): to train on, %s.", self.path, how, epoch, advice)
            engine.terminate()
        else:
            logger.info("Going on after epoch %d of %s.", epoch, self.path)

    def _describe_run(self, engine: Any) -> dict[str, Any]:
        """What must be the same for a file to belong to this run; each key ends up in a sentence."""
        network = {k: v for k, v in unwrapped(self.network).describe().items() if k not in _FREE}
        states = {name: type(state).__name__ for name, state in self.states.items()}
        length = engine.state.epoch_length
        return json.loads(json.dumps({"seed": self.seed, "iterations per epoch": length, **states, **network}))

    def _collect(self, engine: Any) -> dict[str, Any]:
        counters = {name: getattr(engine.state, name) for name in _COUNTERS}
        return {
            "network": unwrapped(self.network).trained_state_dict(),
            "states": {name: self._holder(name).state_dict() for name in self.states},
            "scaler": {} if engine.scaler is None else engine.scaler.state_dict(),
            "trainer": {**counters, "stopped": bool(engine.should_terminate)},
        }

    def _distribute(self, engine: Any, saved: dict[str, Any]) -> None:
        unwrapped(self.network).load_state_dict(saved["network"])
        # A schedule writes the learning rate into its optimizer, so it comes after it.
        for name in sorted(self.states, key=lambda name: isinstance(self.states[name], LRScheduler)):
            holder = self._holder(name)
            if isinstance(holder, LambdaLR):
                _restore_step(holder, saved["states"][name])
            else:
                holder.load_state_dict(saved["states"][name])
        if engine.scaler is not None and engine.scaler.is_enabled() and saved["scaler"]:
            engine.scaler.load_state_dict(saved["scaler"])
        for name in _COUNTERS:
            setattr(engine.state, name, saved["trainer"][name])

    def _holder(self, name: str) -> Any:
        """The object that holds the state: MONAI's early stop hides ignite's, made when its trainer is known."""
        state = self.states[name]
        if not isinstance(state, EarlyStopHandler):
            return state
        if state._handler is None:
            raise ValueError(f"states[{name!r}] must know its trainer: call set_trainer(trainer) before the run.")
        return state._handler


def _restore_step(schedule: LambdaLR, saved: dict[str, Any]) -> None:
    """Take the step from the file and the form (number of steps, learning rate) from the config, which may be new."""
    state = schedule.state_dict() | {key: saved[key] for key in ("last_epoch", "_step_count")}
    schedule.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants get_lr to be called by step only, which would go one step on
        rates = schedule.get_lr()
    schedule.load_state_dict(state | {"_last_lr": rates})
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _plain(value: Any) -> Any:
    """Numbers of numpy as numbers of Python: ``weights_only`` loading refuses the former."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
