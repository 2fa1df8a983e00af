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

"""Images and masks of one's own."""

from __future__ import annotations

from monai_ext.data.picture_layout import PictureLayout, Place

FOLDERS = PictureLayout(
    places=tuple(
        Place(split, f"{folder}images", (f"{folder}masks", f"{folder}labels"), f"{folder}fov")
        for split, folder in (
            (None, ""),
            ("training", "training/"),
            ("training", "train/"),
            ("validation", "validation/"),
            ("test", "test/"),
        )
    ),
    looks_for="images/ with masks/ (or labels/), at the top or in training/, validation/ and test/",
    split="the folders; without a test/ folder nothing is tested",
    source="your own",
)
