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

from monai_ext.label.clicks import ClickSegmenter
from monai_ext.label.embeddings import EmbeddingStore
from monai_ext.label.memory import BoundedMemory
from monai_ext.label.model import BaseModel, BundleModel
from monai_ext.label.prompts import ClickPrompts
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.shelf import ModelShelf
from monai_ext.label.tuning import tune_adapter
from monai_ext.label.uncertainty import disagreement, uncertainty
from monai_ext.label.versions import AdapterVersions
from monai_ext.label.view import ClickView

__all__ = [
    "AdapterVersions",
    "BaseModel",
    "BoundedMemory",
    "BundleModel",
    "ClickPrompts",
    "ClickSegmenter",
    "ClickView",
    "EmbeddingStore",
    "ModelShelf",
    "RequestRefused",
    "disagreement",
    "tune_adapter",
    "uncertainty",
]
