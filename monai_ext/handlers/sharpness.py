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
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from monai_ext.optimizers.perturbation import Perturbation


class SharpnessAware:
    r"""
    Make the steps of a trainer sharpness-aware: the gradient is taken a little way up the slope.

    .. math:: w \leftarrow \mathrm{step}\big(w, \nabla L(w + \epsilon)\big), \qquad \epsilon \text{ from } \nabla L(w)

    When the trainer has its gradient, the handler moves the weights by a perturbation, runs the same batch again with
    the same dropout (simulated clicks are drawn anew), and puts the weights back, to the bit. The optimizer then steps
    along the second gradient. A step costs two forward and backward passes. Put it before handlers that look at the
    gradient. A gradient that is not finite is left as it is: to the scaler of mixed precision, which passes over the
    batch, or to :class:`GradientClipping`, which stops the training.

    Args:
        perturbation: how to move away, e.g. :class:`monai_ext.optimizers.GlobalPerturbation`. Give the handler to
            :class:`ResumeHandler` (``states``) if it remembers something.

    Raises:
        ValueError: on starting a trainer that accumulates gradients.

    Example:
        >>> from monai_ext.optimizers import GlobalPerturbation
        >>> handler = SharpnessAware(perturbation=GlobalPerturbation(rho=0.01))
        >>> # SupervisedTrainer(..., train_handlers=[handler, GradientClipping(max_norm=1.0)])
    """

    def __init__(self, *, perturbation: Perturbation) -> None:
        self.perturbation = perturbation
        self._devices: list[torch.device] = []
        self._random: tuple[Tensor, list[Tensor]] = (torch.empty(0), [])

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`monai.engines.SupervisedTrainer`."""
        engine.add_event_handler(Events.STARTED, self._check)
        engine.add_event_handler(Events.ITERATION_STARTED, self._remember)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def _check(self, engine: Any) -> None:
        if getattr(engine, "accumulation_steps", 1) != 1:
            raise ValueError("accumulation_steps of the trainer must be 1 for sharpness-aware steps: raise batch_size.")

    def _remember(self, engine: Any) -> None:
        self._devices = [engine.state.device] if engine.state.device.type == "cuda" else []
        self._random = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in self._devices]

    def __call__(self, engine: Any) -> None:
        """Replace the gradient by that of the perturbed weights."""
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        if not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            return
        steps = self.perturbation(parameters, gradients)
        before = [None if step is None else p.detach().clone() for p, step in zip(parameters, steps, strict=True)]
        try:
            with torch.no_grad():
                for parameter, step in zip(parameters, steps, strict=True):
                    if step is not None:
                        parameter += step
            engine.optimizer.zero_grad(set_to_none=True)
            with torch.random.fork_rng(devices=self._devices):
                torch.set_rng_state(self._random[0])
                for device, state in zip(self._devices, self._random[1], strict=True):
                    torch.cuda.set_rng_state(state, device)
                self._backward(engine)
        finally:
            with torch.no_grad():
                for parameter, kept in zip(parameters, before, strict=True):
                    if kept is not None:
                        parameter.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What the perturbation remembers."""
        return self.perturbation.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.perturbation.load_state_dict(state)

    def _backward(self, engine: Any) -> None:
        batch = engine.prepare_batch(engine.state.batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        amp = engine.amp and engine.scaler is not None
        with torch.autocast("cuda", enabled=amp, **engine.amp_kwargs):
            pred = engine.inferer(inputs, engine.network, *args, **kwargs)
            loss = engine.loss_function(pred, targets).mean()
        (engine.scaler.scale(loss) if amp else loss).backward()
