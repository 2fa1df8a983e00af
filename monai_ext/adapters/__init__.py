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

from monai_ext.adapters.base import Adapted, Adapter, AdapterLayer
from monai_ext.adapters.bottleneck import BottleneckMLP
from monai_ext.adapters.bridge import PromptBridge
from monai_ext.adapters.depthwise_separable import DepthwiseSeparable
from monai_ext.adapters.dilated_depthwise import DilatedDepthwise
from monai_ext.adapters.dora import DoRA
from monai_ext.adapters.lora import LoRA
from monai_ext.adapters.refactoring import SharedRefactoring
from monai_ext.adapters.salt import SALT
from monai_ext.adapters.singular_values import SingularValues

__all__ = [
    "SALT",
    "Adapted",
    "Adapter",
    "AdapterLayer",
    "BottleneckMLP",
    "DepthwiseSeparable",
    "DilatedDepthwise",
    "DoRA",
    "LoRA",
    "PromptBridge",
    "SharedRefactoring",
    "SingularValues",
]
