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


"""A network trained in several processes is the network that one process trains, whatever the loss sums over."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from monai.losses import DiceFocalLoss, DiceLoss

from monai_ext.losses import TverskyCompositeLoss
from monai_ext.networks import BatchParallel

BATCH, STEPS = 5, 4
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "tversky": TverskyCompositeLoss(lambda_cldice=0.5),
    "dice of the batch": DiceLoss(sigmoid=True, batch=True),
    "dice of each item": DiceLoss(sigmoid=True),
    "dice and focal": DiceFocalLoss(sigmoid=True, batch=True),
}


def make_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(4, 2, 1))


def train(network: torch.nn.Module, loss_function: Callable[..., torch.Tensor]) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    curve = []
    for _ in range(STEPS):
        image = torch.rand(BATCH, 3, 16, 16, generator=generator)
        loss = loss_function(network(image), (image[:, :2] > 0.7).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return {"curve": torch.tensor(curve), "weights": torch.cat([p.detach().flatten() for p in network.parameters()])}


def work(rank: int, processes: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    found: dict[str, Any] = {name: train(BatchParallel(make_network()), loss) for name, loss in LOSSES.items()}
    torch.manual_seed(0)
    noisy = BatchParallel(torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.Dropout(0.5)))
    image = torch.ones(2 * processes, 50)
    found["dropout"], found["next"] = noisy(image).detach(), torch.rand(3)
    # In evaluation the processes need not keep step, nor have a whole batch.
    found["alone"] = noisy.eval()(image[:1]) if rank == 0 else None
    try:
        noisy.train()(image[: processes - 1])
    except ValueError as error:
        found["error"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several processes got."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        work, (request.param, port, str(folder)), nprocs=request.param, start_method="fork"
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", LOSSES)
def test_the_training_is_that_of_one_process(found: list[dict[str, Any]], name: str) -> None:
    one = train(make_network(), LOSSES[name])
    for process in found:
        torch.testing.assert_close(process[name], one, rtol=0, atol=1e-5)
        # To the last bit the same in all, or they would drift apart.
        assert process[name]["weights"].equal(found[0][name]["weights"])


def test_dropout_differs_between_processes_and_all_see_the_same_answers(found: list[dict[str, Any]]) -> None:
    answers = found[0]["dropout"]
    assert all(process["dropout"].equal(answers) for process in found)
    dropped = {tuple((row == 0).tolist()) for row in answers}
    assert len(dropped) == len(answers) == 2 * len(found)
    assert all(process["next"].equal(found[0]["next"]) for process in found)


def test_evaluation_is_each_process_by_itself(found: list[dict[str, Any]]) -> None:
    assert found[0]["alone"].shape == (1, 50)


def test_a_batch_must_have_an_item_for_each_process(found: list[dict[str, Any]]) -> None:
    count = len(found)
    expected = f"batch_size must be at least the number of processes, {count}, not {count - 1}."
    assert all(process["error"] == expected for process in found)
