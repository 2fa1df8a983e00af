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


"""DICOM Segmentation and RT Structure Set, read back by other libraries."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import itk
import numpy as np
import pytest
from ct_phantoms import AXIAL, ct_phantom, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from pydicom import Dataset, dcmread
from scipy.spatial.transform import Rotation

from monai_ext.data import DicomSeries
from monai_ext.data.anatomy import label_codes
from monai_ext.data.dicom_segmentation import write_dicom_segmentation
from monai_ext.data.rtstruct import mask_outlines, write_rtstruct

LABELS = ["spleen", "left kidney"]
OBLIQUE = tuple(Rotation.from_euler("xyz", (10, -20, 140), degrees=True).as_matrix()[:2].ravel())
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def series_with_masks(folder: Path, orientation: tuple[float, ...] = AXIAL) -> tuple[DicomSeries, np.ndarray]:
    values, spleen = ct_phantom()
    other = np.roll(spleen, (-3, 2, 1), (0, 1, 2))
    return DicomSeries(write_series(folder, values, orientation=orientation)), np.stack([spleen, other])


def inside(outlines: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie in an odd number of outlines, by another library."""
    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
    count = sum((Polygon(outline).contains_points(centres).astype(int) for outline in outlines), np.zeros(len(centres)))
    return (count % 2 == 1).reshape(shape)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
class TestSegmentation:
    def test_highdicom_reads_the_masks_back_at_their_slices(
        self, orientation: tuple[float, ...], tmp_path: Path
    ) -> None:
        series, masks = series_with_masks(tmp_path / "ct", orientation)
        write_dicom_segmentation(tmp_path / "seg.dcm", masks, series, LABELS)
        segmentation = hd.seg.segread(tmp_path / "seg.dcm")
        uids = [dcmread(file).SOPInstanceUID for file in series.files]
        pixels = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
        assert np.array_equal(pixels.transpose(3, 2, 1, 0), masks)
        assert [d.segment_label for d in segmentation.SegmentSequence] == LABELS
        assert segmentation.FrameOfReferenceUID == dcmread(series.files[0]).FrameOfReferenceUID

    def test_frames_lie_where_pydicom_alone_says(self, orientation: tuple[float, ...], tmp_path: Path) -> None:
        series, masks = series_with_masks(tmp_path / "ct", orientation)
        write_dicom_segmentation(tmp_path / "seg.dcm", masks, series, LABELS)
        dataset = dcmread(tmp_path / "seg.dcm")
        shared = dataset.SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == [1.5, 2.0]
        assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation, atol=1e-6)
        found = np.zeros_like(masks)
        places = np.array([dcmread(file).ImagePositionPatient for file in series.files], float)
        for frame, groups in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            place = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            (depth,) = np.flatnonzero(np.linalg.norm(places - place, axis=1) < 1e-3)
            segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1
            found[segment, :, :, depth] = frame.T
        assert np.array_equal(found, masks)

    def test_contours_enclose_the_masks(self, orientation: tuple[float, ...], tmp_path: Path) -> None:
        series, masks = series_with_masks(tmp_path / "ct", orientation)
        masks[0, 22:30, 12:28, 5] = True
        masks[0, 24:27, 15:20, 5] = False
        write_rtstruct(tmp_path / "rt.dcm", masks, series, LABELS)
        dataset = dcmread(tmp_path / "rt.dcm")
        uids = [dcmread(file).SOPInstanceUID for file in series.files]
        from_ras = np.linalg.inv(series.affine)
        for mask, region in zip(masks, dataset.ROIContourSequence, strict=True):
            outlines: dict[int, list[np.ndarray]] = {}
            for contour in region.ContourSequence:
                points = np.array(contour.ContourData, float).reshape(-1, 3) * (-1, -1, 1)
                voxels = points @ from_ras[:3, :3].T + from_ras[:3, 3]
                depth = uids.index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
                assert np.allclose(voxels[:, 2], depth, atol=1e-3)
                outlines.setdefault(depth, []).append(voxels[:, :2])
            found = np.stack([inside(outlines.get(z, []), mask.shape[:2]) for z in range(mask.shape[2])], -1)
            assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.99


def test_what_is_referred_to_is_the_series(tmp_path: Path) -> None:
    series, masks = series_with_masks(tmp_path / "ct")
    write_rtstruct(tmp_path / "rt.dcm", masks, series, LABELS)
    write_dicom_segmentation(tmp_path / "seg.dcm", masks, series, LABELS)
    slices = [dcmread(file) for file in series.files]
    contours, segmentation = dcmread(tmp_path / "rt.dcm"), dcmread(tmp_path / "seg.dcm")
    frame = contours.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == slices[0].FrameOfReferenceUID == segmentation.FrameOfReferenceUID
    used = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert used.SeriesInstanceUID == series.uid
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid
    uids = {item.SOPInstanceUID for item in slices}
    assert {item.ReferencedSOPInstanceUID for item in used.ContourImageSequence} == uids
    assert {
        item.ReferencedSOPInstanceUID for item in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    } == uids
    for made in (contours, segmentation):
        for tag in ("PatientID", "PatientName", "StudyInstanceUID"):
            assert made[tag].value == slices[0][tag].value


def test_segments_carry_codes(tmp_path: Path) -> None:
    series, masks = series_with_masks(tmp_path / "ct")
    write_dicom_segmentation(tmp_path / "seg.dcm", masks, series, LABELS)
    write_rtstruct(tmp_path / "rt.dcm", masks, series, LABELS)
    spleen, kidney = dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert spleen.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert spleen.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "64033007"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    observed = dcmread(tmp_path / "rt.dcm").RTROIObservationsSequence[0]
    assert observed.RTROIIdentificationCodeSequence[0].CodeValue == "78961009"


@pytest.mark.parametrize(
    ("name", "meaning", "side", "organ"),
    [
        ("spleen", "Spleen", None, None),
        ("kidney_right", "Kidney", "Right", None),
        ("Left adrenal gland", "Adrenal gland", "Left", None),
        ("urinary_bladder", "Bladder", None, None),
        ("inferior_vena_cava", "Inferior vena cava", None, None),
        ("liver tumour", "Tumor", None, "Liver"),
        ("structure 7", "Tissue", None, None),
    ],
)
def test_names_are_known(name: str, meaning: str, side: str | None, organ: str | None) -> None:
    known = label_codes(name)
    assert known.type.meaning == meaning and known.type.scheme_designator == "SCT"
    assert (known.side and known.side.meaning, known.organ and known.organ.meaning) == (side, organ)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**36 - 1))
def test_outlines_hold_exactly_the_centres_of_a_mask(bits: int) -> None:
    mask = np.array([bits >> place & 1 for place in range(36)], bool).reshape(6, 6)
    outlines = mask_outlines(mask)
    # A hole's bridge may run through centres; moved by next to nothing they lie on one side of it.
    shift = np.array([1.3e-4, 0.7e-4])
    assert np.array_equal(inside([outline + shift for outline in outlines], mask.shape), mask)


def test_an_empty_mask_is_written(tmp_path: Path) -> None:
    series, masks = series_with_masks(tmp_path / "ct")
    write_rtstruct(tmp_path / "rt.dcm", masks & False, series, LABELS)
    write_dicom_segmentation(tmp_path / "seg.dcm", masks & False, series, LABELS)
    assert "ContourSequence" not in dcmread(tmp_path / "rt.dcm").ROIContourSequence[0]
    assert not dcmread(tmp_path / "seg.dcm").pixel_array.any()


@pytest.mark.parametrize("write", [write_rtstruct, write_dicom_segmentation])
def test_masks_of_another_grid_are_refused_and_nothing_is_written(write: object, tmp_path: Path) -> None:
    series, masks = series_with_masks(tmp_path / "ct")
    with pytest.raises(ValueError, match="grid of their series"):
        write(tmp_path / "out.dcm", masks[:, 1:], series, LABELS)  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


def test_series_without_uids_can_be_referred_to(tmp_path: Path) -> None:
    """As in TotalSegmentator's example: an anonymiser emptied them, the file meta still has the slices' own."""
    series, masks = series_with_masks(tmp_path / "ct")
    names = [dcmread(file).SOPInstanceUID for file in series.files]
    for file in series.files:
        dataset: Dataset = dcmread(file)
        dataset.SOPInstanceUID = dataset.SeriesInstanceUID = dataset.StudyInstanceUID = dataset.SOPClassUID = ""
        dataset.save_as(file)
    series = DicomSeries(tmp_path / "ct")
    write_dicom_segmentation(tmp_path / "seg.dcm", masks, series, LABELS)
    write_rtstruct(tmp_path / "rt.dcm", masks, series, LABELS)
    pixels = hd.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        names, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(pixels.transpose(3, 2, 1, 0), masks)
    study = [dcmread(tmp_path / name).StudyInstanceUID for name in ("seg.dcm", "rt.dcm")]
    assert study[0] == study[1] != ""


def test_itk_reads_the_segmentation(tmp_path: Path) -> None:
    series, masks = series_with_masks(tmp_path / "ct")
    masks[0, 20, 20] = True  # something in every slice, as ITK puts frames one after the other
    write_dicom_segmentation(tmp_path / "seg.dcm", masks[:1], series, LABELS[:1])
    image = itk.imread(str(tmp_path / "seg.dcm"), itk.UC)
    # highdicom writes the frames from the head to the feet.
    assert np.allclose(image.GetOrigin(), (-40, -30, 155)) and np.allclose(image.GetSpacing(), (2, 1.5, 5))
    assert np.array_equal(itk.array_from_image(image).T > 0, masks[0, :, :, ::-1])
