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

from collections.abc import Callable
from typing import Any

from monai.inferers import SimpleInferer
from torch import Tensor


class PromptedInferer(SimpleInferer):
    """
    Run a promptable network with prompts simulated from the true label: how clicks and boxes are trained.

    Args:
        prompts: makes ``points`` and ``point_labels`` from a label, e.g. :class:`monai_ext.transforms.SimulatePrompts`.

    Shape:
        inputs ``(B, C, H, W)``, label ``(B, labels, H, W)``; the result is the network's, ``(B, labels, H, W)`` logits.

    Raises:
        ValueError: no label came with the images.

    Example:
        >>> import torch
        >>> from monai_ext.transforms import SimulatePrompts
        >>> inferer = PromptedInferer(prompts=SimulatePrompts(mode="points_2"))
        >>> network = lambda image, points, point_labels: points
        >>> inferer(torch.zeros(1, 3, 8, 8), network, label=torch.ones(1, 1, 8, 8)).shape
        torch.Size([1, 1, 2, 2])
    """

    def __init__(self, *, prompts: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.prompts = prompts

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, label: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if label is None:
            raise ValueError("label must be given: let the trainer's prepare_batch pass it (PrepareBatchExtraInput).")
        return network(inputs, *args, **self.prompts(label), **kwargs)
