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

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor


class SeamsBetweenObjectsd(MapTransform):
    r"""
    Take the seam between objects that touch out of their mask, so that a network learns to leave one.

    A pixel of an object is taken out where a square around it holds another object,

    .. math::
        y'(x) = y(x) \, [\, o(z) \in \{0, o(x)\} \ \text{for all} \ \lVert z - x \rVert_\infty \leq w \,].

    The ground stays the ground, and an object that touches none stays whole.

    Chen et al., "DCAN: Deep Contour-Aware Networks for Accurate Gland Segmentation", CVPR 2016, and Ronneberger et
    al., "U-Net", MICCAI 2015, teach such seams by contours and by weights.

    Args:
        keys: masks of 0 and 1.
        instances_key: the map that numbers the objects, 0 for the ground.
        width: w, pixels taken from each of two objects, at least 1.
        allow_missing_keys: whether to leave items without the key as they are.

    Shape:
        mask ``(1, H, W)`` and map ``(1, H, W)``; the result is like the mask.

    Raises:
        ValueError: ``width`` is out of its range, or mask and map differ in shape.

    Example:
        >>> item = {"label": torch.ones(1, 1, 6), "objects": torch.tensor([[[1, 1, 1, 2, 2, 2]]])}
        >>> SeamsBetweenObjectsd(keys="label", instances_key="objects")(item)["label"].tolist()
        [[[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]]
    """

    def __init__(
        self, *, keys: KeysCollection, instances_key: str, width: int = 1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if width < 1:
            raise ValueError(f"width must be at least 1 pixel, not {width}.")
        self.instances_key, self.width = instances_key, width

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from scipy.ndimage import maximum_filter, minimum_filter

        item = dict(data)
        objects = convert_to_tensor(item[self.instances_key], track_meta=False).cpu().numpy()
        size = (1, 2 * self.width + 1, 2 * self.width + 1)
        highest = maximum_filter(objects, size)
        lowest = minimum_filter(objects + (objects == 0) * (objects.max() + 1), size)
        seam = torch.from_numpy((objects > 0) & (lowest < highest))
        for key in self.key_iterator(item):
            if item[key].shape != seam.shape:
                raise ValueError(
                    f"'{key}' must have the shape of '{self.instances_key}', {tuple(seam.shape)}, "
                    f"not {tuple(item[key].shape)}."
                )
            item[key] = item[key] * ~seam
        return item
