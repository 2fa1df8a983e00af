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

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

_DARK = 0.05  # below it a photograph shows no eye


class RandBrightLesionsd(RandomizableTransform, MapTransform):
    """
    Paint bright lesions into fundus photographs, outside of the labels, so that what is bright is not yet a disc.

    Exudates and scars of the retina are as bright as the optic disc and may be larger, and a few training photographs
    hardly show any. A lesion is a cluster of one to four soft ellipses in about the photograph's brightest colour.

    Args:
        keys: photographs, all painted alike.
        label_key: masks of what stays as it is, any number of channels.
        prob: probability that an item gets lesions.
        count: at most so many lesions, at least 1.
        largest: the greatest width of one ellipse as a part of the photograph's longer side, in (0, 1]; most are much
            smaller.
        allow_missing_keys: whether to leave items without the key as they are.

    Shape:
        photograph ``(3, H, W)``, values in 0..1; labels ``(C, H, W)``; the result is like the photograph.

    Raises:
        ValueError: a setting is out of its range.

    Source:
        Ours. The photographs of IDRiD (Porwal et al., 2018) show what is imitated.

    Example:
        >>> item = {"image": np.full((3, 32, 32), 0.4), "label": np.zeros((1, 32, 32))}
        >>> item["image"][:, 0, 0] = 1.0
        >>> paint = RandBrightLesionsd(keys="image", label_key="label", prob=1.0).set_random_state(seed=0)
        >>> bool(paint(item)["image"].mean() > item["image"].mean())
        True
    """

    def __init__(
        self,
        *,
        keys: KeysCollection,
        label_key: str,
        prob: float = 0.5,
        count: int = 6,
        largest: float = 0.2,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}.")
        if not 0 < largest <= 1:
            raise ValueError(f"largest must be in (0, 1], not {largest}.")
        self.label_key, self.count, self.largest = label_key, count, largest

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return item
        label = convert_to_tensor(item[self.label_key], track_meta=False).cpu().numpy().any(0)
        opacity, brightness = None, self.R.uniform(1.0, 1.4) * self.R.uniform(0.9, 1.1, size=3)
        for key in self.key_iterator(item):
            image = convert_to_tensor(item[key], track_meta=False).cpu().numpy()
            seen = image.max(0) > _DARK
            if opacity is None:
                opacity = self._lesions(seen & ~label)
            if opacity.any():
                colour = np.quantile(image[:, seen], 0.995, axis=1) * brightness
                painted = image + opacity * (colour.clip(0, 1)[:, None, None] - image)
                item[key] = convert_to_dst_type(painted, item[key])[0]
        return item

    def _lesions(self, free: np.ndarray) -> np.ndarray:
        """How much of the lesions' colour each pixel takes, (H, W) in 0..1."""
        opacity = np.zeros(free.shape, dtype=np.float32)
        places = np.argwhere(free)
        if not len(places):
            return opacity
        y, x = np.indices(free.shape, dtype=np.float32)
        for _ in range(self.R.randint(1, self.count + 1)):
            place = places[self.R.randint(len(places))]
            radius = 1 + 0.5 * self.largest * max(free.shape) * self.R.uniform() ** 2
            strength = self.R.uniform(0.5, 1)
            for _ in range(self.R.randint(1, 5)):
                centre = place + 0.7 * radius * self.R.normal(size=2)
                axes = radius * self.R.uniform(0.4, 1, size=2)
                away = ((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2
                np.maximum(opacity, strength * (1.5 - away).clip(0, 1), out=opacity)
        return opacity * free
