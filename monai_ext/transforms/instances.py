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

import os
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import LoadImage, MapTransform
from monai.utils import ensure_tuple


class LoadInstancesd(MapTransform):
    """
    Load a map of objects: from one mask file per object, as DSB 2018 (BBBC038) has its nuclei, or from one file.

    Args:
        keys: items that hold the list of mask files, or the one file whose values number the objects, as GlaS has its
            glands.
        reader: a MONAI reader of one-channel masks, e.g. :class:`monai_ext.data.PhotographReader` (channels=1).
        allow_missing_keys: whether to leave items without the key as they are.

    Shape:
        the result is (1, W, H) int32, as MONAI's readers give it: 0 for the ground, 1 for the pixels of the first
        file, 2 of the second and so on; where files overlap, the later one's.

    Raises:
        ValueError: the list is empty, or a mask has another size than the first; the message names the file.

    Example:
        >>> import numpy, tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> files = [Path(tempfile.mkdtemp()) / f"{name}.png" for name in "ab"]
        >>> for row, file in enumerate(files):
        ...     Image.fromarray(numpy.eye(2, 3, dtype="uint8")[[row, 1 - row]] * 255 * (1 - row)).save(file)
        >>> LoadInstancesd(keys="label")({"label": files})["label"].unique().tolist()
        [0, 1]
    """

    def __init__(self, *, keys: KeysCollection, reader: Any = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadImage(reader=reader, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            if isinstance(item[key], (str, os.PathLike)):
                item[key] = self.load(item[key]).to(torch.int32)
                continue
            files = ensure_tuple(item[key])
            if not files:
                raise ValueError(f"'{key}' must list at least one mask file, not none.")
            objects = None
            for number, file in enumerate(files, start=1):
                mask = self.load(file)
                if objects is None:
                    objects = torch.zeros_like(mask, dtype=torch.int32)
                if mask.shape != objects.shape:
                    raise ValueError(
                        f"{file} must have the size of the other masks, {tuple(objects.shape[1:])}, "
                        f"not {tuple(mask.shape[1:])}."
                    )
                objects[mask > 0] = number
            item[key] = objects
        return item
