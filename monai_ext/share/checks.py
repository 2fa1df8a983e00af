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

import os
from pathlib import Path

from monai_ext.share.config_check import check_configs
from monai_ext.share.contents import METADATA, find_config, read_mapping
from monai_ext.share.files_check import check_files
from monai_ext.share.metadata_check import check_metadata
from monai_ext.share.model_check import check_model
from monai_ext.share.problem import Problem


def check_bundle(bundle: str | os.PathLike[str]) -> list[Problem]:
    """
    Say all that is wrong with a bundle by the rules of MONAI's model zoo, and what to do about it.

    Files, metadata, configs, large files, paths of people; then the network is built, run once at the size that the
    metadata name, and its weights are loaded. Code that the configs name is run; nothing is downloaded or written.

    Args:
        bundle: its folder.

    Returns:
        the problems, in the order of the files; none if the bundle is in order.

    Raises:
        ValueError: there is no such folder.
        ImportError: jsonschema is not installed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "empty_bundle"
        >>> folder.mkdir()
        >>> [problem.where for problem in check_bundle(folder)][:2]
        ['LICENSE', 'configs/inference.json']
    """
    bundle = Path(bundle).resolve()
    if not bundle.is_dir():
        raise ValueError(f"{bundle} is no folder: give that of a bundle.")
    problems = check_files(bundle)
    config, usable = find_config(bundle, "inference"), False
    if (bundle / METADATA).is_file():
        metadata, found = read_mapping(bundle, METADATA)
        found += check_metadata(bundle, metadata) if metadata else []
        usable = "network_data_format" in metadata and not any("data_format" in problem.where for problem in found)
        problems += found
    found = check_configs(bundle)
    if usable and config is not None and not any(problem.where.partition("#")[0] == config for problem in found):
        found += check_model(bundle)
    return sorted({*problems, *found})
