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

"""Where public sets of ultrasound, as they are distributed, keep their images and masks."""

from __future__ import annotations

from monai_ext.data.masks import ValueMask
from monai_ext.data.path_layout import PathLayout

_ORGANS = {
    "liver": [(100, 0, 100)],
    "kidney": [(255, 255, 0)],
    "pancreas": [(0, 0, 255)],
    "vessels": [(255, 0, 0)],
    "adrenals": [(0, 255, 255)],
    "gallbladder": [(0, 255, 0)],
    "bones": [(255, 255, 255)],
    "spleen": [(255, 0, 255)],
}
# Some masks were smoothed when they were made smaller.
_MASKS = ValueMask(values=_ORGANS, others=[(0, 0, 0), (10, 10, 10)], between=0.05)
_PAPER = "Vitale et al., International Journal of Computer Assisted Radiology and Surgery 15, 2020"
_PAGE = "https://www.kaggle.com/datasets/ignaciorlando/ussimandsegm"

AUS = PathLayout(
    image=r"(?:.*/)?AUS/images/(train|test)/([^/]+)\.(?:png|jpg)",
    labels=(r"(?:.*/)?AUS/annotations/(train|test)/([^/]+)\.png",),
    masks=_MASKS,
    looks_for="AUS/images/train/ct1-1.png with AUS/annotations/train/ct1-1.png, and the same in test/",
    subject=r"([^/]+?)(?:-\d+)?\.[^./]+$",
    splits={"training": "AUS/images/train/", "test": "AUS/images/test/"},
    split="official; a person is the CT volume that the image was simulated from",
    source=f"{_PAPER}; simulated images",
    page=_PAGE,
    licence="see the page",
)

RUS = PathLayout(
    image=r"(?:.*/)?RUS/images/test/([^/]+)\.(?:png|jpg)",
    labels=(r"(?:.*/)?RUS/annotations/test/([^/]+)\.png",),
    masks=_MASKS,
    looks_for="RUS/images/test/ with RUS/annotations/test/, masks by the images' names",
    subject=r"([^/]+)\.[^./]+$",
    splits={"test": ""},
    annotated=True,
    split="official, only the test has masks, of some images; persons are not told, so each image counts as one",
    source=f"{_PAPER}; real images",
    page=_PAGE,
    licence="see the page",
)
