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

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["ForegroundSlidingWindowInferer"]


class ForegroundSlidingWindowInferer(SlidingWindowInferer):
    """
    Sliding window that spends no forward pass on windows without foreground.

    Every window that touches the foreground is run, so inside it the result is that of MONAI's
    ``SlidingWindowInferer``; windows outside get ``background``. With ``prompts`` it also evaluates a promptable
    network: each window gets prompts simulated from its own part of the true label, in pixels of the window.

    Args:
        roi_size: the window, (height, width) or one number for both.
        overlap: how much neighbouring windows overlap, as a part of the window, in [0, 1).
        sw_batch_size: how many windows go through the network at once.
        mode: ``"constant"`` averages windows alike, ``"gaussian"`` leaves nearly all to the nearest one.
        foreground: makes the mask of what is worth running, (B, 1, H, W), from the images as the network sees them,
            (B, C, H, W), e.g. :class:`monai_ext.transforms.FundusForeground`; None runs every window.
        background: the logit of windows left out.
        prompts: makes ``points`` and ``point_labels`` from a label, e.g. :class:`monai_ext.transforms.SimulatePrompts`;
            None segments automatically.
        progress: whether to show a progress bar.
        sw_device: where windows are run; by default the device of the images.
        device: where windows are put together; by default the device of the images.

    Shape:
        inputs (B, C, H, W); the result (B, labels, H, W) logits. ``network`` returns one tensor (B, labels, h, w).

    Raises:
        ValueError: ``prompts`` are asked for but no label is given, or the mask or the label does not fit the images.

    Example:
        >>> runs = []
        >>> def network(windows):
        ...     runs.append(len(windows))
        ...     return windows * 3
        >>> inferer = ForegroundSlidingWindowInferer(roi_size=8, overlap=0, foreground=lambda images: images > 0.5)
        >>> image = torch.zeros(1, 1, 16, 16)
        >>> image[..., 12, 12] = 1
        >>> inferer(image, network)[0, 0, [0, 12], [0, 12]].tolist(), sum(runs)  # one run to learn the output's shape
        ([-20.0, 3.0], 2)
    """

    def __init__(
        self,
        *,
        roi_size: Sequence[int] | int,
        overlap: Sequence[float] | float = 0.25,
        sw_batch_size: int = 1,
        mode: str = "constant",
        foreground: Callable[[Tensor], Tensor] | None = None,
        background: float = -20.0,
        prompts: Callable[[Tensor], dict[str, Tensor]] | None = None,
        progress: bool = False,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            roi_size=roi_size,
            overlap=overlap,
            sw_batch_size=sw_batch_size,
            mode=mode,
            progress=progress,
            sw_device=sw_device,
            device=device,
        )
        self.foreground = foreground
        self.background = background
        self.prompts = prompts

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, label: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """
        Segment whole images.

        Args:
            inputs: the images.
            network: called with windows, ``args``, the prompts if any, and ``kwargs``.
            args: for ``network``.
            label: the true masks (B, labels, H, W), which ``prompts`` turns into prompts; without it they are unused.
            kwargs: for ``network``.
        """
        if self.prompts is None:
            label = None
        elif label is None:
            # Going on automatically would put automatic results where prompted ones are expected.
            raise ValueError(
                "label must be given when prompts are configured, not None. Pass it, or leave out prompts."
            )
        if self.foreground is None and label is None:
            return super().__call__(inputs, network, *args, **kwargs)
        windows = _ForegroundWindows(network, inputs.shape[1], self.background, self.prompts)
        return super().__call__(self._stack(inputs, label), windows, *args, **kwargs)

    def _stack(self, inputs: Tensor, label: Tensor | None) -> Tensor:
        """Mask and label ride along as channels: MONAI then pads and cuts them exactly as it does the image."""
        image = convert_to_tensor(inputs, track_meta=False)
        mask = torch.ones_like(image[:, :1]) if self.foreground is None else self.foreground(inputs)
        if mask.shape != image[:, :1].shape:
            expected = tuple(image[:, :1].shape)
            raise ValueError(f"foreground must make a mask of shape {expected}, not {tuple(mask.shape)}.")
        channels = [image, mask] if label is None else [image, mask, label]
        if label is not None and (label.shape[:1] + label.shape[2:]) != (image.shape[:1] + image.shape[2:]):
            raise ValueError(
                f"label must be (B, labels, H, W) for images {tuple(image.shape)}, not {tuple(label.shape)}."
            )
        stacked = torch.cat([convert_to_tensor(part, track_meta=False).to(image) for part in channels], 1)
        return MetaTensor(stacked).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else stacked


class _ForegroundWindows:
    """Stands between MONAI's sliding window and the network, for one call."""

    def __init__(
        self,
        network: Callable[..., Tensor],
        channels: int,
        background: float,
        prompts: Callable[[Tensor], dict[str, Tensor]] | None,
    ) -> None:
        self.network = network
        self.channels = channels
        self.background = background
        self.prompts = prompts
        self.blank: Tensor | None = None

    def __call__(self, windows: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        image, mask, label = windows.tensor_split((self.channels, self.channels + 1), dim=1)
        keep = (mask > 0).flatten(1).any(1)
        if keep.any():
            logits = self._predict(image[keep], label[keep], *args, **kwargs)
        elif self.blank is None:
            # Nothing yet tells how many channels come out: one window is run to see it.
            logits = self.network(image[:1], *args, **kwargs)
        if self.blank is None:
            self.blank = torch.full_like(logits[:1], self.background)
        if keep.all():
            return logits
        output = self.blank.repeat(len(image), 1, 1, 1)
        if keep.any():
            output[keep] = logits
        return output

    def _predict(self, image: Tensor, label: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        prompts = self.prompts(label) if self.prompts is not None else {}
        if not prompts:
            return self.network(image, *args, **kwargs)
        prompted = (prompts["point_labels"] >= 0).flatten(1).any(1)
        parts = []
        if prompted.any():
            chosen = {name: values[prompted] for name, values in prompts.items()}
            parts.append(self.network(image[prompted], *args, **chosen, **kwargs))
        if not prompted.all():
            parts.append(self.network(image[~prompted], *args, **kwargs))
        order = (~prompted).int().argsort(stable=True)
        return torch.cat(parts)[order.argsort()]
