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

"""Small files in the layouts of the sources that the base is trained on."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def save_volume(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0])), path)


def write_sources(root: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (48, 64, 3))
    mask = np.zeros((48, 64))
    mask[10:30, 20:40] = 255
    for name in ("01_h", "02_dr"):
        save(root / "hrf" / "images" / f"{name}.jpg", picture)
        save(root / "hrf" / "mask" / f"{name}.tif", mask)
    for number in range(1, 10):
        save(root / "idrid_disc" / "images" / f"IDRiD_{number:02}.jpg", picture)
        save(root / "idrid_disc" / "masks" / f"IDRiD_{number:02}_OD.tif", mask > 0)
    for number in range(61):
        folder = root / "dsb2018_stained" / f"{number:064x}"
        save(folder / "images" / f"{number:064x}.png", picture)
        save(folder / "masks" / "a.png", mask)
        save(folder / "masks" / "b.png", np.roll(mask, 25, 1))
    volume = rng.integers(-200, 300, (32, 32, 4))
    label = np.zeros_like(volume)
    label[5:20, 8:20, 1:3] = 1
    save_volume(root / "msd_spleen" / "imagesTr" / "spleen_8.nii.gz", volume)
    save_volume(root / "msd_spleen" / "labelsTr" / "spleen_8.nii.gz", label)
    save_volume(root / "totalsegmentator_ct" / "example_ct_sm.nii.gz", volume)
    save_volume(root / "totalsegmentator_ct" / "example_seg.nii.gz", label * 7)
