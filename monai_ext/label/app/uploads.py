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
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastapi import UploadFile
from fastapi.background import BackgroundTasks
from monai.bundle import ConfigParser
from monailabel.utils.others.generic import remove_file

from monai_ext.handlers.files import save_tensors
from monai_ext.label.model import BundleModel
from monai_ext.label.refusal import RequestRefused
from monai_ext.networks.weights import read_state_dict

SUFFIXES = (".nii.gz", ".seg.nrrd")


def uploaded(background_tasks: BackgroundTasks, file: UploadFile) -> Path:
    """A file that came with a request, for as long as the request lasts; of its name only the suffix is kept."""
    name = Path(file.filename or "").name.lower()
    suffix = next((double for double in SUFFIXES if name.endswith(double)), Path(name).suffix)
    if not suffix or len(suffix) > 10 or not suffix.replace(".", "").isalnum():
        raise RequestRefused("A file must be sent with a name that says its format, such as mask.png.")
    handle, path = tempfile.mkstemp(suffix=suffix)
    background_tasks.add_task(remove_file, path)
    with os.fdopen(handle, "wb") as target:
        shutil.copyfileobj(file.file, target)
    if not os.path.getsize(path):
        raise RequestRefused(f"The file {name[-80:]!r} is empty.")
    return Path(path)


def store_adapter(model: BundleModel, path: Path) -> dict[str, Any]:
    """Make a file of tensors a new version of a bundle's adapter, if it fits; nothing in it is ever run."""
    try:
        state = read_state_dict(path)
        ConfigParser(model.config).get_parsed_content("network_def").load_state_dict(state)
    except ValueError as error:
        raise RequestRefused(str(error).replace(str(path), "The file")) from error
    with model.versions.new() as folder:
        save_tensors(state, folder / "model.pt")
    return model.versions.describe()
