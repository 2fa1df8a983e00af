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

from monai_ext.handlers.averaging import GradientAveraging
from monai_ext.handlers.click_report import ClickReport
from monai_ext.handlers.curves import CurveHandler
from monai_ext.handlers.gradient import GradientClipping
from monai_ext.handlers.loading import TrainedPartLoader
from monai_ext.handlers.object_report import ObjectReport
from monai_ext.handlers.objects import ObjectWriter
from monai_ext.handlers.overlay import OverlayHandler
from monai_ext.handlers.progress import EvaluationProgressBar, TrainingProgressBar
from monai_ext.handlers.report import EvaluationReport
from monai_ext.handlers.results import SegmentationWriter
from monai_ext.handlers.resume import ResumeHandler
from monai_ext.handlers.seeding import EpochSeeding
from monai_ext.handlers.sharpness import SharpnessAware
from monai_ext.handlers.trained import TrainedPartSaver
from monai_ext.handlers.volume_report import VolumeReport
from monai_ext.handlers.volumes import VolumeWriter

__all__ = [
    "ClickReport",
    "CurveHandler",
    "EpochSeeding",
    "EvaluationProgressBar",
    "EvaluationReport",
    "GradientAveraging",
    "GradientClipping",
    "ObjectReport",
    "ObjectWriter",
    "OverlayHandler",
    "ResumeHandler",
    "SegmentationWriter",
    "SharpnessAware",
    "TrainedPartLoader",
    "TrainedPartSaver",
    "TrainingProgressBar",
    "VolumeReport",
    "VolumeWriter",
]
