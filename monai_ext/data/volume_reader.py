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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, PydicomReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_ext.data.dicom_series import DicomSeries
from monai_ext.data.nifti import is_nifti, read_nifti


class VolumeReader(ImageReader):
    """
    Read a CT volume from a NIfTI file or a folder of DICOM slices, whole and right or not at all.

    nibabel and MONAI's ``PydicomReader`` decode; what would give a wrong volume without a word (missing or
    doubled slices, several series, infinite values, an affine that cannot be inverted) is an error here, see
    :class:`DicomSeries`. DICOM values become Hounsfield units. The slices of a DICOM volume lie in the order of their
    positions, as ITK puts them, whatever their names and numbers.

    Args:
        series: SeriesInstanceUID to take where a folder holds several series.

    Shape:
        ``get_data`` returns ``(X, Y, Z)`` with the affine from voxels to millimetres (RAS) in the metadata, and for
        DICOM the UID as ``series``.

    Raises:
        ValueError: ``get_data`` finds something that cannot be used; the sentence names the file.

    Example:
        >>> import tempfile, nibabel
        >>> from monai.transforms import LoadImage
        >>> path = Path(tempfile.mkdtemp()) / "ct.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.arange(24.0).reshape(2, 3, 4), np.diag([1, 1, 5, 1])), path)
        >>> volume = LoadImage(reader=VolumeReader(), ensure_channel_first=True)(path)
        >>> tuple(volume.shape), volume.pixdim.tolist()
        ((1, 2, 3, 4), [1.0, 1.0, 5.0])
    """

    def __init__(self, *, series: str | None = None) -> None:
        super().__init__()
        self.series = series

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[PathLike, ...]:
        # As in PhotographReader: what read() raises would hand the file to MONAI's other, less strict readers.
        return ensure_tuple(data)

    def get_data(self, img: Sequence[PathLike] | PathLike) -> tuple[np.ndarray, dict]:
        paths = ensure_tuple(img)
        if len(paths) != 1:
            raise ValueError(f"VolumeReader must be given one path, not {len(paths)}: {', '.join(map(str, paths))}.")
        path = Path(paths[0])
        if is_nifti(path) and not path.is_dir():
            values, affine = read_nifti(path)
            meta = _meta(affine)
        else:
            values, meta = _read_dicom(path, self.series)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{path} must hold finite values, but has NaN or infinity at {int((~np.isfinite(values)).sum())} "
                "voxels; put the value of air, -1024, there."
            )
        if values.min() == values.max():
            raise ValueError(f"{path} has the value {values.min():g} everywhere; there is nothing to see in it.")
        shape = np.asarray(values.shape)
        return values, {**meta, MetaKeys.SPATIAL_SHAPE: shape, MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan")}


def _read_dicom(path: Path, uid: str | None) -> tuple[np.ndarray, dict]:
    from pydicom import dcmread

    series = DicomSeries(path, uid=uid)
    reader = PydicomReader()
    slices = []
    for number, file in enumerate(series.files):
        dataset = dcmread(file)
        dataset.InstanceNumber = number  # by which MONAI stacks; the stored one need not follow the positions
        # MONAI would make an affine of these, the identity if a number has more than 16 characters. We have our own.
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number]
        slices.append(dataset)
    reader.filenames, reader.has_series = [series.files], True  # type: ignore[list-item]
    try:
        values, _ = reader.get_data(slices)
    except Exception as error:  # the decoders raise every kind of exception on broken pixels
        raise ValueError(
            f"{_undecodable(slices, series.files)} is damaged ({_brief(error)}); copy it again."
        ) from error
    return values.astype(np.float32), {**_meta(series.affine), "series": series.uid}


def _undecodable(slices: Sequence[Any], files: Sequence[str]) -> str:
    for dataset, file in zip(slices, files, strict=True):
        try:
            _ = dataset.pixel_array
        except Exception:
            return file
    return os.path.dirname(files[0])


def _meta(affine: np.ndarray) -> dict:
    return {MetaKeys.ORIGINAL_AFFINE: affine, MetaKeys.AFFINE: affine.copy(), MetaKeys.SPACE: SpaceKeys.RAS}


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
