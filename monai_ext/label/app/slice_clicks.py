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

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_ext.data.atomic import atomic_path
from monai_ext.data.nifti import is_nifti, read_nifti
from monai_ext.label.app.tasks import ClickTask, _result_file
from monai_ext.label.clicks import ClickSegmenter
from monai_ext.label.mask_files import result_suffix, write_mask
from monai_ext.label.prompts import ClickPrompts
from monai_ext.label.refusal import RequestRefused

SOFT_TISSUE = (-160.0, 240.0)  # Hounsfield units


class SliceClickTask(ClickTask):
    """
    Answers clicks on pictures, and on a slice of a volume as OHIF and 3D Slicer send them: column, row and slice.

    A slice becomes a picture, black to white over the window of soft tissue; what answers is a volume of the same
    grid, empty on all other slices.

    Args:
        segmenter: what is clicked with.
        folder: where the pictures of clicked slices are kept.
    """

    def __init__(self, segmenter: ClickSegmenter, folder: Path) -> None:
        super().__init__(segmenter)
        self.folder = folder

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        source = Path(request["image"])
        if not is_nifti(source):
            return super().__call__(request)
        began = time.monotonic()
        suffix = result_suffix(request.get("result_extension"), 3)
        try:
            values, affine = read_nifti(source)
        except ValueError as error:
            raise RequestRefused(str(error).replace(str(source), source.name)) from error
        number = _slice_of(request, values.shape)
        picture = self.folder / f"{self.segmenter.digests.digest(source)[:32]}-{number}.png"
        if not picture.is_file():
            with atomic_path(picture) as temporary:
                Image.fromarray(_grey(values[:, :, number]).T).save(temporary)
        prompts = ClickPrompts.from_request(request, values.shape[:2], self.segmenter.model.labels)
        mask = np.zeros(values.shape, np.uint8)
        mask[:, :, number] = self.segmenter.segment(picture, prompts).T
        path = _result_file(suffix)
        write_mask(mask, path, affine)
        name = request.get("label") or next(iter(self.labels), "object")
        return str(path), {
            "label_names": {name: 1},
            "pixels": int(mask.sum()),
            "latencies": {"total": round(time.monotonic() - began, 3)},
        }


def _slice_of(request: dict[str, Any], shape: tuple[int, ...]) -> int:
    """The one slice that all clicks are on."""
    clicks = [*(request.get("foreground") or []), *(request.get("background") or [])]
    numbers = {click[2] for click in clicks if isinstance(click, list) and len(click) == 3}
    if not numbers and isinstance(request.get("slice"), int):
        numbers = {request["slice"]}
    if len(shape) != 3 or len(numbers) != 1:
        raise RequestRefused("Clicks on a volume must be [column, row, slice], all on one slice.")
    (number,) = numbers
    if not isinstance(number, int) or not 0 <= number < shape[2]:
        raise RequestRefused(f"The volume has the slices 0 to {shape[2] - 1}, not {number}.")
    return number


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = SOFT_TISSUE
    return ((values.clip(low, high) - low) / (high - low) * 255).round().astype(np.uint8)
