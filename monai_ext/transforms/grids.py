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

__all__ = ["CheckGridsd"]


class CheckGridsd(MapTransform):
    """
    Refuse a volume whose mask is on another grid, by the names of both files.

    Masks of one size that lie elsewhere, as after a flip, would train a network on the wrong voxels without a word.

    Args:
        keys: the image, then what must be on its grid.
        tolerance: how far corresponding corners may lie apart, in voxels.
        allow_missing_keys: whether a key may be absent.

    Shape:
        ``(C, X, Y, Z)`` each, with affines.

    Raises:
        ValueError: sizes or affines differ.

    Example:
        >>> from monai.data import MetaTensor
        >>> item = {"image": MetaTensor(torch.zeros(1, 4, 4, 2)), "label": MetaTensor(torch.zeros(1, 4, 4, 2))}
        >>> sorted(CheckGridsd(keys=["image", "label"])(item))
        ['image', 'label']
    """

    def __init__(self, *, keys: Any, tolerance: float = 0.1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.tolerance = tolerance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image, *others = self.key_iterator(data)  # type: ignore[misc]
        shape = data[image].shape[1:]
        corners = torch.tensor([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).double()
        corners[:, :3] *= torch.tensor(shape) - 1
        affine = data[image].affine.double()
        for key in others:
            moved = corners @ torch.linalg.solve(affine, data[key].affine.double()).T - corners
            if data[key].shape[1:] != shape or moved.abs().max() > self.tolerance:
                raise ValueError(
                    f"{_source(data, image)} and its {key} {_source(data, key)} lie on different grids: "
                    f"{_grid(data[image])} against {_grid(data[key])}; resample the {key} to the image's grid."
                )
        return dict(data)


def _source(data: Mapping[Hashable, Any], key: Hashable) -> str:
    return str(data[key].meta.get("filename_or_obj", key))


def _grid(value: Any) -> str:
    return f"{'x'.join(map(str, value.shape[1:]))} with the affine {value.affine.numpy().round(3).tolist()}"
