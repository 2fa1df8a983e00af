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


"""Volumes are written on the grid they were read from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
import torch
from ct_phantoms import AXIAL, ct_phantom, write_nifti, write_series
from matplotlib.path import Path as Polygon
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImaged, Orientationd, Spacingd
from PIL import Image
from pydicom import dcmread
from scipy.spatial.transform import Rotation

from monai_ext.data import VolumeList, VolumeReader
from monai_ext.handlers import VolumeWriter, volumes
from monai_ext.inferers import VolumeSlicesInferer
from monai_ext.transforms import CTWindowsd


class Bright(torch.nn.Module):
    """Finds bone: what is white in the first window."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.cat([pictures[:, :1] - 0.991, pictures[:, 1:2] - 0.703], 1)


class Smooth(torch.nn.Module):
    """Finds what is bright around: regions, not noise."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        around = torch.nn.functional.avg_pool2d(pictures[:, :1], 31, 1, 15)
        return torch.cat([around - 0.6, around - 0.5], 1)


def segment(
    source: Any,
    folder: Path,
    *,
    network: torch.nn.Module | None = None,
    pixdim: tuple[float, ...] | None = None,
    invert: bool = True,
    report: bool = True,
    **settings: Any,
) -> VolumeList:
    found = VolumeList(source=source)
    spacing = [] if pixdim is None else [Spacingd(keys="image", pixdim=pixdim, mode="bilinear")]
    before = Compose(
        [
            LoadImaged(keys="image", reader=VolumeReader(), ensure_channel_first=True),
            Orientationd(keys="image", axcodes="LPS", labels=None),
            *spacing,
            CTWindowsd(keys="image"),
        ]
    )
    back = [Invertd(keys=["pred", "image"], orig_keys="image", transform=before, nearest_interp=False)]
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(found.datalist, before), batch_size=1),
        network=network or Bright(),
        inferer=VolumeSlicesInferer(inferer=SimpleInferer()),
        postprocessing=Compose([*(back if invert else []), AsDiscreted(keys="pred", threshold=0.0)]),
        val_handlers=[
            VolumeWriter(output_dir=folder, labels=["bone", "spleen"], images=found if report else None, **settings)
        ],
    ).run()
    return found


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(values: np.ndarray) -> np.ndarray:
    mask = np.where(values > 40 + 0.49 * 400, 1, 0)
    mask[values > 30 + 0.2 * 150] = 2
    return mask


AFFINES = {
    "RAS": np.diag([2.0, 1.5, 5, 1]),
    "LPS": np.diag([-0.7, -0.7, 3, 1]),
    "sagittal slices first": np.array([[0, 0, 3, 1], [-0.8, 0, 0, 2], [0, 0.9, 0, 3], [0, 0, 0, 1.0]]),
    "flipped": np.diag([-1.0, 1, -7.5, 1]),
    "oblique": np.block(
        [
            [Rotation.from_euler("xyz", (8, -12, 25), degrees=True).as_matrix() * [0.8, 0.8, 2.5], np.ones((3, 1))],
            [np.zeros((1, 3)), np.ones((1, 1))],
        ]
    ),
}


@pytest.mark.parametrize("name", AFFINES)
def test_a_nifti_mask_has_the_grid_of_its_file_voxel_for_voxel(name: str, tmp_path: Path) -> None:
    values = ct_phantom()[0]
    path = write_nifti(tmp_path / "in" / "case.1.nii.gz", values, AFFINES[name])
    assert not segment(tmp_path / "in", tmp_path / "out").rejected
    image, mask = nibabel.load(path), nibabel.load(tmp_path / "out" / "case.1_mask.nii.gz")
    assert mask.shape == image.shape and np.array_equal(mask.affine, image.affine)
    assert mask.get_data_dtype() == np.uint8
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert mask.header[code] == image.header[code]
    assert np.array_equal(np.asarray(mask.dataobj), expected(values))


def test_resampling_is_undone(tmp_path: Path) -> None:
    values = ct_phantom((60, 50, 16))[0]
    path = write_nifti(tmp_path / "in" / "a.nii", values, AFFINES["oblique"])
    segment(tmp_path / "in", tmp_path / "out", pixdim=(1.0, 1.0, 2.0))
    mask = nibabel.load(tmp_path / "out" / "a_mask.nii.gz")
    assert np.array_equal(mask.affine, nibabel.load(path).affine) and mask.shape == values.shape
    one, two = np.asarray(mask.dataobj) > 0, expected(values) > 0
    assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.9


def test_results_of_a_dicom_series(tmp_path: Path) -> None:
    values = ct_phantom()[0]
    write_series(tmp_path / "in" / "patient", values, spacing=(2.0, 1.5, 5.0))
    segment(tmp_path / "in", tmp_path / "out", dicom_segmentation=True, rtstruct=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("patient_mask.nii.gz", "patient_overlay.jpg", "patient_rtstruct.dcm", "patient_seg.dcm", "results.csv")
    ]
    mask = nibabel.load(tmp_path / "out" / "patient_mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), expected(values))
    assert np.allclose(mask.affine, VolumeReader().get_data(tmp_path / "in" / "patient")[1]["affine"])
    bone, spleen = table(tmp_path / "out")
    assert (bone["label"], spleen["label"]) == ("bone", "spleen")
    # Labels overlap in the table and in DICOM, not in the NIfTI file.
    assert int(bone["voxels"]) == (values > 236).sum() and int(spleen["voxels"]) == (values > 60).sum()
    assert float(bone["volume_ml"]) == pytest.approx((values > 236).sum() * 2 * 1.5 * 5 / 1000)
    assert bone["spacing_mm"] == "2 x 1.5 x 5" and bone["rtstruct"] == "patient_rtstruct.dcm"
    with Image.open(tmp_path / "out" / "patient_overlay.jpg") as picture:
        assert picture.size == (3 * 48, 40)
    regions = dcmread(tmp_path / "out" / "patient_rtstruct.dcm").StructureSetROISequence
    assert [region.ROIName for region in regions] == ["bone", "spleen"]


def test_dicom_objects_are_for_dicom_and_only_if_asked_for(tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "a.nii.gz")
    write_series(tmp_path / "in" / "b")
    segment(tmp_path / "in", tmp_path / "out", overlay=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a_mask.nii.gz", "b_mask.nii.gz", "results.csv")
    ]
    segment(tmp_path / "in" / "a.nii.gz", tmp_path / "again", dicom_segmentation=True, rtstruct=True, overlay=False)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["a_mask.nii.gz", "results.csv"]


def test_series_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for patient in "12":
        write_series(tmp_path / "in" / patient / "CT", ct_phantom(seed=int(patient))[0])
    segment(tmp_path / "in", tmp_path / "out", overlay=False)
    assert [row["mask"] for row in table(tmp_path / "out")[::2]] == ["CT_mask.nii.gz", "CT-2_mask.nii.gz"]


def test_a_mask_on_another_grid_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "a.nii.gz", affine=AFFINES["RAS"])
    found = segment(tmp_path / "in", tmp_path / "out", invert=False)
    assert "must have the affine of its file" in found.rejected[str(tmp_path / "in" / "a.nii.gz")]
    found = segment(tmp_path / "in", tmp_path / "out", invert=False, pixdim=(3.0, 3.0, 3.0))
    assert "on the grid of its file" in found.rejected[str(tmp_path / "in" / "a.nii.gz")]
    assert not (tmp_path / "out").exists()


def test_a_volume_that_cannot_be_written_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write_series(tmp_path / "in" / name)

    def fails_for_a(path: Path, *others: Any) -> None:
        if path.name.startswith("a"):
            raise OSError("no space left")

    monkeypatch.setattr(volumes, "write_rtstruct", fails_for_a)
    found = segment(tmp_path / "in", tmp_path / "out", rtstruct=True)
    assert list(found.rejected) == [str(tmp_path / "in" / "a")] and [
        Path(r["image"]).name for r in table(tmp_path / "out")
    ] == ["b", "b"]
    with pytest.raises(SystemExit, match="no space left"):
        found.finish()
    with pytest.raises(OSError, match="no space left"):
        segment(tmp_path / "in", tmp_path / "out", rtstruct=True, report=False)


def test_labels_must_be_a_list() -> None:
    with pytest.raises(ValueError, match="list of 1 to 255 names"):
        VolumeWriter(output_dir="out", labels="spleen")


def test_an_oblique_series_comes_back_in_its_slices(tmp_path: Path) -> None:
    orientation = tuple(Rotation.from_euler("x", -90, degrees=True).as_matrix()[:2].ravel())
    assert orientation != AXIAL
    values = ct_phantom()[0]
    write_series(tmp_path / "coronal", values, orientation=orientation)
    segment(tmp_path / "coronal", tmp_path / "out", overlay=True)
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "out" / "coronal_mask.nii.gz").dataobj), expected(values))


def test_a_real_jpeg_2000_series_goes_in_and_comes_out_in_all_forms(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "totalsegmentator_ct" / "example_ct_dicom"
    assert not segment(folder, tmp_path, network=Smooth(), dicom_segmentation=True, rtstruct=True).rejected
    mask = np.asarray(nibabel.load(tmp_path / "example_ct_dicom_mask.nii.gz").dataobj)
    assert mask.shape == (512, 512, 20) and 0.01 < (mask > 0).mean() < 0.6
    slices = [dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir(), reverse=True)]
    uids = [item.file_meta.MediaStorageSOPInstanceUID for item in slices]
    segments = highdicom.seg.segread(tmp_path / "example_ct_dicom_seg.dcm")
    pixels = segments.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(pixels.any(-1).transpose(2, 1, 0), mask > 0)
    contours = dcmread(tmp_path / "example_ct_dicom_rtstruct.dcm")
    assert contours.FrameOfReferenceUID == segments.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    inverse = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ nibabel.load(tmp_path / "example_ct_dicom_mask.nii.gz").affine)
    found = np.zeros(mask.shape, int)
    centres = np.stack(np.meshgrid(np.arange(512), np.arange(512), indexing="ij"), -1).reshape(-1, 2)
    for contour in contours.ROIContourSequence[1].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
        depth = uids.index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        near = ((centres >= low) & (centres <= high)).all(1)
        inside = Polygon(points[:, :2]).contains_points(centres[near])
        found[centres[near][inside, 0], centres[near][inside, 1], depth] += 1
    drawn, truth = found % 2 == 1, mask > 0
    assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) > 0.99
