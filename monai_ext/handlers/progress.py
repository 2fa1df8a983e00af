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

from collections.abc import Sized
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from monai_ext.handlers.utils import batch_items, iteration_loss


class TrainingProgressBar:
    """
    Show epoch, iteration, time left and loss of a training on the terminal of the first process.

    Example:
        >>> from ignite.engine import Engine
        >>> TrainingProgressBar().attach(Engine(lambda engine, batch: {"loss": 0.1}))
    """

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a trainer whose output has ``loss``.
        """
        if idist.get_rank() == 0:
            ProgressBar(persist=True).attach(engine, output_transform=lambda output: {"loss": iteration_loss(output)})


class EvaluationProgressBar:
    """
    Count the images that an evaluator has done, on the terminal of the first process.

    ignite's ``ProgressBar`` counts batches.

    Args:
        description: stands before the bar.

    Example:
        >>> from ignite.engine import Engine
        >>> EvaluationProgressBar(description="Validating").attach(Engine(lambda engine, batch: batch))
    """

    def __init__(self, *, description: str = "Images") -> None:
        self.description = description
        self._bar: Any = None

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a MONAI evaluator.
        """
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._open)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        from tqdm.auto import tqdm

        # The sampler knows this process's share; not every loader has one or knows its length.
        sampler = getattr(getattr(engine, "data_loader", None), "sampler", None)
        total = len(sampler) if isinstance(sampler, Sized) else None
        self._bar = tqdm(total=total, desc=self.description, unit="image")

    def _advance(self, engine: Engine) -> None:
        self._bar.update(len(batch_items(engine)))

    def _close(self, _engine: Engine) -> None:
        self._bar.close()
