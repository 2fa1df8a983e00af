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


"""The parts of promptable training together, as a bundle will name them, on small files in the sources' layouts."""

from __future__ import annotations

from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from bundle_runs import ROOT, SHORT
from PIL import Image

from monai_ext.data import PretrainingData

CONFIG = ROOT / "bundles" / "sam2_micro_pretraining" / "configs" / "train.json"
COUNTS = {
    "hrf": 2,
    "idrid_disc": 8,
    "idrid_disc_validation": 1,
    "dsb2018_stained": 60,
    "dsb2018_stained_validation": 1,
    "msd_spleen": 1,
    "totalsegmentator_ct": 1,
}


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


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    write_sources(root)
    return root


def counts(data: PretrainingData) -> dict[str, int]:
    return {name: len(records) for name, records in vars(data).items() if isinstance(records, list)}


def test_every_source_is_found(sources: Path) -> None:
    assert counts(PretrainingData(root=sources)) == COUNTS


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("hrf", "hrf must hold images/01_h.jpg with mask/01_h.tif, but nothing of it was found"),
        ("idrid_disc/masks/IDRiD_03_OD.tif", "IDRiD_03_OD.tif is missing"),
        ("msd_spleen/labelsTr/spleen_8.nii.gz", "labelsTr/spleen_8.nii.gz is missing"),
        ("totalsegmentator_ct/example_ct_sm.nii.gz", "example_ct_sm.nii.gz with example_seg.nii.gz, but nothing"),
    ],
)
def test_what_is_missing_is_named(sources: Path, tmp_path: Path, lost: str, message: str) -> None:
    for file in (path for path in sources.rglob("*") if path.is_file()):
        relative = file.relative_to(sources)
        if not relative.as_posix().startswith(lost):
            (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / relative).symlink_to(file)
    with pytest.raises(FileNotFoundError, match=message):
        PretrainingData(root=tmp_path)


def test_the_real_sources(shared_data: Path) -> None:
    data = PretrainingData(root=shared_data)
    assert counts(data) == COUNTS | {"hrf": 15, "idrid_disc_validation": 4, "dsb2018_stained_validation": 19}
    assert not any("chase" in record["image"] for name in COUNTS for record in getattr(data, name))


def test_it_trains(sources: Path, tmp_path: Path) -> None:
    monai.bundle.run(
        "training",
        config_file=str(CONFIG),
        logging_file=False,
        dataset_dir=str(sources),
        output_dir=str(tmp_path),
        ckpt_dir=str(tmp_path),
        objects=2,
        rounds=2,
        nuclei_zoom=1,
        shares={"scenes": 0.4, "hrf": 0.2, "dsb2018_stained": 0.2, "msd_spleen": 0.2},
        **SHORT,
    )
    assert torch.load(tmp_path / "model.pt", weights_only=True)
    assert "val_click_iou" in (tmp_path / "curves.csv").read_text()
