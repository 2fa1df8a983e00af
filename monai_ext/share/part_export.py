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

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class PartExport:
    """
    A part of a network with example inputs: what a file of any format is made of.

    Args:
        part: one of :mod:`monai_ext.share.parts`.
        inputs: at least two images, and clicks, so that their number is not taken for a fixed one.
    """

    def __init__(self, part: Any, inputs: Mapping[str, Tensor]) -> None:
        self.part, self.inputs = part, inputs

    @cached_property
    def graph(self) -> torch.export.ExportedProgram:
        """What the part computes, for any number of images and clicks of this size; taken down once for all formats."""
        batch, clicks = torch.export.Dim("batch"), torch.export.Dim("clicks")
        shapes = {name: {0: batch, 1: clicks} if name.startswith("point") else {0: batch} for name in self.inputs}
        with quiet(), torch.no_grad():
            return torch.export.export(self.part, (), dict(self.inputs), dynamic_shapes=shapes, strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters tell of sizes that become constants, of what they were replaced by, and of torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
