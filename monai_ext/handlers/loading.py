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

import logging
import os
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from monai_ext.handlers.trained import unwrapped
from monai_ext.networks.weights import read_state_dict

logger = logging.getLogger(__name__)


class TrainedPartLoader:
    """
    Load ``model.pt`` into the network when a run starts.

    MONAI's ``CheckpointLoader`` loads the same file, but what it says of one that is missing, damaged or of another
    network neither names the file nor tells what to do.

    Args:
        network: has ``load_state_dict()`` that refuses what does not fit, as :class:`SAM2Segmenter` has; may be wrapped
            in ``DistributedDataParallel``.
        path: the file that :class:`TrainedPartSaver` wrote.

    Raises:
        FileNotFoundError: on starting, when there is no such file.
        ValueError: on starting, when the file is damaged or of another network, which is then as it was.

    Example:
        >>> loader = TrainedPartLoader(network=torch.nn.Linear(1, 1), path="models/model.pt")
        >>> # SupervisedEvaluator(..., val_handlers=[loader, ...])
    """

    def __init__(self, *, network: torch.nn.Module, path: str | os.PathLike[str]) -> None:
        self.network = network
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Attach to any engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, _engine: Engine) -> None:
        """Load the file."""
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path} does not exist: train first, or give the folder of a trained model.pt as ckpt_dir."
            )
        state = read_state_dict(self.path)
        try:
            unwrapped(self.network).load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{self.path} does not fit: {error}") from error
        logger.info("Loaded %s.", self.path)
