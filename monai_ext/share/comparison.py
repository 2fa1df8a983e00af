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

import tempfile
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.transforms import Compose, EnsureType, LoadImage, NormalizeIntensity, Transpose
from torch import Tensor

from monai_ext.data.phantom import write_retina
from monai_ext.data.reader import PhotographReader

# Two masks of the same network: what is left between them is rounding.
SAME = 0.999


def real_photograph(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The photograph of a retina that scikit-image brings along, normalised, ``(3, H, W)``."""
    with tempfile.TemporaryDirectory() as folder:
        load = LoadImage(reader=PhotographReader(), ensure_channel_first=True)
        normalise = NormalizeIntensity(mean, std, channel_wise=True)
        return Compose([load, Transpose((0, 2, 1)), normalise, EnsureType(track_meta=False)])(write_retina(folder))


def windows_of(image: Tensor, size: tuple[int, int], longest_side: int | None = None) -> Tensor:
    """
    Cut four windows from an image, around a third and two thirds of its sides.

    Args:
        image: ``(3, H, W)``.
        size: height and width of a window; a smaller image is enlarged.
        longest_side: what the image is resized to before; None leaves it.

    Returns:
        ``(4, 3, h, w)``.

    Example:
        >>> windows_of(torch.zeros(3, 40, 60), (50, 50)).shape
        torch.Size([4, 3, 50, 50])
    """
    sides = image.shape[-2:]
    scale = 1 if longest_side is None else longest_side / max(sides)
    scale = max(scale, *(small / side for small, side in zip(size, sides, strict=True)))
    if scale != 1:
        new = [max(small, round(side * scale)) for small, side in zip(size, sides, strict=True)]
        image = F.interpolate(image[None], size=new, mode="bilinear", antialias=True)[0]
    starts = [
        [(side - small) * part // 3 for part in (1, 2)] for small, side in zip(size, image.shape[-2:], strict=True)
    ]
    return torch.stack([image[:, y : y + size[0], x : x + size[1]] for y in starts[0] for x in starts[1]])


def compare_logits(logits: Tensor, truth: Tensor, threshold: float) -> tuple[float, float]:
    """
    Compare what an exported network says with what the original says.

    Where the original finds nothing, or nothing else, the Dice is that of the brighter half of its logits: two empty
    masks would agree whatever the numbers are.

    Args:
        logits: of the exported network, any shape.
        truth: those of the original.
        threshold: probability from which on a pixel belongs to the label, in 0..1.

    Returns:
        The greatest difference of two logits, and the Dice of the masks.

    Example:
        >>> compare_logits(torch.tensor([1.0, -1.0]), torch.tensor([1.5, -1.0]), 0.5)
        (0.5, 1.0)
    """
    if logits.shape != truth.shape:
        raise ValueError(f"logits must be of shape {tuple(truth.shape)}, not {tuple(logits.shape)}.")
    level = torch.logit(torch.tensor(float(threshold)))
    if bool((truth >= level).all()) or not bool((truth >= level).any()):
        level = truth.median()
    mine, theirs = logits >= level, truth >= level
    dice = 2 * float((mine & theirs).sum()) / max(1.0, float(mine.sum() + theirs.sum()))
    return float((logits - truth).abs().max()), dice
