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

import torch
from monai.inferers import Inferer
from torch import Tensor
from torch.nn.functional import interpolate


class LongestSideInferer(Inferer):
    """
    Segment images at a fixed length of their longer side and give the answer at their own size.

    For what is seen best in the whole image, as the optic disc is, whatever the camera's resolution. Images are made
    smaller with an anti-aliasing filter, logits larger bilinearly; smaller images are enlarged. This is SAM's
    ``ResizeLongestSide``.

    Args:
        inferer: does the work at that size, e.g. :class:`monai_ext.inferers.ForegroundSlidingWindowInferer`. It gets
            the ``label`` that comes with the images at the same size, so prompts simulated from it fit.
        longest_side: length of the longer side in pixels.

    Shape:
        inputs ``(B, C, H, W)``; the result ``(B, labels, H, W)`` logits.

    Raises:
        ValueError: ``longest_side`` is not a whole number of at least 1.

    Example:
        >>> sizes = []
        >>> def network(image):
        ...     sizes.append(tuple(image.shape[-2:]))
        ...     return image[:, :1]
        >>> from monai.inferers import SimpleInferer
        >>> infer = LongestSideInferer(inferer=SimpleInferer(), longest_side=64)
        >>> tuple(infer(torch.zeros(1, 3, 200, 300), network).shape), sizes
        ((1, 1, 200, 300), [(43, 64)])
    """

    def __init__(self, *, inferer: Callable[..., Tensor], longest_side: int) -> None:
        super().__init__()
        if not isinstance(longest_side, int) or longest_side < 1:
            raise ValueError(f"longest_side must be a whole number of at least 1, not {longest_side!r}.")
        self.inferer = inferer
        self.longest_side = longest_side

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, label: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        size = inputs.shape[-2:]
        smaller = [max(1, round(side * self.longest_side / max(size))) for side in size]
        image = interpolate(inputs, size=smaller, mode="bilinear", antialias=True)
        masks = {} if label is None else {"label": interpolate(label.float(), size=smaller, mode="nearest")}
        logits = self.inferer(image, network, *args, **masks, **kwargs)
        return interpolate(torch.as_tensor(logits), size=size, mode="bilinear")
