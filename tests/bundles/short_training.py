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


"""A short training of a bundle in the repository, which `sigkill.py` kills again and again."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

# Imported before the forks, so that each of them is quick.
import tensorboard
import torch.utils.tensorboard
from bundle_runs import VESSELS, run_bundle
from sam2.modeling.backbones import hieradet

from monai_ext.handlers import curves

__all__ = ["hieradet", "tensorboard", "torch", "train"]


def train(folder: Path) -> None:
    """Train the vessel bundle on the data beside the folder."""
    logging.disable()
    warnings.simplefilter("ignore")
    curves.draw_curves = lambda history, path: None  # most of the time of a run, and nothing depends on it
    short = {"image_size": 64, "enlarge": 1, "max_epochs": 3, "batch_size": 1, "validate#inferer#sw_batch_size": 4}
    run_bundle(VESSELS, "train", bundle_root=folder, dataset_dir=folder.parent / "data", **short)
