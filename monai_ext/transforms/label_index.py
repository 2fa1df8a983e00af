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
from monai.transforms import MapTransform


class LabelIndexd(MapTransform):
    """
    Turn one channel for each label into one number for each pixel: 0 for none, 1 for the first label and so on.

    A later label lies over an earlier one. What MONAI Label's generic application needs, which writes what the
    transforms leave as it is: a bundle puts it into ``post_transforms``, which only MONAI Label reads.

    Args:
        keys: items to turn.
        allow_missing_keys: whether a missing item is left out.

    Shape:
        ``(C, ...)`` with masks of 0 and 1, at most 255 of them; the result ``(...)`` uint8.

    Example:
        >>> LabelIndexd(keys="pred")({"pred": torch.tensor([[[1, 1, 0]], [[0, 1, 0]]])})["pred"].tolist()
        [[1, 2, 0]]
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            masks = d[key]
            index = torch.zeros_like(masks[0], dtype=torch.uint8)
            for number, mask in enumerate(masks, start=1):
                index = torch.where(mask > 0.5, number, index).to(torch.uint8)
            d[key] = index
        return d
