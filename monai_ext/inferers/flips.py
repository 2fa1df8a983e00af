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

from monai.inferers import Inferer
from torch import Tensor

# Left and right, up and down: (), (x), (y), (x and y) as dimensions of (B, C, H, W).
_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


class FlipAverageInferer(Inferer):
    """
    Average an inferer's logits over the four flips of the image: steadier masks for four times the work.

    Args:
        inferer: does the work, e.g. :class:`monai_ext.inferers.ForegroundSlidingWindowInferer`. It gets each flip of
            the images, and of a ``label`` that comes with them, so prompts simulated from it are flipped as well.

    Shape:
        inputs ``(B, C, H, W)``; the result ``(B, labels, H, W)`` logits.

    Example:
        >>> import torch
        >>> from monai.inferers import SimpleInferer
        >>> image = torch.tensor([[[[1.0, 2.0]]]])
        >>> FlipAverageInferer(inferer=SimpleInferer())(image, lambda x: x.cumsum(-1)).tolist()
        [[[[2.0, 2.5]]]]
    """

    def __init__(self, *, inferer: Callable[..., Tensor]) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, label: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        answers = []
        for dims in _FLIPS:
            flipped = {} if label is None else {"label": label.flip(dims)}
            answers.append(self.inferer(inputs.flip(dims), network, *args, **flipped, **kwargs).flip(dims))
        return sum(answers[1:], answers[0]) / len(answers)
