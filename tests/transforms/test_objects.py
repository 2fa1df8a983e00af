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
from PIL import Image

from monai_ext.data import PhotographReader
from monai_ext.transforms import DrawScene, LoadInstancesd, ObjectMasksd, RandObjectCropd

KEYS = ["image", "label"]


def item(height: int = 90, width: int = 120) -> dict[str, torch.Tensor]:
    """A picture whose red is the number of the object: where the mask is, the picture must say so."""
    label = torch.zeros(1, height, width, dtype=torch.int32)
    label[0, 20:40, 30:70] = 3
    label[0, 60:70, 90:100] = 5
    label[0, 5:9, 5:9] = 8
    return {"image": label.float().repeat(3, 1, 1) + 10, "label": label}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    size=st.sampled_from([48, 64, 96]),
    objects=st.integers(1, 5),
    decoys=st.sampled_from([0.0, 0.5, 1.0]),
    zoom=st.sampled_from([(0.5, 1.0), (1.0, 4.0), (2.0, 2.0)]),
)
def test_masks_lie_on_the_objects(seed: int, size: int, objects: int, decoys: float, zoom: tuple[float, float]) -> None:
    crop = RandObjectCropd(keys=KEYS, size=size, objects=objects, decoys=decoys, zoom=zoom, seed=seed)
    out = crop(item())
    assert out["image"].shape == (3, size, size) and out["label"].shape == (objects, size, size)
    assert set(out["label"].unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert out["label"][0].sum() >= crop.smallest
    for mask in out["label"]:
        seen = out["image"][0][mask != 0]
        if mask.min() < 0:  # a decoy lies on plain ground, but for the blurred edges, or outside the picture
            assert decoys > 0 and bool(((seen < 10.01) | (seen % 1 > 0)).all())
        else:
            assert min(abs(seen.max().item() - number) for number in (13, 15, 18)) < 0.1
    again = RandObjectCropd(keys=KEYS, size=size, objects=objects, decoys=decoys, zoom=zoom, seed=seed)(item())
    assert all(torch.equal(out[key], again[key]) for key in KEYS)


@pytest.mark.parametrize("extent", [0.2, 0.6])
def test_the_object_takes_its_part_of_the_square(extent: float) -> None:
    label = torch.zeros(1, 200, 200, dtype=torch.int32)
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    label[0, (rows - 100) ** 2 + (columns - 80) ** 2 <= 30**2] = 1
    crop = RandObjectCropd(keys=KEYS, size=128, objects=1, extent=(extent, extent))
    for _ in range(5):
        mask = crop({"image": torch.zeros(3, 200, 200), "label": label})["label"][0]
        side = int(mask.any(0).sum())
        assert side == pytest.approx(extent * 128, abs=4)
        assert mask.sum() == pytest.approx(np.pi / 4 * side**2, rel=0.1)  # shown whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": "image"}, "keys must be two"),
        ({"extent": (0.5, 0.1)}, "extent must be"),
        ({"zoom": (0, 1)}, "zoom must be"),
        ({"decoys": 2}, "decoys must be"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandObjectCropd(**{"keys": KEYS, "size": 32, **arguments})


def test_a_map_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="'label' must show an object"):
        RandObjectCropd(keys=KEYS, size=32)({"image": torch.zeros(3, 40, 40), "label": torch.zeros(1, 40, 40)})


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), size=st.sampled_from([32, 65, 128]))
def test_scenes(seed: int, size: int) -> None:
    scene, again = (DrawScene(size=size, seed=seed)(None) for _ in range(2))
    assert scene["image"].shape == (3, size, size) and scene["label"].shape == (1, size, size)
    assert scene["image"].min() >= 0 and scene["image"].max() <= 1 and scene["image"].std() > 0
    assert scene["label"].any() and scene["label"].min() >= 0
    assert all(torch.equal(scene[key], again[key]) for key in KEYS)


def test_scenes_go_on() -> None:
    draw = DrawScene(size=64)
    assert not torch.equal(draw(None)["image"], draw(None)["image"])
    with pytest.raises(ValueError, match="at least 32"):
        DrawScene(size=31)


def write_masks(folder: Path, masks: list[np.ndarray]) -> list[str]:
    paths = [folder / f"{number}.png" for number in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return [str(path) for path in paths]


def test_instances_become_one_map_and_masks_again(tmp_path: Path) -> None:
    masks = [np.zeros((6, 8), bool) for _ in range(3)]
    masks[0][1:3, 1:4] = masks[1][4:6, 5:8] = masks[2][0, 0] = True
    load = LoadInstancesd(keys="label", reader=PhotographReader(channels=1))
    loaded = load({"label": write_masks(tmp_path, masks)})
    label = loaded["label"].permute(0, 2, 1)
    assert label.dtype == torch.int32 and label.shape == (1, 6, 8)
    separate = ObjectMasksd(keys="label")({"label": label})["label"]
    assert np.array_equal(separate.numpy() > 0, np.stack(masks))
    assert len(ObjectMasksd(keys="label", smallest=2)({"label": label})["label"]) == 2
    with pytest.raises(ValueError, match="at least 7 pixels"):
        ObjectMasksd(keys="label", smallest=7)({"label": label})
    with pytest.raises(ValueError, match=r"\(1, H, W\), not \(2, 3, 3\)"):
        ObjectMasksd(keys="label")({"label": torch.zeros(2, 3, 3)})


def test_instances_of_other_sizes_are_refused(tmp_path: Path) -> None:
    files = write_masks(tmp_path, [np.ones((6, 8), bool), np.ones((6, 9), bool)])
    load = LoadInstancesd(keys="label", reader=PhotographReader(channels=1))
    with pytest.raises(ValueError, match="1.png must have the size"):
        load({"label": files})
    with pytest.raises(ValueError, match="at least one mask file"):
        load({"label": []})
