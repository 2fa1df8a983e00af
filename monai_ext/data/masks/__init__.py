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

"""How mask files say which pixels belong to which label: one format, one file."""

from __future__ import annotations

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.chestxdet import ChestXDetMask
from monai_ext.data.masks.contours import ContourMask
from monai_ext.data.masks.decathlon import DecathlonMask
from monai_ext.data.masks.files import FileMask
from monai_ext.data.masks.imagescope import ImageScopeMask
from monai_ext.data.masks.index import IndexMask
from monai_ext.data.masks.labelme import LabelmeMask
from monai_ext.data.masks.matlab import MatlabMask
from monai_ext.data.masks.values import ValueMask

__all__ = [
    "ChestXDetMask",
    "ContourMask",
    "DecathlonMask",
    "FileMask",
    "ImageScopeMask",
    "IndexMask",
    "LabelmeMask",
    "MaskFormat",
    "MatlabMask",
    "ValueMask",
]
