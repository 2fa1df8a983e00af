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

"""Where public sets of X-ray images, as they are distributed, keep their images and masks."""

from __future__ import annotations

from monai_ext.data.masks import ChestXDetMask
from monai_ext.data.path_layout import PathLayout

CHESTXDET = PathLayout(
    image=r"(?:.*/)?(train|test)(?:_data)?/(\d+)\.png",
    labels=(r"(?:.*/)?ChestX_Det_(train|test)\.json",),
    masks=ChestXDetMask(
        labels=[
            "Atelectasis",
            "Calcification",
            "Cardiomegaly",
            "Consolidation",
            "Diffuse Nodule",
            "Effusion",
            "Emphysema",
            "Fibrosis",
            "Fracture",
            "Mass",
            "Nodule",
            "Pleural Thickening",
            "Pneumothorax",
        ]
    ),
    looks_for="train/ and test/ with images as 36346.png, and ChestX_Det_train.json and ChestX_Det_test.json",
    subject=r"(\d+)\.png",
    splits={"training": r"(^|/)train(_data)?/\d+\.png", "test": r"(^|/)test(_data)?/\d+\.png"},
    split="official; persons are not told and may cross it, so each image counts as one",
    source="Lian et al., IEEE Transactions on Medical Imaging 40(8), 2021",
    page="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
    licence="Apache-2.0",
)
