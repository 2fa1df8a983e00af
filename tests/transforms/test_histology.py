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

import numpy as np
import pytest
import torch
from monai.apps.pathology.transforms import ExtractHEStains
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from monai_ext.transforms import NormalizeStain, NormalizeStaind, RandStain, RandStaind, tissue_mask

# The reference of MONAI's normalisation: haematoxylin and eosin as columns, and their largest amounts.
STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
AMOUNTS = np.array([1.9705, 1.0308])


def stained(vectors: np.ndarray = STAINS, amounts: np.ndarray = AMOUNTS) -> torch.Tensor:
    """A piece of tissue whose stains are known."""
    rng = np.random.default_rng(0)
    mix = np.stack([rng.random(64 * 64), np.zeros(64 * 64)])
    mix[1] = 1 - mix[0]
    strength = rng.uniform(0.3, 1, 64 * 64)
    colours = 240 * np.exp(-vectors @ (mix * strength * amounts[:, None])) - 1
    return torch.from_numpy(colours.reshape(3, 64, 64).clip(0, 255) / 255).float()


def test_the_reference_stays_as_it_is() -> None:
    image = stained()
    assert (NormalizeStain()(image) - image).abs().mean() < 0.03


def test_stains_of_another_laboratory_become_the_references() -> None:
    other = np.array([[0.75, 0.12], [0.60, 0.95], [0.28, 0.28]])
    image = stained(other / np.linalg.norm(other, axis=0), AMOUNTS * 0.7)
    before, after = ((picture - stained()).abs().mean() for picture in (image, NormalizeStain()(image)))
    assert after < 0.03 < before / 2


def test_monai_takes_eosin_for_haematoxylin() -> None:
    """Why there is a component of ours; when this fails, MONAI's own can be used."""
    pixels = np.uint8(np.moveaxis(stained().numpy(), 0, -1) * 255)
    found = ExtractHEStains()(pixels)
    assert np.abs(found[:, ::-1] - STAINS).max() < 0.1 < np.abs(found - STAINS).max()


def test_normalisation_keeps_type_and_metadata() -> None:
    image = MetaTensor(stained(), meta={"filename_or_obj": "a.png"})
    normal = NormalizeStaind(keys="image")({"image": image})["image"]
    assert normal.meta["filename_or_obj"] == "a.png" and normal.dtype == torch.float32
    assert normal.min() >= 0 and normal.max() <= 1


def test_no_strength_changes_nothing() -> None:
    image = stained()
    assert (RandStain(prob=1, strength=0)(image) - image).abs().max() < 1e-3
    assert RandStain(prob=0, strength=1)(image).equal(image)


def test_stronger_is_further() -> None:
    image = stained()
    changes = []
    for strength in (0.02, 0.1, 0.3):
        transform = RandStain(prob=1, strength=strength).set_random_state(seed=3)
        changes.append(float((transform(image) - image).abs().mean()))
    assert 0 < changes[0] < changes[1] < changes[2]


def test_white_stays_nearly_white_and_all_stays_a_picture() -> None:
    image = torch.ones(3, 8, 8)
    for seed in range(20):
        changed = RandStain(prob=1, strength=0.2).set_random_state(seed=seed)(image)
        assert changed.shape == image.shape and changed.min() > 0.7 and changed.max() <= 1


def test_a_seed_gives_the_same_and_items_differ() -> None:
    one, two = (RandStaind(keys=["image"], prob=1).set_random_state(seed=5) for _ in range(2))
    first, second = one({"image": stained()})["image"], one({"image": stained()})["image"]
    assert first.equal(two({"image": stained()})["image"]) and not first.equal(second)


@pytest.mark.parametrize("image", [torch.zeros(1, 4, 4), torch.full((3, 4, 4), 2.0), torch.full((3, 4, 4), -1.0)])
@pytest.mark.parametrize("transform", [RandStain(prob=1), NormalizeStain()], ids=["rand", "normalize"])
def test_normalised_images_are_refused(transform: object, image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be RGB"):
        transform(image)  # type: ignore[operator]


def thumbnail(colour: tuple[float, float, float], glass: float = 0.93) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(1)
    tissue = gaussian_filter(rng.random((200, 300)), 12) > 0.505
    picture = np.where(tissue[..., None], np.array(colour), glass) + 0.01 * rng.standard_normal((200, 300, 3))
    return torch.from_numpy(np.moveaxis(picture, -1, 0)).float().clamp(0, 1), tissue


@pytest.mark.parametrize("colour", [(0.8, 0.5, 0.7), (0.45, 0.3, 0.55), (0.9, 0.75, 0.86), (0.6, 0.45, 0.3)])
@pytest.mark.parametrize("glass", [0.93, 0.8])
def test_tissue_is_found_in_any_stain(colour: tuple[float, float, float], glass: float) -> None:
    image, tissue = thumbnail(colour, glass)
    found = tissue_mask(image)[0].numpy()
    assert found[tissue].mean() > 0.999, "tissue would be skipped"
    assert found[~tissue].mean() < 0.25


def test_glass_dust_and_black_borders_are_no_tissue() -> None:
    image, _ = thumbnail((0.93, 0.93, 0.93))
    image[:, 50:52, 50:52] = torch.tensor([0.5, 0.1, 0.1]).reshape(3, 1, 1)
    image[:, :, :20] = 0.01
    assert not tissue_mask(image).any()


def test_tissue_needs_colours() -> None:
    with pytest.raises(ValueError, match=r"RGB \(3, H, W\), not \(1, 8, 8\)"):
        tissue_mask(torch.zeros(1, 8, 8))
