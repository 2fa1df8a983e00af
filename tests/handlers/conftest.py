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

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    EnsureTyped,
    LoadImaged,
    ScaleIntensityRanged,
)
from PIL import Image


class ColourNetwork(torch.nn.Module):
    """The probability of label number c is colour channel c of the photograph."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.logit(image[:, : self.labels], eps=1e-6)


@pytest.fixture
def make_evaluator(tmp_path: Path) -> Callable[..., SupervisedEvaluator]:
    """
    Make an evaluator over image files; each case is name, chances and truth `(L, H, W)`, perhaps a field of view.

    The case's photograph holds the chances (see :class:`ColourNetwork`), so the prediction is known.
    """

    def make(cases: Sequence[dict[str, Any]], handlers: Sequence[Any], batch_size: int = 1) -> SupervisedEvaluator:
        items = []
        for case in cases:
            chances = np.asarray(case["chances"], np.float64)
            photograph = np.zeros((*chances.shape[1:], 3), np.uint8)
            photograph[..., : len(chances)] = np.moveaxis(np.round(chances * 255), 0, -1)
            path = tmp_path / "images" / case["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph).save(path)
            masks = {key: np.asarray(case[key]).swapaxes(-1, -2).copy() for key in ("label", "fov") if key in case}
            items.append({"image": str(path), **masks})
        transform = Compose(
            [
                LoadImaged("image", ensure_channel_first=True),
                ScaleIntensityRanged("image", 0, 255, 0, 1),
                EnsureTyped(["label", "fov"], dtype=torch.float32, allow_missing_keys=True),
            ]
        )
        return SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(items, transform), batch_size=batch_size),
            network=ColourNetwork(len(cases[0]["chances"])),
            postprocessing=Compose(
                [
                    Activationsd("pred", sigmoid=True),
                    CopyItemsd("pred", names="probability"),
                    AsDiscreted("pred", threshold=0.5),
                ]
            ),
            val_handlers=handlers,
        )

    return make
