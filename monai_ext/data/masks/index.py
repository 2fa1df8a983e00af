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

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.stored import stored_values


class IndexMask(MaskFormat):
    """
    Masks of one's own: 0 is the ground, and with one label every other value is the label; with several, 1 is the
    first label, 2 the second and so on.

    Raises:
        ValueError: with several labels, a value is greater than their number.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> file = Path(tempfile.mkdtemp()) / "mask.png"
        >>> Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(file)
        >>> IndexMask().read([file], ["disc", "cup"])[0][:, :, 0].astype(int).tolist()
        [[0, 1, 0], [0, 0, 1]]
        >>> IndexMask().read([file], ["vessel"])[0][:, :, 0].astype(int).tolist()
        [[0, 1, 1]]
    """

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        (file,) = files
        values, meta = stored_values(file)
        if len(labels) == 1:
            return values[None] != 0, meta
        if values.min() < 0 or values.max() > len(labels):
            raise ValueError(
                f"{file} must hold 0 for the ground and 1..{len(labels)} for {', '.join(labels)}, "
                f"not {values.min()}..{values.max()}."
            )
        return np.stack([values == number for number in range(1, len(labels) + 1)]), meta
