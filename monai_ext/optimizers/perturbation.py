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

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor


class Perturbation(ABC):
    """
    How far and where to a sharpness-aware step looks away from the weights before it takes the gradient.

    A method is one subclass in one file with one method, ``__call__``. Whatever is random in it draws from torch's
    global generator.

    Args:
        rho: length of the step away, above 0.
    """

    def __init__(self, *, rho: float) -> None:
        if not rho > 0:
            raise ValueError(f"rho must be above 0, not {rho}.")
        self.rho = rho

    @abstractmethod
    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """
        The step away.

        Args:
            parameters: the trained tensors, the same ones in each call.
            gradients: the gradient of each; its scale means nothing (mixed precision).

        Returns:
            what is added to each tensor; None for one that stays.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs; nothing, unless a method remembers something."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from what ``state_dict`` gave."""


def joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all tensors together, never zero."""
    square = sum((gradient.float().square().sum() for gradient in gradients), start=gradients[0].new_zeros(()).float())
    return square.sqrt().clamp(min=1e-12)
