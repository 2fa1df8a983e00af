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
from monai.data import NibabelReader

from monai_ext.data.reader import mask_pixels

VOLUME_SUFFIXES = (".nii", ".nii.gz")


def is_volume(file: str | Path) -> bool:
    """Whether a file is a NIfTI volume, by its name."""
    return str(file).lower().endswith(VOLUME_SUFFIXES)


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
    if not is_volume(file):
        return mask_pixels(file, colour=colour), {}
    values, meta = _volume(file)
    if values.ndim != 3:
        raise ValueError(f"{file} must hold a volume of three dimensions, not of shape {tuple(values.shape)}.")
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise ValueError(f"{file} must be a mask of whole numbers, not of fractions, NaN or infinity.")
    return values.astype(np.int32), {"affine": meta["affine"], "original_affine": meta["original_affine"]}


def image_volume(file: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """
    Read an image that is a volume; of several sequences (a fourth dimension) the first.

    Returns:
        ``(X, Y, Z)`` float32 and metadata with its ``affine``.

    Raises:
        ValueError: the file is damaged, or holds NaN or the same value everywhere.
    """
    values, meta = _volume(file)
    if values.ndim == 4:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"{file} must hold a volume of three dimensions, not of shape {tuple(values.shape)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{file} must hold finite values, not NaN or infinity.")
    if values.min() == values.max():
        raise ValueError(f"{file} has the same value everywhere; there is nothing to see in it.")
    return values, meta


def _volume(file: Path) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        reader = NibabelReader(channel_dim="no_channel")
        return reader.get_data(reader.read(str(file)))
    except Exception as error:  # nibabel raises every kind of exception on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{file} is no NIfTI volume or is damaged ({reason}); copy it again from its source."
        ) from error


def encoded(value: int | tuple[int, int, int]) -> int:
    """A grey value as it is, a colour as :func:`stored_values` gives it."""
    return value if isinstance(value, int) else 65536 * value[0] + 256 * value[1] + value[2]
