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
from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class GradientClipping:
    r"""
    Clip the norm of the gradient right before the optimizer steps, at its true scale also under AMP.

    .. math:: g \leftarrow g \cdot \min(1, \mathrm{max\_norm} / \lVert g \rVert_2)

    where :math:`g` is the gradient of all parameters of the optimizer together (Pascanu et al., "On the difficulty of
    training recurrent neural networks", ICML 2013). With ``accumulation_steps`` the accumulated gradient is clipped,
    once. Under AMP the gradient is unscaled first, and a step that overflowed is left to the scaler, which skips it.

    Args:
        max_norm: the largest norm a step may have, more than 0.

    Raises:
        ValueError: ``max_norm`` is not more than 0.
        FloatingPointError: while training without a scaler, when the gradient is not finite; the weights are still
            those of the last good step.

    Example:
        >>> handler = GradientClipping(max_norm=1.0)
        >>> # SupervisedTrainer(..., train_handlers=[handler])
    """

    def __init__(self, *, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be more than 0, not {max_norm}.")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`monai.engines.SupervisedTrainer`."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Clip, if this is an iteration that updates the weights."""
        if not _updates(engine):
            return
        scaler = engine.scaler
        if scaler is not None:
            scaler.unscale_(engine.optimizer)
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        skipped_by_scaler = scaler is not None and scaler.is_enabled()
        if not skipped_by_scaler and not torch.isfinite(norm):
            raise FloatingPointError(
                f"The gradient must be finite, not of norm {norm.item()}, in epoch {engine.state.epoch}, iteration "
                f"{engine.state.iteration} (loss {engine.state.output['loss'].item()}): lower the learning rate, or "
                "look for NaN in the images of this batch."
            )


def _updates(engine: Any) -> bool:
    """Whether :class:`SupervisedTrainer` steps the optimizer in this iteration."""
    steps = getattr(engine, "accumulation_steps", 1)
    length = engine.state.epoch_length
    done = engine.state.iteration if length is None else (engine.state.iteration - 1) % length + 1
    return done % steps == 0 or done == length
