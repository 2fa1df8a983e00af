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

"""Clicks on a slice of a volume, without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "data"))
from ct_phantoms import ct_phantom, write_nifti

from monai_ext.label.app.slice_clicks import SliceClickTask
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.shelf import ModelShelf

SHAPE = (128, 96, 12)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SliceClickTask:
    folder = tmp_path_factory.mktemp("slices")
    shelf = ModelShelf(bundles=folder, state=folder / "state")
    return SliceClickTask(shelf.clicks["sam2_micro"], folder / "pictures")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nifti(tmp_path_factory.mktemp("volume") / "ct.nii.gz", ct_phantom(SHAPE)[0])


def test_the_clicked_slice_is_segmented_in_the_grid_of_the_volume(task: SliceClickTask, volume: Path) -> None:
    spleen = ct_phantom(SHAPE)[1]
    column, row = np.argwhere(spleen[:, :, 6]).mean(0).round().astype(int).tolist()
    path, answer = task({"image": str(volume), "foreground": [[column, row, 6]]})
    given = nibabel.load(path)
    np.testing.assert_allclose(given.affine, nibabel.load(volume).affine)
    mask = np.asarray(given.dataobj) > 0
    assert mask.shape == SHAPE and mask.any((0, 1)).nonzero()[0].tolist() == [6]
    assert (mask & spleen)[:, :, 6].sum() / (mask | spleen)[:, :, 6].sum() > 0.7
    assert answer["pixels"] == mask.sum()


@pytest.mark.parametrize(
    ("clicks", "sentence"),
    [
        ([[5, 5]], "one slice"),
        ([[5, 5, 1], [5, 5, 2]], "one slice"),
        ([[5, 5, 12]], "0 to 11, not 12"),
        ([[5, 5, 1.5]], "not 1.5"),
        ([[500, 5, 1]], "128 wide and 96 high"),
        ("five", "one slice"),
    ],
)
def test_clicks_that_are_none_are_refused(task: SliceClickTask, volume: Path, clicks: object, sentence: str) -> None:
    with pytest.raises(RequestRefused, match=sentence):
        task({"image": str(volume), "foreground": clicks})


def test_a_damaged_volume_is_refused(task: SliceClickTask, tmp_path: Path) -> None:
    (tmp_path / "cut.nii.gz").write_bytes(b"no volume")
    with pytest.raises(RequestRefused, match=r"^cut.nii.gz"):
        task({"image": str(tmp_path / "cut.nii.gz"), "foreground": [[1, 1, 1]]})
