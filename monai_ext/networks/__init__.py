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

from monai_ext.networks.base_file import save_base
from monai_ext.networks.batch_parallel import BatchParallel
from monai_ext.networks.click_shift import ClickShift
from monai_ext.networks.convert import convert_sam2lora
from monai_ext.networks.distillation import KnowledgeDistillation
from monai_ext.networks.prompts import ClassTokens, TextTokens
from monai_ext.networks.sam2 import SIZES
from monai_ext.networks.segmenter import SAM2Segmenter

__all__ = [
    "SIZES",
    "BatchParallel",
    "ClassTokens",
    "ClickShift",
    "KnowledgeDistillation",
    "SAM2Segmenter",
    "TextTokens",
    "convert_sam2lora",
    "save_base",
]
