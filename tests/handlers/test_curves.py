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

import csv
import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanAbsoluteError, ValidationHandler, from_engine
from PIL import Image

from monai_ext.handlers import curves
from monai_ext.handlers.curves import CurveHandler


def loader() -> DataLoader:
    items = [{"image": torch.ones(1, 4, 4), "label": torch.full((1, 4, 4), 3.0)} for _ in range(2)]
    return DataLoader(Dataset(items), batch_size=1)


def train(folder: Path, epochs: int, state: dict | None = None, start: int = 0) -> CurveHandler:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    validator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader(),
        network=network,
        key_val_metric={"error": MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))},
    )
    handler = CurveHandler(output_dir=folder, validator=validator)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader(),
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        train_handlers=[
            LrScheduleHandler(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), print_lr=False),
            ValidationHandler(interval=2, validator=validator),
            handler,
        ],
    )
    if state:
        handler.load_state_dict(state)
        trainer.state.epoch, trainer.state.iteration = start, 2 * start
    trainer.run()
    return handler


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_draws_and_writes_loss_rate_and_metrics_by_epoch(tmp_path):
    history = train(tmp_path, epochs=4).state_dict()
    assert history["epoch"] == [1, 2, 3, 4]
    assert history["learning_rate"] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert all(earlier > later for earlier, later in zip(history["loss"], history["loss"][1:], strict=False))
    # Validated every second epoch: what the validator still holds is not drawn again.
    assert [math.isnan(value) for value in history["error"]] == [True, False, True, False]
    written = rows(tmp_path)
    assert [row["epoch"] for row in written] == ["1", "2", "3", "4"]
    assert [row["error"] == "" for row in written] == [True, False, True, False]
    assert float(written[2]["loss"]) == history["loss"][2]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 200


def test_history_survives_resuming(tmp_path):
    state = train(tmp_path, epochs=2).state_dict()
    torch.save(state, tmp_path / "resume.pt")
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    handler = train(tmp_path, epochs=4, state=state, start=2)
    history = handler.state_dict()
    assert history["epoch"] == [1, 2, 3, 4]
    assert history["loss"][:2] == state["loss"] and len(state["loss"]) == 2
    assert len(rows(tmp_path)) == 4


def test_choosing_no_screen_for_others(tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    train(tmp_path, epochs=1)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_full_disk_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    def fail(*_args: object) -> None:
        raise OSError("curves.csv could not be saved")

    monkeypatch.setattr(curves, "write_table", fail)
    with caplog.at_level(logging.WARNING):
        assert len(train(tmp_path, epochs=2).state_dict()["loss"]) == 2
    assert "curves.csv could not be saved" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        train(tmp_path / "file", epochs=1)


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    for name in (".curves-x1y2.csv", ".curves-x1y2.png"):
        (tmp_path / name).touch()
    train(tmp_path, epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "curves.png"]
