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
"""The rules of MONAI's metadata schema 20240725, written down here so that no check needs the internet."""

from __future__ import annotations

from typing import Any

SCHEMA_URL = "https://project-monai.github.io/schema/meta_schema_20240725.json"
_OLD_PLACE = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1"
SCHEMA_URLS = (SCHEMA_URL, f"{_OLD_PLACE}/meta_schema_20240725.json")

REQUIRED = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)
_WORDS = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors"),
    *("copyright", "data_source", "data_type", "image_classes", "label_classes", "pred_classes", "intended_use"),
)
_MAPPINGS = ("changelog", "required_packages_version", "eval_metrics", "supported_apps")
_TENSOR = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in ("type", "format", "dtype")},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
# What goes into a network or comes out: a tensor, or a plain value.
_VALUE = {"if": {"type": "object"}, "then": _TENSOR, "else": {"type": ["number", "string", "boolean"]}}
_VALUES = {"type": "object", "patternProperties": {".": _VALUE}}
_NETWORK = {
    "type": "object",
    "properties": {key: _VALUES for key in ("inputs", "outputs", "post_processed_outputs")},
    "required": ["inputs", "outputs"],
}
METADATA_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in _WORDS},
        **{key: {"type": "object"} for key in _MAPPINGS},
        "references": {"type": "array", "items": {"type": "string"}},
    },
    # Of one network, or `<name>_data_format` of each of several.
    "patternProperties": {"^[_a-zA-Z0-9]+_data_format$": _NETWORK},
    "required": list(REQUIRED),
}
