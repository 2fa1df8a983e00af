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
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_ext.data.anatomy import label_codes
from monai_ext.data.atomic import atomic_path
from monai_ext.data.dicom_series import DicomSeries
from monai_ext.version import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

_PATIENT_AND_STUDY = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
)
_COLOURS = ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (80, 120, 255), (255, 128, 0))


def write_rtstruct(path: str | os.PathLike[str], masks: np.ndarray, series: DicomSeries, labels: Sequence[str]) -> None:
    """
    Write masks as a DICOM RT Structure Set: closed contours in the slices of a series, one region per label.

    Contours run half-way between the centres of voxels inside and outside, so that the centres that lie in a contour
    are exactly the mask. A hole is joined to its outline by a line forth and back, as the standard asks for
    (PS3.3 C.8.8.6.3).

    Args:
        path: the file to write.
        masks: 0 or 1, on the grid of the series.
        series: the slices the masks were made from.
        labels: names of the masks; their SNOMED CT codes are written, see :func:`label_codes`.

    Shape:
        masks `(C, X, Y, Z)`: column, row, slice in the order of ``series.files``.

    Raises:
        ValueError: the masks do not fit the series.
    """
    headers = series.headers()
    expected = (len(labels), headers[0].Columns, headers[0].Rows, len(headers))
    if masks.shape != expected:
        raise ValueError(f"{path}: masks must have the grid of their series, {expected}, not {masks.shape}.")
    dataset = _structure_set(headers)
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine
    for number, (name, mask) in enumerate(zip(labels, masks > 0, strict=True), start=1):
        dataset.StructureSetROISequence.append(
            _items(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=headers[0].FrameOfReferenceUID,
                ROIName=name[:64],
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        )
        contours = [
            _contour(header, ring, depth, to_lps)
            for depth, header in enumerate(headers)
            for ring in mask_outlines(mask[:, :, depth])
        ]
        colour = list(_COLOURS[(number - 1) % len(_COLOURS)])
        region = _items(ROIDisplayColor=colour, ReferencedROINumber=number)
        if contours:
            region.ContourSequence = contours
        dataset.ROIContourSequence.append(region)
        dataset.RTROIObservationsSequence.append(_observation(number, name))
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def mask_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """
    Return the closed outlines of a mask, half-way between the centres of pixels inside and outside.

    Args:
        mask: `(X, Y)`, 0 or 1.

    Returns:
        ``(N, 2)`` positions in pixels each, the last one joined to the first; holes are part of the outline around
        them.

    Example:
        >>> mask = np.zeros((3, 3), bool)
        >>> mask[1, 1] = True
        >>> [sorted(map(tuple, outline.tolist())) for outline in mask_outlines(mask)]
        [[(0.5, 1.0), (1.0, 0.5), (1.0, 1.5), (1.5, 1.0)]]
    """
    from skimage.measure import find_contours, points_in_poly

    if not mask.any():
        return []
    rings = [ring[:-1] - 1 for ring in find_contours(np.pad(mask.astype(float), 1), 0.5)]
    areas = [_area(ring) for ring in rings]
    # Outlines and holes run in opposite directions, and the largest is no hole.
    outside = np.sign(max(areas, key=abs))
    outer = sorted((abs(area), index) for index, area in enumerate(areas) if np.sign(area) == outside)
    joined = {index: rings[index] for _, index in outer}
    for ring, area in zip(rings, areas, strict=True):
        if np.sign(area) != outside:
            owner = next(index for _, index in outer if points_in_poly(ring[:1], rings[index])[0])
            joined[owner] = _join(joined[owner], ring)
    return [joined[index] for index in sorted(joined)]


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _join(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    near, far = np.unravel_index(cdist(outline, hole).argmin(), (len(outline), len(hole)))
    return np.concatenate([outline[: near + 1], np.roll(hole, -far, axis=0), hole[[far]], outline[near:]])


def _contour(header: Dataset, ring: np.ndarray, depth: int, to_lps: np.ndarray) -> Dataset:
    voxels = np.column_stack([ring, np.full(len(ring), depth), np.ones(len(ring))])
    points = (voxels @ to_lps.T)[:, :3]
    return _items(
        ContourImageSequence=[_reference(header)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=[f"{value:.4f}" for value in points.ravel()],
    )


def _structure_set(headers: Sequence[Dataset]) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

    first, now = headers[0], datetime.now()
    dataset = Dataset()
    for tag in _PATIENT_AND_STUDY:
        setattr(dataset, tag, first.get(tag, ""))
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = generate_uid(), first.FrameOfReferenceUID
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "RTSTRUCT", 1001, 1
    dataset.SeriesDescription, dataset.OperatorsName = "Contours by monai_ext", ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "monai_ext", "SAM2Segmenter"
    dataset.SoftwareVersions, dataset.PositionReferenceIndicator = __version__, ""
    dataset.StructureSetLabel, dataset.ApprovalStatus = "monai_ext", "UNAPPROVED"
    dataset.StructureSetDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.StructureSetTime = dataset.SeriesTime = now.strftime("%H%M%S")
    used = _items(
        SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=[_reference(header) for header in headers]
    )
    study = _items(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # the study itself, as this sequence wants it
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[used],
    )
    dataset.ReferencedFrameOfReferenceSequence = [
        _items(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])
    ]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _observation(number: int, name: str) -> Dataset:
    known = label_codes(name)
    code = _items(
        CodeValue=known.type.value,
        CodingSchemeDesignator=known.type.scheme_designator,
        CodeMeaning=known.type.meaning[:64],
    )
    return _items(
        ObservationNumber=number,
        ReferencedROINumber=number,
        ROIObservationLabel=name[:16],
        RTROIIdentificationCodeSequence=[code],
        RTROIInterpretedType="ORGAN",
        ROIInterpreter="",
    )


def _reference(header: Dataset) -> Dataset:
    return _items(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)


def _items(**values: Any) -> Dataset:
    from pydicom import Dataset

    dataset = Dataset()
    for tag, value in values.items():
        setattr(dataset, tag, value)
    return dataset
