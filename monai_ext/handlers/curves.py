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

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.utils import is_scalar

from monai_ext.data.atomic import atomic_path
from monai_ext.handlers.files import remove_leftovers, require_writable
from monai_ext.handlers.utils import iteration_loss, write_table

logger = logging.getLogger(__name__)


class CurveHandler:
    """
    Draw the training so far: loss, learning rate and validation metrics by epoch, in ``curves.png`` and ``curves.csv``.

    List it after the ``ValidationHandler``, so that an epoch's metrics are there, and name it in the ``states`` of the
    :class:`ResumeHandler`, which keeps its history. A picture that cannot be written is logged and training goes on.

    Args:
        output_dir: folder of both files; made if missing.
        validator: the engine whose metrics are drawn.

    Raises:
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> CurveHandler(output_dir="out").state_dict()
        {'epoch': []}
    """

    def __init__(self, *, output_dir: str | os.PathLike[str], validator: Engine | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.validator = validator
        self._history: dict[str, list[float]] = {"epoch": []}
        self._losses: list[float] = []
        self._rate = math.nan

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a MONAI trainer whose output has ``loss`` and which has an ``optimizer``.
        """
        require_writable(self.output_dir / "curves.png")
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)

    def state_dict(self) -> dict[str, list[float]]:
        """Return the history: for each curve one number per epoch, ``NaN`` where there is none."""
        return {name: list(values) for name, values in self._history.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """
        Go on from the history of an earlier run.

        Args:
            state: what ``state_dict`` returned.
        """
        self._history = {name: list(values) for name, values in state.items()}

    def _start(self, _engine: Engine) -> None:
        if idist.get_rank() == 0:
            for name in ("curves.png", "curves.csv"):
                remove_leftovers(self.output_dir / name)

    def _start_epoch(self, _engine: Engine) -> None:
        self._losses = []

    def _collect(self, engine: Engine) -> None:
        self._losses.append(iteration_loss(engine.state.output))
        self._rate = engine.optimizer.param_groups[0]["lr"]  # type: ignore[attr-defined]

    def _finish_epoch(self, engine: Engine) -> None:
        loss = sum(self._losses) / len(self._losses)
        self._append({"epoch": engine.state.epoch, "loss": loss, "learning_rate": self._rate, **self._metrics(engine)})
        if idist.get_rank() == 0:
            try:
                columns = list(self._history)
                rows = [dict(zip(columns, row, strict=True)) for row in zip(*self._history.values(), strict=True)]
                write_table(self.output_dir / "curves.csv", columns, rows)
                draw_curves(self._history, self.output_dir / "curves.png")
            except OSError as error:
                logger.warning("%s", error)

    def _metrics(self, engine: Engine) -> dict[str, float]:
        # The validator keeps its metrics from earlier epochs when it runs at intervals.
        if self.validator is None or self.validator.state.epoch != engine.state.epoch:
            return {}
        return {name: float(value) for name, value in self.validator.state.metrics.items() if is_scalar(value)}

    def _append(self, point: Mapping[str, float]) -> None:
        epochs = len(self._history["epoch"])
        for name in point:
            self._history.setdefault(name, [math.nan] * epochs)
        for name, values in self._history.items():
            values.append(point.get(name, math.nan))


def draw_curves(history: Mapping[str, list[float]], path: Path) -> None:
    """
    Draw a history as panels: loss, learning rate and, if there is any, everything else.

    Args:
        history: lists of equal length, one of them ``epoch``.
        path: the PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    # The object interface: pyplot would keep figures and choose a screen for the whole process.
    from matplotlib.figure import Figure

    others = [name for name in history if name not in ("epoch", "loss", "learning_rate")]
    panels = {"training loss": ["loss"], "learning rate": ["learning_rate"], "validation": others}
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            _plot(axes, history["epoch"], history[name], name)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if names is others and axes.lines:
            axes.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _plot(axes: Any, epochs: list[float], values: list[float], name: str) -> None:
    # Validation may run at intervals: join the points there are.
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if not math.isnan(value)]
    if points:
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
