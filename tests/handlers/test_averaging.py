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

"""Gradients averaged over two processes of the same program."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from monai.engines import SupervisedTrainer

from monai_ext.handlers import GradientAveraging


class Branches(torch.nn.Module):
    """Two layers, the second of which only one process uses."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fixed = (torch.nn.Linear(1, 1, bias=False) for _ in range(3))
        self.fixed.requires_grad_(False)
        for layer in (self.one, self.two, self.fixed):
            torch.nn.init.ones_(layer.weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result = self.one(image)
        return self.two(result) if image.max() > 2 else result


def train(value: float) -> dict[str, float]:
    network = Branches()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": torch.tensor([[value]]), "label": torch.zeros(1, 1)}],
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0),
        loss_function=lambda pred, label: (pred - label).sum(),
        train_handlers=[GradientAveraging()],
        decollate=False,
    )
    trainer.run()
    return {name: p.item() for name, p in network.named_parameters()}


def work(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(train(float(1 + 2 * rank)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_one_process_trains_as_without_it() -> None:
    assert train(1.0) == {"one.weight": 0.0, "two.weight": 1.0, "fixed.weight": 1.0}


def test_two_processes_make_the_same_step(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(work, (port, str(tmp_path)), nprocs=2, start_method="fork")
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    # d/d one is 1 and 3, d/d two is none and 3: their means are 2 and 1.5.
    assert results[0] == results[1] == {"one.weight": -1.0, "two.weight": -0.5, "fixed.weight": 1.0}
