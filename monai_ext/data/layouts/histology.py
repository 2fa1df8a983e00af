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

"""Where public sets of tissue and cells, as they are distributed, keep their images and masks."""

from __future__ import annotations

from monai_ext.data.masks import FileMask
from monai_ext.data.path_layout import PathLayout

DSB2018 = PathLayout(
    image=r"(?:.*/)?([0-9a-f]{64})/images/[0-9a-f]{64}\.png",
    # A corrected copy has masks of other names.
    labels=(r"(?:.*/)?([0-9a-f]{64})/masks/[^/]+\.png",),
    masks=FileMask(patterns={"nucleus": ""}),
    looks_for="a folder for each image, named by 64 letters and digits, with images/ and a mask per nucleus in masks/",
    subject=r"([0-9a-f]{64})\.png",
    split="none official with masks, so nothing is held out to test; which images show one tissue is not told",
    source="Caicedo et al., Nature Methods 16, 2019",
    page="https://bbbc.broadinstitute.org/BBBC038",
    licence="CC0",
)
