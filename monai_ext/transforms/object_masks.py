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


class ObjectMasksd(MapTransform):
    """
    Take a map of objects apart: one mask for each object that is large enough.

    Args:
        keys: maps of objects.
        smallest: objects of fewer pixels are left out.
        allow_missing_keys: whether to leave items without the key as they are.

    Shape:
        map (1, H, W) of whole numbers, 0 for the ground; it becomes (K, H, W) float32 masks, by rising number.

    Raises:
        ValueError: the map has several channels, or no object is large enough.

    Example:
        >>> label = torch.tensor([[[0, 2, 2], [5, 2, 2]]])
        >>> ObjectMasksd(keys="label", smallest=4)({"label": label})["label"].tolist()
        [[[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]]
    """

    def __init__(self, *, keys: KeysCollection, smallest: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.smallest = smallest

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            objects = convert_to_tensor(item[key], track_meta=False)
            if objects.ndim != 3 or objects.shape[0] != 1:
                raise ValueError(f"'{key}' must be a map of objects (1, H, W), not {tuple(objects.shape)}.")
            numbers, counts = objects.unique(return_counts=True)
            kept = numbers[(numbers > 0) & (counts >= self.smallest)]
            if len(kept) == 0:
                raise ValueError(f"'{key}' must show an object of at least {self.smallest} pixels, but shows none.")
            item[key] = torch.stack([(objects[0] == number).float() for number in kept])
        return item
