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

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class MaskFormat(ABC):
    """
    How the mask files of a data set say which pixels belong to which label.

    A new format is a subclass with one method, :meth:`read`.

    Attributes:
        names: the labels that the files know; empty if they leave the names to the user.
        needs_image: whether the image's path stands behind the mask files, for formats that do not hold its size.
    """

    names: tuple[str, ...] = ()
    needs_image: bool = False

    @abstractmethod
    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Read the mask of one image.

        Args:
            files: all mask files of the image.
            labels: the labels to read, in the order of the channels.

        Returns:
            One channel of booleans for each label, ``(C, W, H)`` for pictures as MONAI's readers turn them,
            ``(C, X, Y, Z)`` for volumes; and metadata, the ``affine`` of volumes.

        Raises:
            ValueError: a file cannot be read or holds what the format does not know.
        """

    def names_in(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Return the labels that an image's mask files know, for formats whose files name them."""
        return self.names

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise a ValueError if the format has names and a label is none of them."""
        unknown = [label for label in labels if self.names and label not in self.names]
        if unknown:
            raise ValueError(f"`labels` must be of {', '.join(self.names)}, not {', '.join(unknown)}.")
