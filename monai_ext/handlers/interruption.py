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
import os
import signal
import threading
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class InterruptionNotice:
    """
    Say, when a training stops before its end, where it stopped and how it goes on.

    It does so after any exception, as a lost connection to a process that died, and when it is told to end (SIGTERM):
    by ``torchrun``, which ends all processes when one has died, by SLURM or by Kubernetes.

    Args:
        path: the file from which the training is resumed.

    Example:
        >>> trainer = Engine(lambda engine, batch: 1 / 0)
        >>> InterruptionNotice(path="output/resume.pt").attach(trainer)
        >>> trainer.run([0], max_epochs=3)
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
    """

    def __init__(self, *, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._before: Any = None
        self._told = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stop)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        self._told = False
        # Python gives signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._terminate(engine))

    def _terminate(self, engine: Engine) -> None:
        self._tell(engine, "it was told to end")
        self._end(engine)
        signal.raise_signal(signal.SIGTERM)

    def _stop(self, engine: Engine, error: BaseException) -> None:
        self._end(engine)
        self._tell(engine, f"{type(error).__name__}: {error}".splitlines()[0])
        raise error

    def _end(self, _engine: Engine) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _tell(self, engine: Engine, reason: str) -> None:
        if self._told:  # ignite raises an error of an iteration a second time, for the run
            return
        self._told = True
        logger.error(
            "The training stopped in epoch %d (%s). Give the same command again, with as many processes as you like: "
            "it goes on after its last whole epoch, from %s. If another process died first, torchrun says which, and "
            "of what.",
            *(engine.state.epoch, reason, self.path),
        )
