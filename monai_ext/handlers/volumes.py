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

import gzip
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from monai.utils import convert_to_tensor

from monai_ext.data.atomic import atomic_path
from monai_ext.data.dicom_segmentation import write_dicom_segmentation
from monai_ext.data.dicom_series import DicomSeries
from monai_ext.data.nifti import is_nifti
from monai_ext.data.rtstruct import write_rtstruct
from monai_ext.handlers.overlay import IMAGENET_MEAN, IMAGENET_STD, draw_overlay
from monai_ext.handlers.table_writer import RunImages, TableWriter
from monai_ext.handlers.utils import item_value, upright, write_picture

_SLICES_SHOWN = 3


class VolumeWriter(TableWriter):
    """
    Write what inference found in volumes: for each a mask on its own grid, an overlay and rows in ``results.csv``.

    - ``<name>_mask.nii.gz``, 8 bit: 0 is none, 1, 2, ... are the labels in order, a later one over an earlier one. Its
      shape and affine are the input's; a NIfTI input gives its header, too.
    - ``<name>_seg.dcm``, DICOM Segmentation, and ``<name>_rtstruct.dcm``, contours, both for DICOM input if asked for.
      They refer to the slices, and labels may overlap.
    - ``<name>_overlay.jpg``, three axial slices of where something was found.
    - ``results.csv``, one row per volume and label with the volume in ml, rewritten after each volume.

    Args:
        output_dir: folder of all files; made if missing.
        labels: names of the channels.
        dicom_segmentation: whether a DICOM input gets a DICOM Segmentation; needs highdicom.
        rtstruct: whether a DICOM input gets an RT Structure Set.
        overlay: whether to draw overlays.
        images: is told by ``add_failure(path, reason)`` of a volume whose files could not be written, while the rest
            goes on; without it the error ends the run.
        image_key: item with the image as the network sees it, put back to the input's grid.
        pred_key: item with the predicted masks, put back to the input's grid (``Invertd``).

    Shape:
        `(C, X, Y, Z)` each, as MONAI's reader gives them; masks are 0 or 1.

    Raises:
        ValueError: at construction, labels cannot be used; later, an item has another number of channels or another
            grid than its file.
        ImportError: at construction, highdicom is asked for and not installed.
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> VolumeWriter(output_dir="out", labels=["spleen"]).table_path.as_posix()
        'out/results.csv'
    """

    columns = (
        *("image", "label", "voxels", "volume_ml", "spacing_mm"),
        *("mask", "dicom_segmentation", "rtstruct", "overlay"),
    )

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        labels: Sequence[str],
        dicom_segmentation: bool = False,
        rtstruct: bool = False,
        overlay: bool = True,
        images: RunImages | None = None,
        image_key: str = "image",
        pred_key: str = "pred",
    ) -> None:
        if isinstance(labels, str) or not 0 < len(labels) < 256:
            raise ValueError(f"labels must be a list of 1 to 255 names, not {labels!r}.")
        if dicom_segmentation and find_spec("highdicom") is None:
            raise ImportError('dicom_segmentation needs highdicom: pip install "monai_ext[dicom]"')
        super().__init__(Path(output_dir) / "results.csv", images)
        self.labels = list(labels)
        self.dicom_segmentation, self.rtstruct, self.overlay = dicom_segmentation, rtstruct, overlay
        self.image_key, self.pred_key = image_key, pred_key

    def write_image(self, path: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        grid = _source_grid(path, item[self.image_key].meta.get("series"))
        masks = item_value(item, self.pred_key).numpy() > 0.5
        self._check(path, masks, item[self.pred_key], grid)
        name = self.name_of(path)
        files: dict[str, str | None] = dict.fromkeys(self.columns[5:])
        files["mask"] = f"{name}_mask.nii.gz"
        _write_nifti(self.output_dir / f"{name}_mask.nii.gz", masks, grid)
        if grid.series is not None and self.dicom_segmentation:
            files["dicom_segmentation"] = f"{name}_seg.dcm"
            write_dicom_segmentation(self.output_dir / f"{name}_seg.dcm", masks, grid.series, self.labels)
        if grid.series is not None and self.rtstruct:
            files["rtstruct"] = f"{name}_rtstruct.dcm"
            write_rtstruct(self.output_dir / f"{name}_rtstruct.dcm", masks, grid.series, self.labels)
        if self.overlay:
            files["overlay"] = f"{name}_overlay.jpg"
            picture = axial_overlay(item_value(item, self.image_key)[:1], torch.from_numpy(masks), grid.affine)
            write_picture(self.output_dir / f"{name}_overlay.jpg", picture)
        millilitres = abs(np.linalg.det(grid.affine[:3, :3])) / 1000
        spacing = " x ".join(f"{side:g}" for side in np.linalg.norm(grid.affine[:3, :3], axis=0).round(4))
        return [
            {
                "image": path,
                "label": label,
                "voxels": int(mask.sum()),
                "volume_ml": round(float(mask.sum() * millilitres), 4),
                "spacing_mm": spacing,
                **files,
            }
            for label, mask in zip(self.labels, masks, strict=True)
        ]

    def name_of(self, path: str) -> str:
        # Without the two suffixes of .nii.gz.
        return super().name_of(str(Path(path).with_name(volume_name(path) + ".volume")))

    def _check(self, path: str, masks: np.ndarray, pred: Any, grid: _Grid) -> None:
        expected = (len(self.labels), *grid.shape)
        if masks.shape != expected:
            raise ValueError(
                f"{path}: {self.pred_key!r} must have {len(self.labels)} channels on the grid of its file, {expected}, "
                f"not {masks.shape}: undo the preprocessing by Invertd."
            )
        if isinstance(pred, MetaTensor) and not np.allclose(pred.affine.numpy(), grid.affine, atol=1e-3):
            raise ValueError(
                f"{path}: {self.pred_key!r} must have the affine of its file, {grid.affine.round(3).tolist()}, not "
                f"{pred.affine.numpy().round(3).tolist()}: undo the preprocessing by Invertd."
            )


class _Grid(NamedTuple):
    shape: tuple[int, ...]
    affine: np.ndarray
    header: Any = None
    series: DicomSeries | None = None


def volume_name(path: str) -> str:
    """
    Return what files made from a volume are called: its name without the suffix of NIfTI or DICOM.

    Example:
        >>> volume_name("a/case 1.nii.gz"), volume_name("a/CT.1.2.3"), volume_name("a/slice.dcm")
        ('case 1', 'CT.1.2.3', 'slice')
    """
    name = Path(path).name
    suffix = next((end for end in (".nii.gz", ".nii", ".dcm") if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)]


def axial_overlay(image: torch.Tensor, masks: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """
    Draw masks on three axial slices, side by side as radiologists look at them: the patient's right is on the left.

    Args:
        image: one channel, normalised as the network wants it.
        masks: 0 or 1.
        affine: from voxels to millimetres, RAS.

    Shape:
        image `(1, X, Y, Z)`, masks `(C, X, Y, Z)` on any grid; the result `(H, W, 3)` uint8.

    Example:
        >>> axial_overlay(torch.zeros(1, 6, 5, 4), torch.ones(1, 6, 5, 4), np.eye(4)).shape
        (5, 18, 3)
    """
    turn = Orientation(axcodes="LPS", labels=None)
    grey, found = (
        convert_to_tensor(turn(MetaTensor(values, affine=torch.as_tensor(affine))), track_meta=False)
        for values in (image, masks)
    )
    depth = found.shape[-1]
    filled = np.flatnonzero((found > 0.5).flatten(0, 2).any(0).numpy())
    first, last = (filled[0], filled[-1]) if len(filled) else (0, depth - 1)
    steps = [(2 * step + 1) / (2 * _SLICES_SHOWN) for step in range(_SLICES_SHOWN)]
    places = [round(first + share * (last - first)) for share in steps]
    grey = (grey * IMAGENET_STD[0] + IMAGENET_MEAN[0]).clamp(0, 1)
    pictures = [draw_overlay(upright(grey[..., place]), upright(found[..., place])) for place in places]
    return np.concatenate(pictures, axis=1)


def _source_grid(path: str, series: str | None) -> _Grid:
    import nibabel

    if is_nifti(path):
        image: Any = nibabel.load(path)
        return _Grid(image.shape[:3], image.affine, image.header)
    found = DicomSeries(path, uid=series)
    first = found.headers()[0]
    return _Grid((first.Columns, first.Rows, len(found.files)), found.affine, series=found)


def _write_nifti(path: Path, masks: np.ndarray, grid: _Grid) -> None:
    import nibabel

    numbers = np.zeros(grid.shape, np.uint8)
    for number, mask in enumerate(masks, start=1):
        numbers[mask] = number
    image = nibabel.Nifti1Image(numbers, grid.affine, grid.header)
    image.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"], image.header["cal_max"] = 0, 0
    if grid.header is None:
        image.header.set_xyzt_units("mm")
        image.set_sform(grid.affine, code="scanner")
        image.set_qform(grid.affine, code="scanner")
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
