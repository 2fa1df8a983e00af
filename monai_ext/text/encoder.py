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

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


class LabelNameEncoder(ABC):
    """
    A frozen network that turns the names of labels into vectors, used once when a bundle is made.

    A new one is one subclass with one method, ``encode``.

    Args:
        name: what the file of embeddings remembers; embeddings of different encoders do not mix.
    """

    def __init__(self, *, name: str) -> None:
        self.name = name

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Tensor:
        """One row for each text, ``(n, D)`` float32 on the CPU."""


def name_of(model: str | os.PathLike[str], name: str | None) -> str:
    """What to call a model: its name on the hub, but not the path of a folder, which is another one elsewhere."""
    if name is None and Path(model).is_dir():
        raise ValueError(f"name must be given for the model in the folder {model}: its path says nothing to others.")
    return name or str(model)
