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

"""Reading NIfTI volumes, with every reason why one cannot be used."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

NIFTI_SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: str | Path) -> bool:
    """Whether a path is that of a NIfTI file, by its name."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """
    Read a NIfTI volume as it is, or say why it cannot be used.

    Not by MONAI's ``NibabelReader``, which repairs an affine that cannot be inverted by another one.

    Returns:
        ``(X, Y, Z)`` values and the affine from voxels to millimetres, RAS.

    Raises:
        ValueError: the file is missing, empty, damaged or cut off, has other dimensions, an affine that cannot be
            inverted, no orientation, or no numbers.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if not path.is_file():
        raise ValueError(f"{path} is not a file; check the path.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy it again from its source.")
    try:
        # Not mapped, since a file that changes while it is mapped ends the process.
        image: Any = nibabel.load(path, mmap=False)
        shape, affine, header = image.shape, image.affine, image.header
        _check_geometry(path, shape, affine)
        if header["sform_code"] == 0 and header["qform_code"] == 0:
            raise ValueError(
                f"{path} does not say how the patient lies (sform and qform codes are 0), so left and right are "
                "unknown; set its orientation and save it again."
            )
        if image.get_data_dtype().kind not in "iuf":
            raise ValueError(
                f"{path} must hold one number per voxel, not {image.get_data_dtype()}; export grey values."
            )
        values = np.asarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or cut off ({reason}); copy it again from its source.") from error
    return values.reshape(shape[:3]), affine


def _check_geometry(path: Path, shape: Sequence[int], affine: np.ndarray) -> None:
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise ValueError(
            f"{path} must have three dimensions, not {len(shape)} ({'x'.join(map(str, shape))}); save one volume."
        )
    if 0 in shape:
        raise ValueError(f"{path} must have voxels, not the shape {'x'.join(map(str, shape))}; export it again.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path} has an affine that cannot be inverted (a spacing of 0 or NaN); correct its header.")
