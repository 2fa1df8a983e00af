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
import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from monai_ext.data.atomic import atomic_path
from monai_ext.handlers.files import remove_leftovers, require_writable, save_tensors

logger = logging.getLogger(__name__)


class TrainedPartSaver:
    """
    Keep the best trained part: ``model.pt``, only what was trained, and ``adapter.json``, which describes it.

    Attached to a validator, it writes both when the key metric is the best so far, by the validator's own
    ``metric_cmp_fn``. A metric that is not finite is never the best. ``model.pt`` is a bare dict of CPU tensors, which
    MONAI's ``CheckpointLoader(load_path=..., load_dict={"network": network})`` loads. Give the saver to
    :class:`ResumeHandler` (``states``), so that the best so far outlives an interruption.

    Args:
        network: has ``trained_state_dict()`` and ``describe()``, as :class:`SAM2Segmenter` has; may be wrapped in
            ``DistributedDataParallel``.
        path: where ``model.pt`` is written.
        description_path: where the description is written, by default ``adapter.json`` beside ``path``.

    Raises:
        ValueError: on attaching, when the validator has no ``key_val_metric``.
        OSError: on attaching, when a file cannot be written there; while saving, when the disk is full.

    Example:
        >>> saver = TrainedPartSaver(network=torch.nn.Linear(1, 1), path="models/model.pt")
        >>> saver.description_path.as_posix()
        'models/adapter.json'
    """

    def __init__(
        self,
        *,
        network: torch.nn.Module,
        path: str | os.PathLike[str],
        description_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.description_path = Path(description_path or self.path.with_name("adapter.json"))
        self.best_metric: float | None = None
        self.best_epoch = -1
        self._validator: Any = None

    def attach(self, engine: Any) -> None:
        """Attach to a :class:`monai.engines.Evaluator`."""
        if engine.state.key_metric_name is None:
            raise ValueError("key_val_metric of the validator must be given, not None: it tells which epoch is best.")
        self._validator = engine
        if engine.state.rank == 0:
            for path in (self.path, self.description_path):
                require_writable(path)
                engine.add_event_handler(Events.STARTED, lambda _, path=path: remove_leftovers(path))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Save the trained part if it is the best so far."""
        name = engine.state.key_metric_name
        metric = float(engine.state.metrics[name])
        if not math.isfinite(metric):
            logger.warning("%s is %s in epoch %d: not saved as the best.", name, metric, engine.state.epoch)
        elif self.best_metric is None or engine.metric_cmp_fn(metric, self.best_metric):
            if engine.state.rank == 0:
                self._save(name, metric, engine.state.epoch)
            self.best_metric, self.best_epoch = metric, engine.state.epoch
        self._tell_validator()

    def state_dict(self) -> dict[str, Any]:
        """The best metric so far (None if there is none) and its epoch."""
        return {"best_metric": self.best_metric, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.best_metric, self.best_epoch = state_dict["best_metric"], state_dict["best_epoch"]
        self._tell_validator()

    def _save(self, name: str, metric: float, epoch: int) -> None:
        network = unwrapped(self.network)
        state = {key: tensor.detach().to("cpu", copy=True) for key, tensor in network.trained_state_dict().items()}
        description = {**network.describe(), "key_metric": name, "best_metric": metric, "epoch": epoch}
        save_tensors(state, self.path)
        with atomic_path(self.description_path) as temporary:
            temporary.write_text(json.dumps(description, indent=2) + "\n")
        logger.info("%s: %s %.4f of epoch %d is the best so far.", self.path, name, metric, epoch)

    def _tell_validator(self) -> None:
        # MONAI's own record takes a first NaN for the best, forgets itself on resuming, and is what logs show.
        if self._validator is not None:
            self._validator.state.best_metric = -1 if self.best_metric is None else self.best_metric
            self._validator.state.best_metric_epoch = self.best_epoch


def unwrapped(network: torch.nn.Module) -> Any:
    """The network itself, when it is wrapped for several devices."""
    parallel = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    return network.module if isinstance(network, parallel) else network
