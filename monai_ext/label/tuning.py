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

import shutil
from collections.abc import Sequence
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_ext.label.model import BundleModel
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.saved_labels import SavedLabel, write_training_list
from monai_ext.networks.weights import read_state_dict

LIMITS = {"max_epochs": (1, 1000), "steps_per_epoch": (1, 10_000), "batch_size": (1, 256)}
DEFAULTS = {"max_epochs": 10, "steps_per_epoch": 20}


def tune_adapter(model: BundleModel, saved: Sequence[SavedLabel], **settings: Any) -> int:
    """
    Tune a bundle's adapter on saved labels, from the version in use, and take the result into use.

    The bundle's own ``configs/train.json`` trains; nothing is written into the bundle. The best epoch on the pictures
    that are held out is kept.

    Args:
        model: the bundle.
        saved: the labels to train on.
        settings: overrides of the configuration, ``max_epochs`` and ``steps_per_epoch`` among them.

    Returns:
        The number of the new version.

    Raises:
        RequestRefused: there are too few labels, or the training kept no model.
    """
    current = model.versions.path
    with model.versions.new() as folder:
        work = folder / "work"
        datalist, _ = write_training_list(saved, model.labels, work, volumes=model.dimension == 3)
        workflow = ConfigWorkflow(
            config_file=str(model.root / "configs/train.json"),
            meta_file=str(model.root / "configs/metadata.json"),
            logging_file=False,
            workflow_type="train",
            bundle_root=str(model.root),
            dataset_dir=str(datalist),
            ckpt_dir=str(folder),
            output_dir=str(work),
            val_interval=1,
            resume=False,
            **{**DEFAULTS, **settings},
        )
        workflow.initialize()
        if current is not None:
            workflow.parser.get_parsed_content("network").load_state_dict(read_state_dict(current))
        workflow.run()
        workflow.finalize()
        shutil.rmtree(work)
    version = model.versions.current
    assert version is not None
    return version


def read_settings(request: dict[str, Any]) -> dict[str, int]:
    """
    The settings of a request to ``/train``; what belongs to MONAI Label's own trainers is left out.

    Raises:
        RequestRefused: a setting is no number of the possible range.

    Example:
        >>> read_settings({"max_epochs": 3, "device": "cpu"})
        {'max_epochs': 3}
    """
    settings = {}
    for name, (low, high) in LIMITS.items():
        value = request.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RequestRefused(f"{name} must be a whole number from {low} to {high}, not {str(value)[:20]!r}.")
        settings[name] = value
    return settings
