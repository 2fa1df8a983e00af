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

from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import MetaKeys, SpaceKeys

from monai_ext.data.nifti import is_nifti, read_nifti
from monai_ext.data.reader import mask_pixels


def stored_values(file: Path, *, colour: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
    """
    Read the whole numbers that a mask file holds.

    Args:
        file: a picture or a NIfTI volume.
        colour: whether the picture has colours; they come out as ``65536 R + 256 G + B``.

    Returns:
        ``(W, H)`` or ``(X, Y, Z)`` int32 and metadata, for a volume with its ``affine``.

    Raises:
        ValueError: the file is damaged, or holds fractions, NaN or more than one value at a place.
    """
    if not is_nifti(file):
        return mask_pixels(file, colour=colour), {}
    values, affine = read_nifti(file)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise ValueError(f"{file} must be a mask of whole numbers, not of fractions, NaN or infinity.")
    return values.astype(np.int32), {
        MetaKeys.AFFINE: affine.copy(),
        MetaKeys.ORIGINAL_AFFINE: affine,
        MetaKeys.SPACE: SpaceKeys.RAS,
    }


def encoded(value: int | tuple[int, int, int]) -> int:
    """A grey value as it is, a colour as :func:`stored_values` gives it."""
    return value if isinstance(value, int) else 65536 * value[0] + 256 * value[1] + value[2]
