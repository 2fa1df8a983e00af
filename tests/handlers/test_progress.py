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

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_ext.handlers.progress import EvaluationProgressBar, TrainingProgressBar


def test_training_shows_epoch_and_loss(capsys):
    network = torch.nn.Conv2d(1, 1, 1)
    items = [{"image": torch.ones(1, 4, 4), "label": torch.ones(1, 4, 4)}] * 3
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.MSELoss(),
        train_handlers=[TrainingProgressBar()],
    ).run()
    shown = capsys.readouterr().err
    assert "Epoch [2/2]" in shown and "3/3" in shown and "loss=" in shown


def cases() -> list[dict]:
    return [{"name": f"{n}.png", "chances": np.zeros((1, 4, 4))} for n in range(5)]


def test_evaluation_counts_images_not_batches(capsys, make_evaluator):
    make_evaluator(cases(), [EvaluationProgressBar(description="Segmenting")], batch_size=2).run()
    shown = capsys.readouterr().err
    assert "Segmenting" in shown and "5/5" in shown


def test_only_the_first_process_shows_bars(capsys, make_evaluator, monkeypatch):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    make_evaluator(cases(), [EvaluationProgressBar()]).run()
    assert "image" not in capsys.readouterr().err
