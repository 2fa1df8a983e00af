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

import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class GradientAveraging:
    r"""
    Let several processes train one network by averaging their gradients, without wrapping the network.

    .. math:: g \leftarrow \frac{1}{R} \sum_{r=1}^{R} g_r

    ``DistributedDataParallel`` averages the gradients of what goes through the network's ``forward``. Training with
    clicks encodes an image once and decodes it many times, which is not one call; this handler needs none. The networks
    of all processes must start alike, as they do from one seed. In a single process it does nothing.

    Example:
        >>> handler = GradientAveraging()
        >>> # SupervisedTrainer(..., train_handlers=[handler, GradientClipping(max_norm=1.0)])
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`monai.engines.SupervisedTrainer`, before handlers that look at the gradient."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Average over the processes, if there are several."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
        # A parameter that this process did not need has a gradient of zero; all processes must send the same amount.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        together = torch.nn.utils.parameters_to_vector(gradients)
        dist.all_reduce(together)
        together /= dist.get_world_size()
        start = 0
        for parameter in parameters:
            parameter.grad = together[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
