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

"""Where public sets of endoscopy, as they are distributed, keep their images and masks."""

from __future__ import annotations

from monai_ext.data.masks import ValueMask
from monai_ext.data.path_layout import PathLayout

CHOLECSEG8K = PathLayout(
    image=r"(?:.*/)?(video\d\d_\d+)/(frame_\d+)_endo\.png",
    labels=(r"(?:.*/)?(video\d\d_\d+)/(frame_\d+)_endo_watershed_mask\.png",),
    masks=ValueMask(
        # The set's page prints the values as #111111; they are decimal.
        values={
            "abdominal wall": [11],
            "liver": [21],
            "gastrointestinal tract": [13],
            "fat": [12],
            "grasper": [31],
            "connective tissue": [23],
            "blood": [24],
            "cystic duct": [25],
            "L-hook electrocautery": [32],
            "gallbladder": [22],
            "hepatic vein": [33],
            "liver ligament": [5],
        },
        # Not labelled, background, and the white frame around the image.
        others=[0, 50, 255],
    ),
    looks_for="video01/video01_00080/frame_80_endo.png with frame_80_endo_watershed_mask.png",
    subject=r"video(\d\d)_\d+/",
    training=r"01|09|18|20|24|25|26|28|35|37|43|48|55",
    validation=r"12|27",
    split="none official; videos as in the code of S-SAM (Paranjape et al., MICCAI 2024), whose test is 17 and 52; 48, "
    "which it leaves out, trains",
    source="Hong et al., arXiv 2012.12453",
    page="https://www.kaggle.com/datasets/newslab/cholecseg8k",
    licence="CC BY-NC-SA 4.0",
)
