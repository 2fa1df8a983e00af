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
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["VolumeSlicesInferer"]

_SHOW_PROGRESS_FROM = 21


class VolumeSlicesInferer(Inferer):
    """
    Segment a volume slice by slice with any inferer for pictures: beside the result, memory does not grow with it.

    MONAI's ``SliceInferer`` needs as little memory, but it runs plain windows only. Here a few slices at a time go
    through an inferer of one's choice, with its foreground and its simulated prompts. Slices are upright: rows run
    along y.

    Args:
        inferer: takes images (B, C, H, W), e.g. :class:`ForegroundSlidingWindowInferer`.
        slices: how many slices go to it at once.
        progress: whether volumes of many slices show a progress bar.
        device: where the result is put together; by default the device of the images.

    Shape:
        inputs (B, C, X, Y, Z), slices along Z; the result (B, labels, X, Y, Z).

    Raises:
        ValueError: ``slices`` is below 1; later, the inputs or the label have other dimensions.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> inferer = VolumeSlicesInferer(inferer=SimpleInferer(), slices=2)
        >>> inferer(torch.zeros(1, 3, 8, 6, 5), lambda pictures: pictures[:, :1] + 1).shape
        torch.Size([1, 1, 8, 6, 5])
    """

    def __init__(
        self, *, inferer: Inferer, slices: int = 1, progress: bool = True, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if slices < 1:
            raise ValueError(f"slices must be 1 or more, not {slices}.")
        self.inferer = inferer
        self.slices = slices
        self.progress = progress
        self.device = device

    def __call__(self, inputs: Tensor, network: Any, *args: Any, label: Tensor | None = None, **kwargs: Any) -> Any:
        """
        Segment whole volumes.

        Args:
            inputs: the volumes.
            network: called by ``inferer`` with slices or windows of them.
            args: for ``network``.
            label: the true masks (B, labels, X, Y, Z), for an inferer that makes prompts from them.
            kwargs: for ``network``.
        """
        for name, value in (("inputs", inputs), ("label", label)):
            if value is not None and (value.ndim != 5 or value.shape[2:] != inputs.shape[2:]):
                raise ValueError(f"{name} must be volumes (B, C, X, Y, Z) of one size, not {tuple(value.shape)}.")
        result: Tensor | None = None
        for start in self._starts(inputs.shape[-1]):
            part = slice(start, start + self.slices)
            given = {} if label is None else {"label": _as_pictures(label[..., part])}
            pictures = self.inferer(_as_pictures(inputs[..., part]), network, *args, **given, **kwargs)
            found = _as_slices(convert_to_tensor(pictures, track_meta=False), len(inputs))
            if result is None:
                shape = (*found.shape[:-1], inputs.shape[-1])
                result = torch.empty(shape, dtype=found.dtype, device=self.device or inputs.device)
            result[..., part] = found
        return MetaTensor(result).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result

    def _starts(self, depth: int) -> Any:
        starts = range(0, depth, self.slices)
        if not self.progress or depth < _SHOW_PROGRESS_FROM:
            return starts
        from tqdm import tqdm

        return tqdm(starts, desc="Slices", unit_scale=self.slices, unit="slice", leave=False)


def _as_pictures(volumes: Tensor) -> Tensor:
    """``(B, C, X, Y, n)`` as ``(B * n, C, Y, X)``."""
    return convert_to_tensor(volumes, track_meta=False).permute(0, 4, 1, 3, 2).flatten(0, 1).contiguous()


def _as_slices(pictures: Tensor, batch: int) -> Tensor:
    """``(B * n, C, Y, X)`` as ``(B, C, X, Y, n)``."""
    return pictures.unflatten(0, (batch, -1)).permute(0, 2, 4, 3, 1)
