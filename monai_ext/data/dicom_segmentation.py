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
from typing import TYPE_CHECKING

import numpy as np

from monai_ext.data.anatomy import label_codes
from monai_ext.data.atomic import atomic_path
from monai_ext.data.dicom_series import DicomSeries
from monai_ext.version import __version__

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription


def write_dicom_segmentation(
    path: str | os.PathLike[str], masks: np.ndarray, series: DicomSeries, labels: Sequence[str]
) -> None:
    """
    Write masks as a DICOM Segmentation (binary, segments may overlap) that refers to the slices of a series.

    Args:
        path: the file to write.
        masks: 0 or 1, on the grid of the series.
        series: the slices the masks were made from.
        labels: names of the masks; their SNOMED CT codes are written where :func:`label_codes` knows them.

    Shape:
        masks `(C, X, Y, Z)`: column, row, slice in the order of ``series.files``.

    Raises:
        ValueError: the masks do not fit the series, or its slices lack what DICOM asks for.
        ImportError: highdicom is not installed.
    """
    import highdicom as hd

    headers = series.headers()
    expected = (len(labels), headers[0].Columns, headers[0].Rows, len(headers))
    if masks.shape != expected:
        raise ValueError(f"{path}: masks must have the grid of their series, {expected}, not {masks.shape}.")
    try:
        segmentation = hd.seg.Segmentation(
            source_images=headers,
            pixel_array=np.ascontiguousarray((masks > 0).transpose(3, 2, 1, 0), dtype=np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(number, name) for number, name in enumerate(labels, start=1)],
            series_instance_uid=hd.UID(),
            series_number=1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="monai_ext",
            manufacturer_model_name="SAM2Segmenter",
            software_versions=__version__,
            device_serial_number="0",
            content_label="SEGMENTATION",
            series_description="Segmentation by monai_ext",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of slices that lack what the standard asks for
        raise ValueError(
            f"{path}: {series.files[0]} cannot be referred to by a DICOM Segmentation: {error}."
        ) from error
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def _description(number: int, name: str) -> SegmentDescription:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    known = label_codes(name)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=known.category,
        segmented_property_type=known.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="monai_ext", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        anatomic_regions=None if known.organ is None else [known.organ],
    )
    if known.side is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(known.side)]
    return description
