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

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ext.data.phantom import write_phantoms, write_retina

KINDS = ("images", "masks", "fov")


def _load(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, mask, view = (np.asarray(Image.open(folder / kind / name)) for kind in KINDS)
    return image, mask, view


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, count=6, size=256)
    return folder


NAMES = [f"phantom_00{subject}{eye}.png" for subject in range(3) for eye in "LR"]


def test_files_are_paired_by_name_and_said_to_be_synthetic(phantoms: Path) -> None:
    for kind in KINDS:
        assert sorted(path.name for path in (phantoms / kind).iterdir()) == NAMES
    assert "synthetic" in (phantoms / "README.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_is_a_fundus_photograph_with_an_exact_mask(phantoms: Path, name: str) -> None:
    image, mask, view = _load(phantoms, name)
    assert image.shape == (256, 256, 3) and mask.shape == view.shape == (256, 256)
    assert set(np.unique(mask)) == set(np.unique(view)) == {0, 255}
    vessel, inside = mask > 0, view > 0
    assert not (vessel & ~inside).any()
    assert 0.05 < vessel.sum() / inside.sum() < 0.2
    assert image[~inside].max() < 10  # the black surround
    red, green, blue = image[inside].mean(0)
    assert red > green > blue
    # Vessels are darker than what surrounds them, which blood shows most in green.
    green = image[..., 1].astype(float)
    assert green[vessel].mean() < 0.93 * green[inside & ~vessel].mean()


def test_thick_vessels_are_where_the_mask_says(phantoms: Path) -> None:
    """Moved by a few pixels, the mask fits worse: the picture and the mask are one geometry."""
    for name in NAMES:
        image, mask, view = _load(phantoms, name)
        inside, green = view > 0, image[..., 1].astype(float)
        offsets = [(0, 0), (4, 0), (-4, 0), (0, 4), (0, -4)]
        means = [green[np.roll(mask, offset, (0, 1)).astype(bool) & inside].mean() for offset in offsets]
        assert means[0] == min(means)


def test_left_and_right_eyes_have_their_disc_on_opposite_sides(phantoms: Path) -> None:
    for name in NAMES:
        image, _, view = _load(phantoms, name)
        bright = np.where(view > 0, image[..., 2], 0)  # the disc is the only pale thing of its size
        columns = np.nonzero(bright >= np.percentile(bright[view > 0], 99))[1]
        assert bool(np.median(columns) < 128) is ("L" in name)


def test_same_seed_same_pixels_whatever_the_count(phantoms: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "again", count=2, size=256)
    write_phantoms(tmp_path / "other", count=2, size=256, seed=1)
    for name in NAMES[:2]:
        for kind in KINDS:
            assert (tmp_path / "again" / kind / name).read_bytes() == (phantoms / kind / name).read_bytes()
        assert (_load(tmp_path / "other", name)[1] != _load(phantoms, name)[1]).any()


def test_the_global_random_state_is_neither_used_nor_changed(tmp_path: Path) -> None:
    before = np.random.get_state()[1].copy()
    write_phantoms(tmp_path, count=1, size=64)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("options", [{"count": 0}, {"size": 63}])
def test_bad_arguments_are_named(tmp_path: Path, options: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least"):
        write_phantoms(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_the_retina_photograph_comes_from_the_installed_package(tmp_path: Path) -> None:
    path = write_retina(tmp_path / "photographs")
    assert path == tmp_path / "photographs" / "retina.jpg"
    assert Image.open(path).size == (1411, 1411)


def test_a_missing_retina_photograph_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ext.data.phantom.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="scikit-image"):
        write_retina(tmp_path / "new")
    assert not (tmp_path / "new").exists()
