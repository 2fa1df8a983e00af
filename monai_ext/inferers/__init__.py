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

from monai_ext.inferers.clicks import ClickRoundsInferer
from monai_ext.inferers.embedding_cache import EmbeddingCache
from monai_ext.inferers.flips import FlipAverageInferer
from monai_ext.inferers.foreground import ForegroundSlidingWindowInferer
from monai_ext.inferers.longest_side import LongestSideInferer
from monai_ext.inferers.mask_propagation import MaskPropagationInferer
from monai_ext.inferers.memory_propagation import MemoryPropagationInferer
from monai_ext.inferers.prompted import PromptedInferer
from monai_ext.inferers.propagated_object import PropagatedObject
from monai_ext.inferers.propagation import PropagationInferer
from monai_ext.inferers.slide import SlideInferer
from monai_ext.inferers.slides import SlideSegmentation
from monai_ext.inferers.trial import ClickTrialInferer
from monai_ext.inferers.volume_slices import VolumeSlicesInferer

__all__ = [
    "ClickRoundsInferer",
    "ClickTrialInferer",
    "EmbeddingCache",
    "FlipAverageInferer",
    "ForegroundSlidingWindowInferer",
    "LongestSideInferer",
    "MaskPropagationInferer",
    "MemoryPropagationInferer",
    "PromptedInferer",
    "PropagatedObject",
    "PropagationInferer",
    "SlideInferer",
    "SlideSegmentation",
    "VolumeSlicesInferer",
]
