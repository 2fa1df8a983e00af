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


"""Bad CT volumes as they come in practice: each with what the sentence about it must say."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from ct_phantoms import ct_phantom, write_nifti, write_series
from pydicom import Dataset, dcmread
from pydicom.uid import UID, EnhancedCTImageStorage, JPEGLosslessSV1, MRImageStorage, SecondaryCaptureImageStorage

Make = Callable[[Path], Path]
BAD: dict[str, tuple[Make, str]] = {}


def bad(says: str) -> Callable[[Make], Make]:
    """List a maker under its name; it is given a path without suffix and returns what it made."""

    def add(make: Make) -> Make:
        BAD[make.__name__] = (make, says)
        return make

    return add


def put(**values: Any) -> Callable[[Dataset, int], None]:
    """An edit that sets attributes of the third slice."""

    def edit(dataset: Dataset, number: int) -> None:
        if number == 2:
            for name, value in values.items():
                setattr(dataset, name, value)

    return edit


def put_all(**values: Any) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, number: int) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return edit


def raw(path: Path, old: bytes, new: bytes) -> None:
    """What no library would write: bytes of a file exchanged for as many others."""
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new, 1))


@bad("holds 2 series; choose one by its SeriesInstanceUID: .*12 slices, 'phantom'")
def two_series(path: Path) -> Path:
    write_series(path, name="a{:03d}.dcm")
    return write_series(path, name="b{:03d}.dcm")


@bad("misses 1 slice between 004.dcm and 006.dcm")
def missing_slice(path: Path) -> Path:
    (write_series(path) / "005.dcm").unlink()
    return path


@bad("misses 3 slices between 001.dcm and 005.dcm")
def missing_slices(path: Path) -> Path:
    for number in (2, 3, 4):
        (write_series(path) if number == 2 else path).joinpath(f"{number:03d}.dcm").unlink()
    return path


@bad("two slices at one position, 003.dcm and 003 copy.dcm|003 copy.dcm and 003.dcm")
def copied_slice(path: Path) -> Path:
    shutil.copy(write_series(path) / "003.dcm", path / "003 copy.dcm")
    return path


@bad("two slices at one position")
def acquired_twice(path: Path) -> Path:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-40, -30, 100 + 5 * (number // 2)]

    return write_series(path, edit=edit)


@bad("slices 5 to 7.5 mm apart")
def mixed_slice_spacing(path: Path) -> Path:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-40, -30, 100 + 5 * number + 2.5 * max(0, number - 6)]

    return write_series(path, edit=edit)


@bad("different PixelSpacing: .*002.dcm")
def mixed_pixel_spacing(path: Path) -> Path:
    return write_series(path, edit=put(PixelSpacing=[1, 1]))


@bad("different ImageOrientationPatient")
def mixed_orientation(path: Path) -> Path:
    return write_series(path, edit=put(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))


@bad("different size")
def mixed_size(path: Path) -> Path:
    write_series(path, ct_phantom()[0][:, :, :6])
    first = dcmread(path / "000.dcm")

    def edit(dataset: Dataset, number: int) -> None:
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = first.SeriesInstanceUID, first.FrameOfReferenceUID

    return write_series(path, ct_phantom((32, 40, 6))[0], origin=(-40, -30, 130), edit=edit, name="b{:03d}.dcm")


@bad("two frames of reference")
def two_frames_of_reference(path: Path) -> Path:
    return write_series(path, edit=put(FrameOfReferenceUID="1.2.3"))


@bad("gantry tilted by 20.0 degrees.*dcm2niix")
def gantry_tilt(path: Path) -> Path:
    def edit(dataset: Dataset, number: int) -> None:
        shift = 5 * number * np.tan(np.radians(20))
        dataset.ImagePositionPatient = [-40, round(-30 + shift, 4), 100 + 5 * number]
        dataset.GantryDetectorTilt = 20

    return write_series(path, edit=edit)


@bad("multi-frame object .Enhanced CT Image Storage., which dcm2niix turns into NIfTI")
def enhanced_ct(path: Path) -> Path:
    return write_series(
        path, ct_phantom()[0][:, :, :1], edit=put_all(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=1)
    )


@bad("only Secondary Capture Image Storage; give the folder of a CT series")
def secondary_capture(path: Path) -> Path:
    return write_series(path, edit=put_all(SOPClassUID=SecondaryCaptureImageStorage))


@bad("only a localizer")
def localizer(path: Path) -> Path:
    return write_series(path, edit=put_all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))


@bad("only MR Image Storage")
def magnetic_resonance(path: Path) -> Path:
    return write_series(path, edit=put_all(SOPClassUID=MRImageStorage, Modality="MR"))


@bad("JPEG Lossless.*needs: pip install pylibjpeg pylibjpeg-libjpeg")
def no_decoder(path: Path) -> Path:
    write_series(path)
    for file in path.iterdir():
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset["PixelData"].is_undefined_length = True
        from pydicom.encaps import encapsulate

        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset.save_as(file)
    return path


@bad("transfer syntax .*1.2.3.4.*which nothing here decodes")
def private_transfer_syntax(path: Path) -> Path:
    write_series(path)
    for file in path.iterdir():
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = UID("1.2.3.4")
        dataset.save_as(file, implicit_vr=False, little_endian=True)
    return path


@bad("007.dcm is no DICOM file, or an encrypted one")
def encrypted_slice(path: Path) -> Path:
    (write_series(path) / "007.dcm").write_bytes(b"\x30\x82" + bytes(range(256)) * 8)
    return path


@bad("007.dcm is cut off: its pixels")
def truncated_slice(path: Path) -> Path:
    file = write_series(path) / "007.dcm"
    file.write_bytes(file.read_bytes()[:-700])
    return path


@bad("007.dcm is cut off in its header|007.dcm is damaged or cut off")
def slice_cut_in_its_header(path: Path) -> Path:
    file = write_series(path) / "007.dcm"
    file.write_bytes(file.read_bytes()[:200])
    return path


@bad("007.dcm is empty .0 bytes.")
def empty_slice(path: Path) -> Path:
    (write_series(path) / "007.dcm").write_bytes(b"")
    return path


@bad("002.dcm is cut off: its pixels are missing")
def slice_without_pixels(path: Path) -> Path:
    def edit(dataset: Dataset, number: int) -> None:
        if number == 2:
            del dataset.PixelData

    return write_series(path, edit=edit)


@bad("RescaleIntercept must be 1 numbers, not missing, so its values are no Hounsfield units")
def no_rescale_intercept(path: Path) -> Path:
    def edit(dataset: Dataset, number: int) -> None:
        del dataset.RescaleIntercept

    return write_series(path, edit=edit)


@bad("RescaleSlope must not be 0")
def rescale_slope_of_zero(path: Path) -> Path:
    return write_series(path, edit=put(RescaleSlope=0))


@bad("RescaleSlope must be finite, not .nan.")
def rescale_slope_nan(path: Path) -> Path:
    raw(write_series(path, edit=put(RescaleSlope="1.00")) / "002.dcm", b"DS\x04\x001.00", b"DS\x04\x00nan ")
    return path


@bad("ImagePositionPatient must be finite, not .*inf")
def position_infinite(path: Path) -> Path:
    raw(write_series(path, edit=put(ImagePositionPatient=["7777", "-30", "110"])) / "002.dcm", b"7777", b"inf ")
    return path


@bad("PixelSpacing must be numbers")
def spacing_in_words(path: Path) -> Path:
    raw(write_series(path, edit=put_all(PixelSpacing=["1.75", "2.25"])) / "002.dcm", b"1.75\\2.25", b"wide\\2.25")
    return path


@bad("PixelSpacing must be positive")
def spacing_of_zero(path: Path) -> Path:
    return write_series(path, edit=put_all(PixelSpacing=[0, 0]))


@bad("002.dcm: ImagePositionPatient must be 3 numbers, not missing")
def no_position(path: Path) -> Path:
    return write_series(path, edit=put(ImagePositionPatient=None))


@bad("ImageOrientationPatient must be two perpendicular unit vectors")
def orientation_of_zeros(path: Path) -> Path:
    return write_series(path, edit=put_all(ImageOrientationPatient=[0] * 6))


@bad("must hold grey values .MONOCHROME2., not MONOCHROME1")
def inverted_grey(path: Path) -> Path:
    return write_series(path, edit=put_all(PhotometricInterpretation="MONOCHROME1"))


@bad("must hold Hounsfield units, not MGML")
def iodine_map(path: Path) -> Path:
    return write_series(path, edit=put_all(RescaleType="MGML"))


@bad("one slice of the series")
def single_slice(path: Path) -> Path:
    return write_series(path, ct_phantom()[0][:, :, :1])


@bad("has the value -1024 everywhere")
def black_series(path: Path) -> Path:
    return write_series(path, np.full((8, 8, 3), -1024, np.int16))


@bad("is empty .0 bytes.")
def nifti_empty(path: Path) -> Path:
    file = path.with_suffix(".nii.gz")
    file.write_bytes(b"")
    return file


@bad("is damaged or cut off")
def nifti_cut(path: Path) -> Path:
    file = write_nifti(path.with_suffix(".nii.gz"))
    file.write_bytes(file.read_bytes()[:-3000])
    return file


@bad("is damaged or cut off")
def nifti_cut_uncompressed(path: Path) -> Path:
    file = write_nifti(path.with_suffix(".nii"))
    file.write_bytes(file.read_bytes()[:-3000])
    return file


@bad("is damaged or cut off")
def nifti_of_text(path: Path) -> Path:
    file = path.with_suffix(".nii.gz")
    file.write_bytes(gzip.compress(b"<html>404</html>" * 100))
    return file


@bad("is damaged or cut off")
def nifti_not_compressed(path: Path) -> Path:
    file = write_nifti(path.with_suffix(".nii"))
    return file.rename(path.with_suffix(".nii.gz"))


@bad("NaN or infinity at 1 voxels; put the value of air, -1024, there")
def nifti_nan(path: Path) -> Path:
    values = ct_phantom()[0].astype(np.float32)
    values[3, 4, 5] = np.nan
    return write_nifti(path.with_suffix(".nii.gz"), values)


@bad("NaN or infinity at 2 voxels")
def nifti_infinite(path: Path) -> Path:
    values = ct_phantom()[0].astype(np.float32)
    values[3, 4, 5:7] = np.inf
    return write_nifti(path.with_suffix(".nii.gz"), values)


@bad("affine that cannot be inverted")
def nifti_singular_affine(path: Path) -> Path:
    file = write_nifti(path.with_suffix(".nii"))
    image = nibabel.load(file, mmap=False)
    header = image.header.copy()
    header["srow_y"], header["sform_code"], header["qform_code"] = 0, 1, 0
    nibabel.Nifti1Image(np.asarray(image.dataobj), None, header).to_filename(file)
    return file


@bad("affine that cannot be inverted")
def nifti_nan_affine(path: Path) -> Path:
    file = write_nifti(path.with_suffix(".nii"))
    image = nibabel.load(file, mmap=False)
    header = image.header.copy()
    header["srow_x"], header["sform_code"] = np.nan, 1
    nibabel.Nifti1Image(np.asarray(image.dataobj), None, header).to_filename(file)
    return file


@bad("does not say how the patient lies")
def nifti_without_orientation(path: Path) -> Path:
    file = path.with_suffix(".nii.gz")
    nibabel.Nifti1Image(ct_phantom()[0], None).to_filename(file)
    return file


@bad("must have three dimensions, not 4 .*save one volume")
def nifti_of_four_dimensions(path: Path) -> Path:
    return write_nifti(path.with_suffix(".nii.gz"), np.stack([ct_phantom()[0]] * 2, -1))


@bad("must have three dimensions, not 2")
def nifti_of_two_dimensions(path: Path) -> Path:
    return write_nifti(path.with_suffix(".nii.gz"), ct_phantom()[0][:, :, 0])


@bad("must hold one number per voxel")
def nifti_in_colour(path: Path) -> Path:
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return write_nifti(path.with_suffix(".nii.gz"), colours)


@bad("has the value 0 everywhere")
def nifti_constant(path: Path) -> Path:
    return write_nifti(path.with_suffix(".nii.gz"), np.zeros((8, 8, 4), np.int16))
