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

from monai_ext.share.checks import check_bundle
from monai_ext.share.export import export_bundle
from monai_ext.share.finding import Finding
from monai_ext.share.hub import push_bundle
from monai_ext.share.inspection import inspect_bundle
from monai_ext.share.merged import merged_network
from monai_ext.share.model_card import model_card
from monai_ext.share.onnx_runner import OnnxClicks, OnnxSegmenter
from monai_ext.share.pack import pack_bundle
from monai_ext.share.problem import Problem
from monai_ext.share.zoo import copy_to_zoo

__all__ = [
    "Finding",
    "OnnxClicks",
    "OnnxSegmenter",
    "Problem",
    "check_bundle",
    "copy_to_zoo",
    "export_bundle",
    "inspect_bundle",
    "merged_network",
    "model_card",
    "pack_bundle",
    "push_bundle",
]
