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

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

__all__ = ["CT_WINDOWS", "CTForeground", "CTWindows", "CTWindowsd", "NeighbouringSlices", "NeighbouringSlicesd"]

# Level and width in HU as radiologists set them (radiopaedia.org, "Windowing (CT)"; abdomen as in MedSAM, Ma et al.,
# Nature Communications 15:654, 2024). `wide` runs from air to cortical bone.
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (40, 400),
    "liver": (30, 150),
    "mediastinum": (50, 350),
    "lung": (-600, 1500),
    "bone": (400, 1800),
    "brain": (40, 80),
    "wide": (0, 2000),
}


class CTWindows(Transform):
    """
    Show Hounsfield units through windows, one channel each: 0 below the window, 1 above, linear in between.

    ``(x - (level - width / 2)) / width``, cut to 0..1. The three windows by default are soft tissue (level 40, width
    400), the parenchyma of liver and spleen (30, 150) and all from air to bone (0, 2000).

    Args:
        windows: names of ``CT_WINDOWS`` or pairs of level and width in HU, width > 0.

    Shape:
        image (C, ...) in HU; the result (C * windows, ...) float32, the windows of the first channel first.

    Raises:
        ValueError: a window has another name, or a width that is not positive.

    Example:
        >>> CTWindows(windows=["abdomen", [0, 100]])(torch.tensor([[-200.0, 40, 300]])).tolist()
        [[0.0, 0.5, 1.0], [0.0, 0.8999999761581421, 1.0]]
    """

    def __init__(self, *, windows: Sequence[str | Sequence[float]] = ("abdomen", "liver", "wide")) -> None:
        self.windows = [_window(window) for window in windows]
        if not self.windows:
            raise ValueError("windows must be one or more, not an empty list.")

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        values = convert_to_tensor(img, track_meta=False).float()
        shown = torch.stack([(values - (level - width / 2)) / width for level, width in self.windows], 1)
        return convert_to_dst_type(shown.clamp_(0, 1).flatten(0, 1), img, dtype=torch.float32)[0]


def _window(window: str | Sequence[float]) -> tuple[float, float]:
    if isinstance(window, str):
        if window not in CT_WINDOWS:
            raise ValueError(f"windows must be of {', '.join(CT_WINDOWS)} or [level, width] in HU, not {window!r}.")
        return CT_WINDOWS[window]
    if len(window) != 2 or not window[1] > 0:
        raise ValueError(f"a window must be [level, width] in HU with a width above 0, not {window!r}.")
    return float(window[0]), float(window[1])


class CTWindowsd(MapTransform):
    """
    Dictionary version of :class:`CTWindows`.

    Args:
        keys: the images.
        windows: as for :class:`CTWindows`.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> CTWindowsd(keys="image")({"image": torch.zeros(1, 4, 4, 2)})["image"].shape
        torch.Size([3, 4, 4, 2])
    """

    def __init__(
        self,
        *,
        keys: KeysCollection,
        windows: Sequence[str | Sequence[float]] = ("abdomen", "liver", "wide"),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.show = CTWindows(windows=windows)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.show(item[key])
        return item


class NeighbouringSlices(Transform):
    """
    Give each slice the one before and the one behind it as channels; at both ends the slice stands for its missing one.

    Args:
        count: how many slices a slice becomes, odd.

    Shape:
        image (1, X, Y, Z); the result (count, X, Y, Z).

    Raises:
        ValueError: ``count`` is even or below 1; later, the image has other dimensions.

    Example:
        >>> NeighbouringSlices()(torch.arange(3.0).reshape(1, 1, 1, 3)).squeeze().tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 2.0]]
    """

    def __init__(self, *, count: int = 3) -> None:
        if count < 1 or count % 2 == 0:
            raise ValueError(f"count must be odd and positive, not {count}.")
        self.reach = count // 2

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        if len(img.shape) != 4 or img.shape[0] != 1:
            raise ValueError(f"image must be (1, X, Y, Z), not {tuple(img.shape)}.")
        values = convert_to_tensor(img, track_meta=False)
        depth = values.shape[-1]
        places = [(torch.arange(depth) + step).clamp(0, depth - 1) for step in range(-self.reach, self.reach + 1)]
        return convert_to_dst_type(torch.cat([values[..., place] for place in places]), img)[0]


class NeighbouringSlicesd(MapTransform):
    """
    Dictionary version of :class:`NeighbouringSlices`, instead of several windows: give ``CTWindowsd`` one then.

    Args:
        keys: the images.
        count: how many slices a slice becomes, odd.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> NeighbouringSlicesd(keys="image")({"image": torch.zeros(1, 4, 4, 2)})["image"].shape
        torch.Size([3, 4, 4, 2])
    """

    def __init__(self, *, keys: KeysCollection, count: int = 3, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.gather = NeighbouringSlices(count=count)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.gather(item[key])
        return item


class CTForeground:
    """
    Find what is not air in windowed slices as the network sees them, that is normalised.

    It is the ``foreground`` of :class:`monai_ext.inferers.ForegroundSlidingWindowInferer` for CT: what is black in all
    channels is left out.

    Args:
        mean: what was subtracted from each channel; ImageNet's by default.
        std: what each channel was divided by; ImageNet's by default.
        above: how bright, in 0..1, at least one channel must be.

    Shape:
        images (B, C, H, W); the result (B, 1, H, W) bool.

    Example:
        >>> CTForeground()(torch.full((1, 3, 2, 2), -3.0)).any().item()
        False
    """

    def __init__(
        self,
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        above: float = 0.05,
    ) -> None:
        self.mean, self.std, self.above = tuple(mean), tuple(std), above

    def __call__(self, images: Tensor) -> Tensor:
        images = convert_to_tensor(images, track_meta=False)
        mean, std = (images.new_tensor(values).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images * std + mean > self.above).any(1, keepdim=True)
