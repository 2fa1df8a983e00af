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
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from monai_ext.data.dicom_series import DICOM_SUFFIXES
from monai_ext.data.images import ImageList
from monai_ext.data.nifti import is_nifti
from monai_ext.data.volume_reader import VolumeReader


class VolumeList(ImageList):
    """
    The CT volumes that inference runs on: found, read once, and sorted into good ones and bad ones.

    Args:
        source: a folder (its NIfTI files, and every folder of DICOM files in it or below, itself included), a glob
            pattern, one NIfTI file, one slice of a DICOM series, a MONAI datalist ``.json`` or a list, as for
            :class:`ImageList`.
        series: SeriesInstanceUID to take where a folder holds several series.
        key: the key of the volume in each item of ``datalist``.

    Attributes:
        datalist: the good volumes, ``[{key: path, ...}, ...]``; the path of a DICOM series is its folder.
        rejected: path -> the sentence that says why, for every bad volume.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: ``source`` names no volume, is no datalist, or no volume in it can be used.

    Example:
        >>> import tempfile, nibabel, numpy as np
        >>> folder = Path(tempfile.mkdtemp())
        >>> nibabel.save(nibabel.Nifti1Image(np.arange(8.0).reshape(2, 2, 2), np.eye(4)), folder / "good.nii.gz")
        >>> _ = (folder / "bad.nii.gz").write_bytes(b"")
        >>> volumes = VolumeList(source=str(folder))
        >>> [Path(item["image"]).name for item in volumes.datalist], [Path(path).name for path in volumes.rejected]
        (['good.nii.gz'], ['bad.nii.gz'])
    """

    looks_for = "NIfTI files and folders of DICOM files"
    names_by_stem = False

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Sequence[str | Mapping[str, Any]],
        series: str | None = None,
        key: str = "image",
    ) -> None:
        self.series = series
        super().__init__(source=source, key=key)

    def find(self, source: str) -> list[str]:
        return find_volumes(source)

    def open(self, path: str) -> Any:
        return VolumeReader(series=self.series).get_data(path)


def find_volumes(source: str) -> list[str]:
    """List the NIfTI files and DICOM folders that a folder, a pattern or a path stands for."""
    path = Path(source).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        return sorted([*map(str, _nifti_in(path)), *_dicom_folders(path)])
    if not any(sign in source for sign in "*?["):
        raise FileNotFoundError(f"{source} does not exist; give a folder, a pattern, a volume or a datalist (.json).")
    found = sorted(Path(name) for name in glob(str(path), recursive=True))
    files = [str(name) for name in found if name.is_file() and is_nifti(name)]
    return files + [name for folder in found if folder.is_dir() for name in _dicom_folders(folder)]


def _nifti_in(folder: Path) -> list[Path]:
    return [
        child for child in folder.iterdir() if child.is_file() and is_nifti(child) and not child.name.startswith(".")
    ]


def _dicom_folders(folder: Path) -> list[str]:
    return [
        name
        for name, _, files in os.walk(folder)
        if any(_is_dicom(Path(name, file)) for file in sorted(files) if not file.startswith("."))
    ]


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM or claims to be: a folder of damaged slices must not be passed over."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
