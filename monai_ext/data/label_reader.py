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

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

from monai_ext.data.masks import IndexMask, MaskFormat


class LabelReader(ImageReader):
    """
    Read the mask of an image, whatever files it is kept in, as one channel for each label.

    For MONAI's ``LoadImaged``; what the files mean is said by a :class:`monai_ext.data.masks.MaskFormat`, which
    :class:`monai_ext.data.SegmentationData` has as ``masks``.

    Args:
        labels: names of the channels.
        masks: how the files are to be read; None is :class:`monai_ext.data.masks.IndexMask`.

    Shape:
        ``get_data`` returns ``(C, W, H)`` for pictures, ``(C, X, Y, Z)`` for volumes, uint8 in {0, 1}.

    Raises:
        ValueError: at construction, a label is none of the format's; later, a file is damaged or holds what the format
            does not know.

    Example:
        >>> import tempfile
        >>> from monai.transforms import LoadImage
        >>> from PIL import Image
        >>> file = Path(tempfile.mkdtemp()) / "mask.png"
        >>> Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(file)
        >>> load = LoadImage(reader=LabelReader(labels=["disc", "cup"]), ensure_channel_first=True)
        >>> tuple(load(file).shape), load(file).flatten(1).tolist()
        ((2, 3, 1), [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """

    def __init__(self, *, labels: Sequence[str], masks: MaskFormat | None = None) -> None:
        super().__init__()
        if isinstance(labels, str) or not labels or len(set(labels)) < len(labels):
            raise ValueError(f"labels must be a list of different names, not {labels!r}.")
        self.labels = list(labels)
        self.masks = masks or IndexMask()
        self.masks.check_labels(self.labels)

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[PathLike, ...]:
        # As in PhotographReader: errors of get_data() reach the user, those of read() call for a less strict reader.
        return ensure_tuple(data)

    def get_data(self, img: Sequence[PathLike] | PathLike) -> tuple[np.ndarray, dict]:
        channels, meta = self.masks.read([Path(path) for path in ensure_tuple(img)], self.labels)
        return channels.astype(np.uint8), {
            **meta,
            MetaKeys.SPATIAL_SHAPE: np.asarray(channels.shape[1:]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        }
