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

from typing import Any

import ignite.distributed as idist
import torch
from monai.utils import convert_to_tensor, evenly_divisible_all_gather
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class BatchParallel(DistributedDataParallel):
    r"""
    Train one network in several processes exactly as in one: they share the work on each batch, not the data.

    With ``DistributedDataParallel`` every process has a batch of its own, so a loss that sums over the batch, as Dice
    and Tversky losses do, is another one than in a single process. Here all processes are given the same batch. Each
    runs the network on its part of the items, and all get the answers of all, so whatever sees a batch (loss, metrics,
    simulated clicks) sees that of one process. The gradient is that of one process, too:

    .. math:: \frac{\partial L}{\partial w} = \sum_{r=1}^{R} \frac{\partial L}{\partial y_r}
        \frac{\partial y_r}{\partial w}

    where :math:`y_r` is what process :math:`r` has answered. Dropout differs between processes. In evaluation mode it
    is the plain network, and the processes need not keep step.

    Args:
        module: the network, on the device of this process; all processes must be in one group.
        settings: as for ``DistributedDataParallel``.

    Shape:
        all tensors (B, ...), B at least the number of processes; the result (B, ...).

    Raises:
        ValueError: later, a batch has fewer items than there are processes.

    Example:
        >>> network = torch.nn.Linear(2, 1)
        >>> # network = BatchParallel(network), in each of the processes that torchrun has started
    """

    def __init__(self, module: torch.nn.Module, **settings: Any) -> None:
        # The buffers of the networks here are constants; sent around, they would make validation wait for others.
        super().__init__(module, broadcast_buffers=False, **settings)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Run the network on this process's items of the batch and return the answers to all of them."""
        if not self.training:
            return self.module(*inputs, **kwargs)
        if idist.get_world_size() == 1:
            return super().forward(*inputs, **kwargs)
        own = own_items(len(inputs[0]))
        part, parts = [_cut(value, own) for value in inputs], {key: _cut(value, own) for key, value in kwargs.items()}
        # All processes have drawn the same random numbers so far, and must go on so after the network's dropout.
        seed = int(torch.randint(2**31, ())) + idist.get_rank()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return gather_items(super().forward(*part, **parts))


def own_items(count: int) -> slice:
    """
    Return which items of a batch are this process's: all, if it is the only one.

    Args:
        count: size of the batch.

    Raises:
        ValueError: there are fewer items than processes.

    Example:
        >>> own_items(3)
        slice(0, 3, None)
    """
    rank, processes = idist.get_rank(), idist.get_world_size()
    if count < processes:
        raise ValueError(f"batch_size must be at least the number of processes, {processes}, not {count}.")
    return slice(count * rank // processes, count * (rank + 1) // processes)


def gather_items(part: Tensor) -> Tensor:
    """
    Put the answers of all processes together; the gradient flows into this process's part.

    It is scaled by the number of processes, because it is averaged over them afterwards.

    Args:
        part: ``(b, ...)``, the answers to :func:`own_items`.

    Returns:
        ``(B, ...)``.

    Example:
        >>> gather_items(torch.ones(2))
        tensor([1., 1.])
    """
    processes = idist.get_world_size()
    if processes == 1:
        return part
    part = convert_to_tensor(part, track_meta=False)
    parts = evenly_divisible_all_gather(part.detach().contiguous(), concat=False)
    if part.requires_grad:
        part.register_hook(lambda gradient: gradient * processes)
    parts[idist.get_rank()] = part
    return torch.cat(parts)


def _cut(value: Any, own: slice) -> Any:
    return convert_to_tensor(value, track_meta=False)[own] if isinstance(value, Tensor) else value
