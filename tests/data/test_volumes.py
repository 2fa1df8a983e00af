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


"""Volumes that are read right, and bad ones that are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from bad_volumes import BAD
from ct_phantoms import ct_phantom, write_nifti, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import ITKReader
from monai.transforms import LoadImage
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from scipy.spatial.transform import Rotation

from monai_ext.data import DicomSeries, VolumeList, VolumeReader


def read(path: Path, **settings: str) -> tuple[np.ndarray, dict]:
    return VolumeReader(**settings).get_data(path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_volume_is_named_and_the_rest_is_done(name: str, tmp_path: Path) -> None:
    make, says = BAD[name]
    good = write_nifti(tmp_path / "all" / "good.nii.gz")
    path = make(tmp_path / "all" / name)
    with pytest.raises(ValueError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value) and str(caught.value).count("\n") == 0
    volumes = VolumeList(source=tmp_path / "all")
    assert [item["image"] for item in volumes.datalist] == [str(good)]
    assert list(volumes.rejected) == [str(path)]
    with pytest.raises(SystemExit, match=re.escape(str(path))) as stopped:
        volumes.finish()
    assert stopped.value.code not in (0, None)


def test_there_are_enough_bad_volumes() -> None:
    assert len(BAD) >= 25


def test_values_are_hounsfield_units_of_each_slice(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + number, -1000 - number

    write_series(tmp_path / "ct", edit=edit)
    values, _ = read(tmp_path / "ct")
    for number in range(values.shape[2]):
        dataset = dcmread(tmp_path / "ct" / f"{number:03d}.dcm")
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).astype(float)
        assert np.allclose(values[:, :, number].T, stored * (0.5 + number) - 1000 - number)


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 6)] * 3),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
)
def test_geometry_is_that_of_itk(
    angles: tuple[float, ...],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Oblique and flipped slices, anisotropic spacing."""
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    spacing = tuple(round(value, 4) for value in spacing)
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, ct_phantom((9, 7, 5))[0], orientation=(*matrix[0], *matrix[1]), spacing=spacing, origin=origin)
    values, meta = read(folder)
    reader = ITKReader()
    theirs, their_meta = reader.get_data(reader.read(folder))
    assert np.array_equal(values, theirs)
    assert np.allclose(meta["affine"], their_meta["affine"], atol=2e-3)
    assert np.allclose(np.linalg.norm(meta["affine"][:3, :3], axis=0), spacing, atol=1e-3)


def test_slices_follow_their_positions_not_their_names_or_numbers(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.InstanceNumber = 7 * number % 12

    values = ct_phantom()[0]
    write_series(tmp_path / "a", values, edit=edit, name="{:03d}")
    for number, path in enumerate(sorted((tmp_path / "a").iterdir())):
        path.rename(path.with_name(f"{5 * number % 12}.IMA"))
    assert np.array_equal(read(tmp_path / "a")[0], values)


def test_rounded_positions_are_one_spacing(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-40, -30, round(100 + 0.625 * number, 1)]

    assert read(write_series(tmp_path, edit=edit))[0].shape == (48, 40, 12)


def test_one_of_several_series_is_chosen(tmp_path: Path) -> None:
    one, two = ct_phantom(seed=1)[0], ct_phantom(seed=2)[0][:, :, :5]
    write_series(tmp_path, one, name="a{:03d}.dcm")
    write_series(tmp_path, two, name="b{:03d}.dcm")
    uids = [str(dcmread(tmp_path / f"{letter}000.dcm").SeriesInstanceUID) for letter in "ab"]
    assert np.array_equal(read(tmp_path, series=uids[0])[0], one)
    assert np.array_equal(read(tmp_path / "b003.dcm")[0], two)
    with pytest.raises(ValueError, match=f"no series 1.2.3; choose one of: .*{uids[0]}.*{uids[1]}"):
        read(tmp_path, series="1.2.3")
    assert VolumeList(source=tmp_path, series=uids[1]).datalist == [{"image": str(tmp_path)}]


def test_what_lies_beside_the_slices_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = ct_phantom()[0]
    write_series(tmp_path, values)

    def capture(dataset: Dataset, number: int) -> None:
        dataset.SOPClassUID = SecondaryCaptureImageStorage

    def scout(dataset: Dataset, number: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, values[:, :, :2], edit=capture, name="capture{}.dcm")
    write_series(tmp_path, values[:, :, :1], edit=scout, name="scout{}.dcm")
    directory = Dataset()
    directory.FileSetID = "CT"
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert np.array_equal(read(tmp_path)[0], values)
    assert "1 x Media Storage Directory Storage, 2 x Secondary Capture Image Storage, 1 x a localizer" in caplog.text


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, RLELossless, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_compressed_slices_give_the_same_values(syntax: str, tmp_path: Path) -> None:
    values = ct_phantom()[0]
    write_series(tmp_path, values)
    for path in tmp_path.iterdir():
        dataset = dcmread(path)
        if syntax == RLELossless:
            dataset.compress(syntax)
        elif syntax == DeflatedExplicitVRLittleEndian:
            dataset.file_meta.TransferSyntaxUID = syntax
        else:
            from openjpeg.utils import encode_array
            from pydicom.encaps import encapsulate

            code = encode_array(dataset.pixel_array, photometric_interpretation=2, use_mct=False)
            dataset.PixelData = encapsulate([code])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    assert np.array_equal(read(tmp_path)[0], values)
    broken = tmp_path / "004.dcm"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="004.dcm is (cut off|damaged)"):
        read(tmp_path)


def test_slices_without_uids_are_one_series(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.SOPInstanceUID = dataset.SeriesInstanceUID = dataset.SOPClassUID = ""

    write_series(tmp_path)
    for path in tmp_path.iterdir():
        dataset = dcmread(path)
        edit(dataset, 0)
        dataset.save_as(path)
    series = DicomSeries(tmp_path)
    assert (series.uid, series.description, len(series.files)) == ("", "phantom", 12)


def test_a_volume_may_have_a_last_dimension_of_one(tmp_path: Path) -> None:
    values = ct_phantom()[0]
    assert np.array_equal(read(write_nifti(tmp_path / "a.nii.gz", values[..., None]))[0], values)


def test_nifti_keeps_its_affine_through_monai(tmp_path: Path) -> None:
    affine = np.array([[0, -1.5, 0.2, 7], [2, 0, 0, -3], [0, 0.1, 5, 1], [0, 0, 0, 1.0]])
    volume = LoadImage(reader=VolumeReader(), ensure_channel_first=True)(write_nifti(tmp_path / "a.nii", affine=affine))
    assert tuple(volume.shape) == (1, 48, 40, 12) and np.allclose(volume.affine, affine)


def test_folders_of_all_kinds_are_found(tmp_path: Path) -> None:
    write_nifti(tmp_path / "b.nii")
    write_nifti(tmp_path / "deeper" / "not.nii.gz")
    write_series(tmp_path / "patient" / "study" / "series 1")
    write_series(tmp_path / "patient" / "study" / "series 2", name="{}")
    (tmp_path / "patient" / "notes.txt").write_text("none")
    found = [Path(item["image"]).relative_to(tmp_path).as_posix() for item in VolumeList(source=tmp_path).datalist]
    assert found == ["b.nii", "patient/study/series 1", "patient/study/series 2"]
    assert len(VolumeList(source=str(tmp_path / "*.nii")).datalist) == 1
    assert len(VolumeList(source=str(tmp_path / "patient" / "study" / "*")).datalist) == 2
    assert len(VolumeList(source=[str(tmp_path / "b.nii")]).datalist) == 1


def test_nothing_to_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no image; looked for NIfTI files and folders of DICOM files"):
        VolumeList(source=tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder"):
        VolumeList(source=tmp_path / "none")
    with pytest.raises(ValueError, match="none of the 1 images .* can be used:\n.*empty"):
        VolumeList(source=BAD["nifti_empty"][0](tmp_path / "a"))


class TestRealVolumes:
    def test_jpeg_2000_series(self, shared_data: Path) -> None:
        folder = shared_data / "totalsegmentator_ct" / "example_ct_dicom"
        values, meta = read(folder)
        for index, path in ((0, "16592"), (19, "16573")):
            dataset = dcmread(next(folder.glob(f"*{path}")))
            stored = dataset.pixel_array.astype(float) * dataset.RescaleSlope + dataset.RescaleIntercept
            assert np.array_equal(values[:, :, index], stored.T)
        # The matching NIfTI was made by dcm2niix, which turns y around.
        truth = nibabel.load(shared_data / "totalsegmentator_ct" / "example_seg_dicom.nii.gz")
        turned = meta["affine"] @ np.array([[1, 0, 0, 0], [0, -1, 0, 511], [0, 0, 1, 0], [0, 0, 0, 1]])
        assert truth.shape == values.shape and np.allclose(truth.affine, turned, atol=1e-4)

    def test_geometry_and_values_of_itk(self, shared_data: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(shared_data / "dicom_seg" / "ct-3slice", tmp_path / "ct"))
        values, meta = read(folder)
        image = itk.imread(str(folder), itk.F)
        assert np.array_equal(values, itk.array_from_image(image).T)
        direction = itk.array_from_matrix(image.GetDirection()) @ np.diag(image.GetSpacing())
        to_ras = np.diag([-1.0, -1.0, 1.0])
        assert np.allclose(meta["affine"][:3, :3], to_ras @ direction, atol=1e-5)
        assert np.allclose(meta["affine"][:3, 3], to_ras @ np.array(image.GetOrigin()), atol=1e-5)

    def test_segmentation_objects_are_no_volume(self, shared_data: Path) -> None:
        with pytest.raises(ValueError, match="must be a CT slice, not Segmentation Storage"):
            read(shared_data / "dicom_seg" / "liver.dcm")
