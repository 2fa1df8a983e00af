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


"""What is said of a training that stops before its end."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from ignite.engine import Engine

from monai_ext.handlers.interruption import InterruptionNotice


def run(step: Any) -> None:
    trainer = Engine(step)
    InterruptionNotice(path="runs/resume.pt").attach(trainer)
    trainer.run([0, 1], max_epochs=3)


@pytest.fixture
def ended() -> Any:
    """The signals that came through to whoever waited for them before the training."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_an_error_is_told_and_passed_on(caplog: pytest.LogCaptureFixture, ended: list[int]) -> None:
    def step(engine: Engine, _batch: int) -> None:
        if engine.state.epoch == 2:
            raise RuntimeError("Connection closed by peer\nand a long stack")

    with pytest.raises(RuntimeError, match="Connection closed"):
        run(step)
    (said,) = (record.getMessage() for record in caplog.records if record.name == "monai_ext.handlers.interruption")
    assert said.startswith("The training stopped in epoch 2 (RuntimeError: Connection closed by peer). Give the same")
    assert "after its last whole epoch, from runs/resume.pt" in said
    signal.raise_signal(signal.SIGTERM)
    assert ended == [signal.SIGTERM]


def test_a_signal_is_told_and_passed_on(caplog: pytest.LogCaptureFixture, ended: list[int]) -> None:
    def step(engine: Engine, _batch: int) -> None:
        if engine.state.iteration == 5:
            signal.raise_signal(signal.SIGTERM)

    run(step)
    assert ended == [signal.SIGTERM]
    assert "The training stopped in epoch 3 (it was told to end)" in caplog.text


def test_nothing_is_told_of_a_training_that_ends(caplog: pytest.LogCaptureFixture, ended: list[int]) -> None:
    run(lambda engine, batch: None)
    signal.raise_signal(signal.SIGTERM)
    assert ended == [signal.SIGTERM] and "stopped" not in caplog.text
