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


"""A small synthetic CT and how to write it as a DICOM series or NIfTI file, for the tests of volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def ct_phantom(shape: tuple[int, int, int] = (48, 40, 12), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units and the mask of a spleen, ``(X, Y, Z)``: x to the left, y to the back, z to the head."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    values = np.full(shape, -1000.0)
    values[(x / 0.9) ** 2 + (y / 0.75) ** 2 < 1] = 40
    values[((x + 0.4) / 0.35) ** 2 + (y / 0.4) ** 2 + (z / 0.9) ** 2 < 1] = 90
    values[(x / 0.12) ** 2 + ((y - 0.5) / 0.15) ** 2 < 1] = 600
    centre = random.uniform(-0.05, 0.05, 3) + (0.5, 0.1, 0.1)
    spleen = ((x - centre[0]) / 0.22) ** 2 + ((y - centre[1]) / 0.32) ** 2 + ((z - centre[2]) / 0.7) ** 2 < 1
    values[spleen] = 140
    body = values > -500
    values[body] += random.normal(0, 8, body.sum())
    return values.round().astype(np.int16), spleen


def write_series(
    folder: Path,
    values: np.ndarray | None = None,
    *,
    orientation: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float, float] = (2.0, 1.5, 5.0),
    origin: tuple[float, float, float] = (-40.0, -30.0, 100.0),
    edit: Callable[[Dataset, int], None] = lambda dataset, number: None,
    name: str = "{:03d}.dcm",
) -> Path:
    """A CT series of ``values`` (X, Y, Z), ``spacing`` along them; ``edit`` changes each slice before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    values = ct_phantom()[0] if values is None else values
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(rows, columns)
    study, series, frame = (generate_uid() for _ in range(3))
    for number in range(values.shape[2]):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "1", "Test^Phantom"
        dataset.PatientBirthDate, dataset.PatientSex, dataset.StudyID, dataset.AccessionNumber = "", "", "1", ""
        dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20260101", "120000", ""
        dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = "phantom", 1, number + 1
        dataset.Manufacturer, dataset.PositionReferenceIndicator = "monai_ext", ""
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImageOrientationPatient = [f"{value:.10f}" for value in orientation]
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in origin + number * spacing[2] * normal]
        dataset.PixelSpacing, dataset.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.Columns, dataset.Rows = values.shape[:2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelData = (values[:, :, number].T + 1024).astype("<u2").tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        edit(dataset, number)
        dataset.save_as(folder / name.format(number), enforce_file_format=True)
    return folder


def write_nifti(path: Path, values: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file of ``values`` (X, Y, Z), by default of a patient as :func:`ct_phantom` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = ct_phantom()[0] if values is None else values
    affine = np.array([[-2.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 5, 100], [0, 0, 0, 1]]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def write_ct_data(folder: Path, count: int = 4) -> Path:
    """NIfTI volumes with masks and their datalist: the last one is the test, the one before validates."""
    records = []
    for number in range(count):
        values, spleen = ct_phantom((72, 64, 6), seed=number)
        write_nifti(folder / "imagesTr" / f"case_{number}.nii.gz", values)
        write_nifti(folder / "labelsTr" / f"case_{number}.nii.gz", spleen.astype(np.uint8))
        records.append({key: f"{key}sTr/case_{number}.nii.gz" for key in ("image", "label")})
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": records[:-2], "validation": records[-2:-1], "test": records[-1:]}))
    return path
