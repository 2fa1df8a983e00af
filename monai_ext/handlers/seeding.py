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

import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd


class EpochSeeding:
    """
    Make the randomness of every epoch a function of (seed, epoch) alone.

    When an epoch starts, this seeds ``random``, ``numpy``, ``torch`` on all devices, the random transforms of the
    data set, the simulated clicks of the inferer and the generators of the loader, and starts a fresh pass through the
    data. So epochs differ from each other, an epoch that is run again is the same to the last bit, and nothing that
    happens between two epochs, a validation for one, can disturb them. All processes of a training draw the same, so
    their number makes no difference, see :class:`monai_ext.networks.BatchParallel`.

    Args:
        seed: any whole number that is not negative.

    Raises:
        ValueError: on attaching to an engine whose loader keeps its workers (``persistent_workers``): their random
            state is out of reach.

    Example:
        >>> trainer = Engine(lambda engine, batch: print(engine.state.epoch, torch.rand(1) < 2))
        >>> EpochSeeding(seed=1).attach(trainer)
        >>> _ = trainer.run([0], max_epochs=1)
        1 tensor([True])
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer (or to an evaluator whose transforms are random)."""
        if getattr(getattr(engine, "data_loader", None), "persistent_workers", False):
            raise ValueError(
                "persistent_workers of the data loader must be false, not true: the random transforms of workers that "
                "stay cannot be seeded anew for each epoch."
            )
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed everything for the epoch that starts now."""
        seed = int(np.random.SeedSequence((self.seed, engine.state.epoch, 0)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        set_rnd(getattr(engine, "inferer", None), seed)
        loader: Any = engine.state.dataloader
        if loader is None:
            return
        set_rnd(getattr(loader, "dataset", None), seed)
        for owner in (loader, getattr(loader, "sampler", None)):
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                generator.manual_seed(seed)
        # An epoch shorter than the data would go on in the middle of the last pass, which a resumed run has not seen.
        engine.set_data(loader)
