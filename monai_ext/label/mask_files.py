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
from PIL import Image

from monai_ext.data.nifti import is_nifti
from monai_ext.data.reader import mask_pixels
from monai_ext.label.refusal import RequestRefused

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
VOLUMES = (".nii", ".nii.gz", ".nrrd")
# ITK's pictures have x to the left and y to the back; NIfTI counts to the right and to the front.
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def index_mask(masks: np.ndarray) -> np.ndarray:
    """
    One number for each pixel: 0 for none, 1 for the first label and so on, a later label over an earlier one.

    Args:
        masks: booleans ``(C, ...)``, at most 255 labels.

    Example:
        >>> index_mask(np.array([[[True, True]], [[False, True]]])).tolist()
        [[1, 2]]
    """
    index = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in enumerate(masks, start=1):
        index[mask] = number
    return index


def result_suffix(wanted: object, dimension: int) -> str:
    """
    The kind of file to answer with; PNG for pictures and NIfTI for volumes where the client has no wish.

    Raises:
        RequestRefused: the wish cannot be fulfilled.
    """
    if wanted in (None, ""):
        return ".png" if dimension == 2 else ".nii.gz"
    possible = (*PICTURES, *VOLUMES) if dimension == 2 else VOLUMES
    if wanted == ".seg.nrrd":
        return ".nrrd"
    if wanted not in possible:
        raise RequestRefused(f"result_extension must be one of {', '.join(possible)}, not {str(wanted)[:20]!r}.")
    return str(wanted)


def write_mask(mask: np.ndarray, path: Path, affine: np.ndarray | None = None) -> None:
    """
    Write an index mask at its native size, in the format of the path's suffix.

    JPEG cannot keep small numbers; there, labels are spread over 0 to 255, for looking at only.

    Args:
        mask: ``(H, W)`` upright, or ``(X, Y, Z)`` with its affine; uint8.
        path: where to.
        affine: of a volume.
    """
    suffix = next(suffix for suffix in (*VOLUMES[::-1], *PICTURES) if path.name.lower().endswith(suffix))
    if suffix in (".jpg", ".jpeg"):
        Image.fromarray(mask * np.uint8(255 // max(1, int(mask.max())))).save(path, quality=95)
    elif suffix == ".png":
        Image.fromarray(mask).save(path, compress_level=1)
    elif suffix in PICTURES:
        compression = {"compression": "tiff_lzw"} if suffix.startswith(".tif") else {}
        Image.fromarray(mask).save(path, **compression)
    elif suffix == ".nrrd":
        _write_itk(mask, path, affine)
    else:
        import nibabel

        # A picture's column is NIfTI's first axis.
        voxels = mask.T if affine is None else mask
        nibabel.save(nibabel.Nifti1Image(voxels, PICTURE_AFFINE if affine is None else affine), path)


def read_mask(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """
    Read a mask of a picture that a client sent, ``(H, W)`` whole numbers, upright.

    Args:
        path: a picture, or NIfTI or NRRD of one slice as 3D Slicer saves them.
        size: width and height that it must have.

    Raises:
        RequestRefused: the file is none of these, damaged, or of another size.
    """
    try:
        if is_nifti(path):
            import nibabel

            image: Any = nibabel.load(path)
            mask = _one_slice(np.asarray(image.dataobj)).T
        elif path.name.lower().endswith(".nrrd"):
            mask = _read_nrrd(path)
        elif path.name.lower().endswith(PICTURES):
            mask = mask_pixels(path).T
        else:
            raise RequestRefused(f"A mask must be {', '.join((*PICTURES, *VOLUMES))}, not {path.suffix or 'nameless'}.")
    except RequestRefused:
        raise
    except Exception as error:  # nibabel, ITK and Pillow have exceptions of their own
        raise RequestRefused(f"The mask cannot be read: {str(error).replace(str(path), 'it')}") from error
    if not np.array_equal(mask, np.round(mask)) or mask.min() < 0 or mask.max() > 255:
        raise RequestRefused("A mask must hold whole numbers from 0 to 255.")
    if size is not None and mask.shape != size[::-1]:
        raise RequestRefused(
            f"The mask is {mask.shape[1]} wide and {mask.shape[0]} high, but the picture is {size[0]} wide and "
            f"{size[1]} high: save it at the size of the picture."
        )
    return mask.astype(np.uint8)


def _one_slice(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        raise RequestRefused(f"A mask of a picture must have one slice, not the shape {values.shape}.")
    return values


def _read_nrrd(path: Path) -> np.ndarray:
    import itk

    values = np.asarray(itk.array_from_image(itk.imread(str(path))))  # (z,) y, x
    return _one_slice(values.T).T


def _write_itk(mask: np.ndarray, path: Path, affine: np.ndarray | None) -> None:
    import itk

    if affine is None:
        image = itk.image_from_array(np.ascontiguousarray(mask))
    else:
        image = itk.image_from_array(np.ascontiguousarray(mask.T))
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing)
        image.SetOrigin(lps[:3, 3])
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    itk.imwrite(image, str(path), True)


def label_names(labels: Sequence[str]) -> dict[str, int]:
    """The numbers of the labels in an index mask, by name."""
    return {label: number for number, label in enumerate(labels, start=1)}
