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

from monai.transforms import MapTransform

__all__ = ["CheckSizesd"]


class CheckSizesd(MapTransform):
    """
    Refuse an image whose mask is of another size, by the names of both files.

    Later transforms and metrics fail too, or not at all, but in words about tensors.

    Args:
        keys: the image, then what must be of its size.
        allow_missing_keys: whether a key may be absent.

    Shape:
        ``(C, W, H)`` each, as MONAI's reader gives them.

    Raises:
        ValueError: the sizes differ.

    Example:
        >>> import torch
        >>> item = {"image": torch.zeros(3, 8, 6), "label": torch.zeros(1, 8, 6)}
        >>> sorted(CheckSizesd(["image", "label"])(item))
        ['image', 'label']
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image, *others = self.key_iterator(data)  # type: ignore[misc]
        for key in others:
            if data[key].shape[1:] != data[image].shape[1:]:
                raise ValueError(
                    f"{_source(data, image)} and its {key} {_source(data, key)} differ in size: {_size(data[image])} "
                    f"against {_size(data[key])}; export the {key} again at the image's size."
                )
        return dict(data)


def _source(data: Mapping[Hashable, Any], key: Hashable) -> str:
    return str(getattr(data[key], "meta", {}).get("filename_or_obj", key))


def _size(value: Any) -> str:
    return "x".join(map(str, value.shape[1:]))
