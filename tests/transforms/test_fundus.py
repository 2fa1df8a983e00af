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
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image

from monai_ext.transforms import FieldOfView, FieldOfViewd, FundusForeground, field_of_view


def disc(height: int, width: int, radius: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (((y - height / 2) ** 2 + (x - width / 2) ** 2) <= radius**2)[None]


def photograph(mask: torch.Tensor, brightness: float = 0.8) -> torch.Tensor:
    """A bright disc with dark vessels in a dim, noisy surround."""
    image = mask * torch.tensor([1.0, 0.5, 0.2])[:, None, None] * brightness
    image[:, :: mask.shape[1] // 4] *= 0.3
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    return image + 0.03 * brightness * noise


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(100, 200),
    width=st.integers(100, 200),
    radius=st.integers(35, 60),
    brightness=st.floats(0.05, 255),
)
def test_disc_is_found_at_any_size_and_brightness(height: int, width: int, radius: int, brightness: float) -> None:
    truth = disc(height, width, radius)
    mask = field_of_view(photograph(truth, brightness))
    assert mask.shape == (1, height, width)
    assert mask.dtype == torch.bool
    assert dice(mask, truth) > 0.95


def test_large_image_is_found_at_full_size() -> None:
    truth = disc(1200, 1800, 580)
    assert dice(field_of_view(photograph(truth)), truth) > 0.99


def test_writing_beside_the_disc_and_holes_in_it_do_not_matter() -> None:
    truth = disc(200, 300, 90)
    image = photograph(truth)
    image[:, 5:12, 5:40] = 1
    image[:, 90:110, 140:160] = 0
    mask = field_of_view(image)
    assert not mask[0, 8, 20]
    assert mask[0, 100, 150]
    assert dice(mask, truth) > 0.98


@pytest.mark.parametrize("value", [0.0, 0.5, float("nan")])
def test_image_without_surround_is_all_field_of_view(value: float) -> None:
    assert field_of_view(torch.full((3, 40, 50), value)).all()


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 30), (3, 700, 1)])
def test_odd_shapes(shape: tuple[int, int, int]) -> None:
    assert field_of_view(torch.ones(shape)).shape == (1, *shape[1:])


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image must be \(C, H, W\), not \(8, 8\)"):
        field_of_view(torch.ones(8, 8))


def test_transform_keeps_array_type_and_metadata() -> None:
    image = photograph(disc(60, 80, 25))
    plain, array = FieldOfView()(image), FieldOfView()(image.numpy())
    assert isinstance(array, np.ndarray)
    assert array.dtype == bool
    assert torch.equal(plain, torch.from_numpy(array))
    kept = FieldOfView()(MetaTensor(image, meta={"filename_or_obj": "eye.png"}))
    assert kept.meta["filename_or_obj"] == "eye.png"


def test_given_mask_goes_before_the_detected_one() -> None:
    image = photograph(disc(60, 80, 25))
    loaded = np.zeros((3, 60, 80), dtype=np.float32)
    loaded[0, 10:20] = 255
    transform = FieldOfViewd(keys="image", fov_key="fov")
    mask = transform({"image": image, "fov": loaded})["fov"]
    assert mask.dtype == bool
    assert mask.shape == (1, 60, 80)
    assert mask.sum() == 10 * 80
    for absent in ({}, {"fov": None}, {"fov": "fov/eye.gif"}):
        item = {"image": image, **absent}
        assert torch.equal(transform(item)["fov"], field_of_view(image))
        assert item.get("fov") == absent.get("fov")


def test_given_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'fov' must be .*\(60, 80\), not \(1, 80, 60\)"):
        FieldOfViewd(keys="image")({"image": torch.ones(3, 60, 80), "fov": torch.ones(1, 80, 60)})


def test_one_key_only() -> None:
    with pytest.raises(ValueError, match="keys must be one key"):
        FieldOfViewd(keys=["image", "label"])


def test_foreground_undoes_the_normalisation() -> None:
    images = torch.stack([photograph(disc(64, 96, radius)) for radius in (20, 30)])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean[:, None, None]) / std[:, None, None]
    masks = FundusForeground()(normalised)
    assert torch.equal(masks, torch.stack([field_of_view(image) for image in images]))
    other = FundusForeground(mean=[0.5] * 3, std=[0.5] * 3)((images - 0.5) / 0.5)
    assert torch.equal(other, masks)


def test_named_in_json() -> None:
    config = {
        "transform": {"_target_": "monai_ext.transforms.FieldOfViewd", "keys": "image", "fov_key": "fov"},
        "foreground": {"_target_": "monai_ext.transforms.FundusForeground"},
    }
    parser = ConfigParser(config)
    assert parser.get_parsed_content("transform")({"image": torch.ones(3, 8, 8)})["fov"].all()
    assert isinstance(parser.get_parsed_content("foreground"), FundusForeground)


def test_agrees_with_the_published_masks_of_chase_db1(shared_data: Path) -> None:
    for fov in sorted((shared_data / "chase_db1" / "fov").glob("*.gif")):
        (path,) = (shared_data / "chase_db1").glob(f"*/images/{fov.stem}.jpg")
        image = read(path)
        assert dice(field_of_view(image), read(fov).amax(0, keepdim=True) > 0.5) > 0.99, fov.name
        assert field_of_view(image[:, 300:600, 300:600]).all(), f"{path.name}: a part of the retina has no surround"


def test_hrf_images_are_wide_discs_cut_above_and_below(shared_data: Path) -> None:
    image = read(shared_data / "hrf" / "images" / "01_dr.jpg")
    mask = field_of_view(image)[0]
    assert 0.83 < mask.float().mean() < 0.86
    assert mask[mask.shape[0] // 2, 200:-200].all()
    assert not mask[::2335, ::3503].any()
