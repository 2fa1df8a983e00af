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

from monai_ext.transforms.ct import (
    CT_WINDOWS,
    CTForeground,
    CTWindows,
    CTWindowsd,
    NeighbouringSlices,
    NeighbouringSlicesd,
)
from monai_ext.transforms.fundus import FieldOfView, FieldOfViewd, FundusForeground, field_of_view
from monai_ext.transforms.grids import CheckGridsd
from monai_ext.transforms.histology import NormalizeStain, NormalizeStaind, RandStain, RandStaind, tissue_mask
from monai_ext.transforms.instances import LoadInstancesd
from monai_ext.transforms.label_index import LabelIndexd
from monai_ext.transforms.lesions import RandBrightLesionsd
from monai_ext.transforms.object_masks import ObjectMasksd
from monai_ext.transforms.objects import RandObjectCropd
from monai_ext.transforms.prompts import CorrectionClicks, SimulatePrompts
from monai_ext.transforms.scenes import DrawScene
from monai_ext.transforms.seams import SeamsBetweenObjectsd
from monai_ext.transforms.separation import ConnectedInstancesd, SeparateInstances, SeparateInstancesd
from monai_ext.transforms.sizes import CheckSizesd

__all__ = [
    "CT_WINDOWS",
    "CTForeground",
    "CTWindows",
    "CTWindowsd",
    "CheckGridsd",
    "CheckSizesd",
    "ConnectedInstancesd",
    "CorrectionClicks",
    "DrawScene",
    "FieldOfView",
    "FieldOfViewd",
    "FundusForeground",
    "LabelIndexd",
    "LoadInstancesd",
    "NeighbouringSlices",
    "NeighbouringSlicesd",
    "NormalizeStain",
    "NormalizeStaind",
    "ObjectMasksd",
    "RandBrightLesionsd",
    "RandObjectCropd",
    "RandStain",
    "RandStaind",
    "SeamsBetweenObjectsd",
    "SeparateInstances",
    "SeparateInstancesd",
    "SimulatePrompts",
    "field_of_view",
    "tissue_mask",
]
