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

import logging
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# What pydicom needs beside itself for the pixels of each compressed transfer syntax; it decodes RLE alone.
_DECODERS = (
    ("1.2.840.10008.1.2.4.9", "pylibjpeg pylibjpeg-openjpeg"),  # JPEG 2000
    ("1.2.840.10008.1.2.4.20", "pylibjpeg pylibjpeg-openjpeg"),  # High-Throughput JPEG 2000
    ("1.2.840.10008.1.2.4.8", "pyjpegls"),  # JPEG-LS
    ("1.2.840.10008.1.2.4.", "pylibjpeg pylibjpeg-libjpeg"),  # JPEG, most often lossless
)
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "ImageType", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "PixelData"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
]
# How far a slice may lie from its place in an even stack, as a part of the spacing: positions are often rounded.
_UNEVEN = 0.2


class DicomSeries:
    """
    The slices of one CT series in the order of their positions, checked before any pixel is read.

    Other objects in the folder (localizers, secondary captures, reports, files that are no DICOM) are left out and
    logged; whatever would make the volume a wrong one is an error that names the file.

    Args:
        path: a folder, or one of its slices, which then chooses the series.
        uid: SeriesInstanceUID of the series to take where the folder holds several.

    Attributes:
        uid: SeriesInstanceUID; empty if it was taken out of the files.
        description: SeriesDescription.
        files: the slices' paths, along the normal of the slices as ITK sorts them.
        affine: `(4, 4)`, from column, row and slice to millimetres, RAS.

    Raises:
        ValueError: there is no CT series or a choice of several; a file is empty, damaged, cut off or cannot be
            decoded; slices are missing or there twice; size, spacing, orientation or frame of reference differ; the
            gantry is tilted; values cannot be turned into Hounsfield units; a number is not finite.

    Example:
        >>> DicomSeries("/no/such/folder")
        Traceback (most recent call last):
        ValueError: /no/such/folder does not exist; give a folder of DICOM files or one of its slices.
    """

    def __init__(self, path: str | os.PathLike[str], *, uid: str | None = None) -> None:
        path = Path(path)
        if not path.exists():
            raise ValueError(f"{path} does not exist; give a folder of DICOM files or one of its slices.")
        folder = path if path.is_dir() else path.parent
        found, others = _scan(folder)
        if not path.is_dir():
            uid = next((key for key, slices in found.items() if path in slices), None)
            if uid is None:
                raise ValueError(f"{path} must be a CT slice, not {others.get(path, 'a file that is no DICOM')}.")
        self.uid, slices = _chosen(folder, found, uid, others)
        if others:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(others.values()).items())
            logger.warning("%s: left out what is no CT slice: %s.", folder, kinds)
        for file, header in slices.items():
            _check_pixels(file, header)
        self.description = str(next(iter(slices.values())).get("SeriesDescription", ""))
        stack = _in_order(folder, [_slice(file, header) for file, header in slices.items()])
        self.files = [str(item.path) for item in stack]
        self.affine = _affine(stack)

    def headers(self) -> list[Dataset]:
        """
        Return what objects made from the series refer to: the headers of its slices in order, without pixels.

        UIDs that were taken out of the files are put back: those of the slices as their file meta says, those of
        series, study and frame of reference made from the slices' and therefore always the same.
        """
        from pydicom import dcmread
        from pydicom.uid import generate_uid

        headers: list[Dataset] = [dcmread(file, stop_before_pixels=True) for file in self.files]
        for header in headers:
            for tag in ("SOPClassUID", "SOPInstanceUID"):
                stored = header.file_meta.get(f"MediaStorage{tag}", "")
                setattr(header, tag, header.get(tag) or stored or generate_uid(entropy_srcs=[str(header)]))
        names = [header.SOPInstanceUID for header in headers]
        for tag in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            if not headers[0].get(tag):
                made = generate_uid(entropy_srcs=[tag, *names])
                logger.warning("%s have no %s; what is made from them says %s.", self.files[0], tag, made)
                for header in headers:
                    setattr(header, tag, made)
        return headers


class _Slice(NamedTuple):
    path: Path
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    size: tuple[int, int]
    frame: str


def _scan(folder: Path) -> tuple[dict[str, dict[Path, Dataset]], dict[Path, str]]:
    """All CT slices by series, and what the other DICOM objects are."""
    found: dict[str, dict[Path, Dataset]] = defaultdict(dict)
    others: dict[Path, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        header = _read_header(path)
        if header is None:
            continue
        other = _other_kind(header)
        if other is None:
            found[str(header.get("SeriesInstanceUID", ""))][path] = header
        else:
            others[path] = other
    return found, others


def _read_header(path: Path) -> Dataset | None:
    """The header, without the pixels; None for a file that is no DICOM and does not claim to be."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy it again from its source, or take it away.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what pydicom warns of, we refuse
            header = dcmread(path, defer_size=1024, specific_tags=_TAGS)
    except InvalidDicomError as error:
        if path.suffix.lower() not in DICOM_SUFFIXES:
            return None
        raise ValueError(f"{path} is no DICOM file, or an encrypted one; export it again, unencrypted.") from error
    except Exception as error:  # pydicom raises every kind of exception on broken files
        raise ValueError(f"{path} is damaged or cut off ({_brief(error)}); copy it again from its source.") from error
    kind = header.file_meta.get("MediaStorageSOPClassUID", "")
    # A directory (DICOMDIR) has none of the tags, either, but says what it is.
    if (not header and kind in ("", CT_IMAGE)) or "TransferSyntaxUID" not in header.file_meta:
        raise ValueError(f"{path} is cut off in its header; copy it again from its source.")
    return header


def _other_kind(header: Dataset) -> str | None:
    """What the object is if it is no CT slice."""
    from pydicom.uid import UID

    kind = UID(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", ""))
    if kind in MULTI_FRAME_CT or (kind == CT_IMAGE and int(header.get("NumberOfFrames") or 1) > 1):
        return f"a multi-frame object ({kind.name}), which dcm2niix turns into NIfTI"
    if kind != CT_IMAGE:
        return kind.name or "an object of unknown class"
    return "a localizer" if "LOCALIZER" in (header.get("ImageType") or ()) else None


def _chosen(
    folder: Path, found: dict[str, dict[Path, Dataset]], uid: str | None, others: dict[Path, str]
) -> tuple[str, dict[Path, Dataset]]:
    if not found:
        there = f", only {', '.join(sorted(set(others.values())))}" if others else ""
        raise ValueError(f"{folder} holds no CT slices{there}; give the folder of a CT series.")
    listed = "; ".join(
        f"{key or '(no UID)'} ({len(slices)} slices, {next(iter(slices.values())).get('SeriesDescription', '')!r})"
        for key, slices in found.items()
    )
    if uid is not None and uid not in found:
        raise ValueError(f"{folder} holds no series {uid}; choose one of: {listed}.")
    if uid is None and len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} series; choose one by its SeriesInstanceUID: {listed}.")
    uid = next(iter(found)) if uid is None else uid
    return uid, found[uid]


def _check_pixels(path: Path, header: Dataset) -> None:
    """Whether the pixels are there, all of them, and can be decoded to Hounsfield units."""
    syntax = header.file_meta.TransferSyntaxUID
    _check_decoder(path, header)
    if header.get("SamplesPerPixel", 1) != 1 or header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise ValueError(
            f"{path} must hold grey values (MONOCHROME2), not {header.get('PhotometricInterpretation')}; export the "
            "original slices."
        )
    expected = 1 if syntax.is_encapsulated else header.get("Rows", 0) * header.get("Columns", 0)
    expected *= 1 if syntax.is_encapsulated else header.get("BitsAllocated", 0) // 8
    if not 0 < expected <= _stored_bytes(path, header):
        raise ValueError(f"{path} is cut off: its pixels are missing or not complete; copy it again from its source.")
    slope, _ = (_numbers(path, header, tag, 1)[0] for tag in ("RescaleSlope", "RescaleIntercept"))
    if not slope:
        raise ValueError(f"{path}: RescaleSlope must not be 0; export the series again.")
    unit = str(header.get("RescaleType") or "HU")
    if unit not in ("HU", "HU_MOD", "US"):
        raise ValueError(f"{path} must hold Hounsfield units, not {unit} (RescaleType); give the series of the CT.")


def _stored_bytes(path: Path, header: Dataset) -> int:
    """How much of the pixels there is; pydicom gives what lies before the end of the file without a word."""
    if "PixelData" not in header:
        return 0
    pixels: Any = header.get_item("PixelData", keep_deferred=True)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated or syntax.is_deflated:
        return int(pixels.length)
    return min(int(pixels.length), path.stat().st_size - pixels.value_tell)


def _check_decoder(path: Path, header: Dataset) -> None:
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ValueError(
            f"{path} has the transfer syntax {syntax.name} ({syntax}), which nothing here decodes; export the series "
            "uncompressed (Explicit VR Little Endian)."
        ) from error
    if not decoder.is_available:
        package = next((name for prefix, name in _DECODERS if syntax.startswith(prefix)), "pylibjpeg[all]")
        raise ValueError(f"{path} is compressed by {syntax.name} ({syntax}), which needs: pip install {package}")


def _slice(path: Path, header: Dataset) -> _Slice:
    orientation = np.array(_numbers(path, header, "ImageOrientationPatient", 6))
    directions = orientation.reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
        raise ValueError(f"{path}: ImageOrientationPatient must be two perpendicular unit vectors, not {orientation}.")
    spacing = np.array(_numbers(path, header, "PixelSpacing", 2))
    if (spacing <= 0).any():
        raise ValueError(f"{path}: PixelSpacing must be positive, not {spacing}; export the series again.")
    position = np.array(_numbers(path, header, "ImagePositionPatient", 3))
    size = (int(header.Columns), int(header.Rows))
    return _Slice(path, position, orientation, spacing, size, str(header.get("FrameOfReferenceUID", "")))


def _numbers(path: Path, header: Dataset, tag: str, count: int) -> list[float]:
    try:
        value = header.get(tag)
        values = np.atleast_1d(np.array([] if value in (None, "") else value, dtype=float))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {tag} must be numbers ({_brief(error)}); export the series again.") from error
    if len(values) != count:
        units = ", so its values are no Hounsfield units" if tag.startswith("Rescale") else ""
        raise ValueError(
            f"{path}: {tag} must be {count} numbers, not {len(values) or 'missing'}{units}; export the series again."
        )
    if not np.isfinite(values).all():
        # CVE-2026-48705: readers that go on make a volume of wrong values or shape.
        raise ValueError(f"{path}: {tag} must be finite, not {values.tolist()}; export the series again.")
    return values.tolist()


def _in_order(folder: Path, slices: Sequence[_Slice]) -> list[_Slice]:
    first = slices[0]
    for other in slices[1:]:
        for what, one, two, tolerance in (
            ("size", first.size, other.size, 0),
            ("PixelSpacing", first.spacing, other.spacing, 1e-3 * first.spacing.min()),
            ("ImageOrientationPatient", first.orientation, other.orientation, 1e-3),
        ):
            if not np.allclose(one, two, rtol=0, atol=tolerance):
                raise ValueError(
                    f"{folder} mixes slices of different {what}: {list(map(float, one))} in {first.path.name}, "
                    f"{list(map(float, two))} in {other.path.name}; put them into folders of their own."
                )
        if first.frame != other.frame:
            raise ValueError(
                f"{folder} mixes slices of two frames of reference ({first.path.name}, {other.path.name}), whose "
                "positions cannot be compared; put them into folders of their own."
            )
    if len(slices) < 2:
        raise ValueError(f"{folder} holds one slice of the series, {first.path.name}; a volume needs two or more.")
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    slices = sorted(slices, key=lambda item: float(item.position @ normal))
    _check_stack(folder, slices, normal)
    return slices


def _affine(slices: Sequence[_Slice]) -> np.ndarray:
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_stack(folder: Path, slices: Sequence[_Slice], normal: np.ndarray) -> None:
    heights = np.array([item.position @ normal for item in slices])
    gaps = np.diff(heights)
    usual = float(np.quantile(gaps, 0.5, method="lower"))
    for one, two, gap in zip(slices, slices[1:], gaps, strict=False):
        if gap <= max(1e-3, 0.01 * usual):
            raise ValueError(
                f"{folder} holds two slices at one position, {one.path.name} and {two.path.name}; take one away."
            )
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > _UNEVEN * usual:
        place = int(gaps.argmax())
        names = f"{slices[place].path.name} and {slices[place + 1].path.name}"
        count = gaps[place] / usual
        if count > 1.5 and abs(count - round(count)) <= _UNEVEN:
            missing = round(count) - 1
            raise ValueError(
                f"{folder} misses {missing} slice{'s' * (missing > 1)} between {names}, which lie {gaps[place]:g} mm "
                f"apart, others {usual:g} mm; copy the series again from its source."
            )
        raise ValueError(
            f"{folder} has slices {gaps.min():g} to {gaps.max():g} mm apart (most between {names}); a volume needs one "
            "spacing: resample the series, or give its evenly spaced part."
        )
    way = slices[-1].position - slices[0].position
    drift = np.linalg.norm(way - (way @ normal) * normal)
    if drift > slices[0].spacing.min() / 2:
        angle = np.degrees(np.arctan2(drift, abs(way @ normal)))
        raise ValueError(
            f"{folder} was taken with the gantry tilted by {angle:.1f} degrees, so its slices are no upright stack; "
            "correct the tilt first (dcm2niix does, and writes NIfTI)."
        )


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
