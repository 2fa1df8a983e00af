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
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_ext.data import PhotographReader
from monai_ext.transforms import CheckSizesd


def test_another_size_is_told_with_both_names_in_width_and_height(tmp_path: Path) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    Image.fromarray(np.eye(8, 12, dtype=np.uint8)).save(image)
    Image.fromarray(np.eye(12, 8, dtype=np.uint8)).save(mask)
    keys = ["image", "label"]
    load = LoadImaged(keys, reader=PhotographReader(), ensure_channel_first=True)
    with pytest.raises(RuntimeError) as error:
        Compose([load, CheckSizesd(keys)])({"image": image, "label": mask})
    assert str(error.value.__cause__).startswith(
        f"{image} and its label {mask} differ in size: 12x8 against 8x12; export the label again"
    )


def test_what_fits_passes_unchanged_whatever_its_channels() -> None:
    item = {"image": torch.zeros(3, 4, 5), "label": torch.zeros(2, 4, 5), "name": "a"}
    assert CheckSizesd(["image", "label"])(item) == item
    assert CheckSizesd(["image", "fov"], allow_missing_keys=True)(item) == item
