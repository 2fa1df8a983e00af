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

from monai_ext.data.atomic import atomic_path
from monai_ext.data.dicom_series import DicomSeries
from monai_ext.data.images import ImageList
from monai_ext.data.label_reader import LabelReader
from monai_ext.data.polygons import PolygonWriter
from monai_ext.data.pretraining import PretrainingData
from monai_ext.data.pyramid import PyramidWriter
from monai_ext.data.reader import PhotographReader
from monai_ext.data.sampler import DistributedEvaluationSampler
from monai_ext.data.slide import Slide, SlideList
from monai_ext.data.splits import SegmentationData
from monai_ext.data.volume_reader import VolumeReader
from monai_ext.data.volumes import VolumeList

__all__ = [
    "DicomSeries",
    "DistributedEvaluationSampler",
    "ImageList",
    "LabelReader",
    "PhotographReader",
    "PolygonWriter",
    "PretrainingData",
    "PyramidWriter",
    "SegmentationData",
    "Slide",
    "SlideList",
    "VolumeList",
    "VolumeReader",
    "atomic_path",
]
