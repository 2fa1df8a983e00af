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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.stored import encoded, stored_values

Value = int | tuple[int, int, int]


class ValueMask(MaskFormat):
    """
    Masks whose grey values or colours have a fixed meaning; labels may share a value, as disc and cup do.

    Args:
        values: for each label the grey values, or the colours (R, G, B), that belong to it.
        others: values that occur and belong to no label.
        between: share of the pixels that may hold other values, as at smoothed borders; they take the nearest one.

    Raises:
        ValueError: more of a mask holds values that are in neither.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> file = Path(tempfile.mkdtemp()) / "mask.bmp"
        >>> Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(file)
        >>> refuge = ValueMask(values={"optic disc": [0, 128], "optic cup": [0]}, others=[255])
        >>> refuge.read([file], ["optic disc", "optic cup"])[0][:, :, 0].astype(int).tolist()
        [[1, 1, 0], [1, 0, 0]]
    """

    def __init__(
        self, *, values: Mapping[str, Sequence[Value]], others: Sequence[Value] = (0,), between: float = 0
    ) -> None:
        self.between = between
        self.values = {name: tuple(map(encoded, its)) for name, its in values.items()}
        self.names = tuple(values)
        everything = [*others, *(value for its in values.values() for value in its)]
        self.colour = any(not isinstance(value, int) for value in everything)
        self.known = {encoded(value): value for value in everything}

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        (file,) = files
        values, meta = self.stored(file)
        where = ~np.isin(values, list(self.known))
        unknown = values[where]
        if unknown.size > self.between * values.size:
            value = int(unknown.min())
            shown = tuple(value.to_bytes(3, "big")) if self.colour else value
            raise ValueError(
                f"{file} must hold only {', '.join(map(str, self.known.values()))}, "
                f"not {shown} ({(unknown == value).sum()} pixels); see its label table."
            )
        if unknown.size:
            values[where] = self._nearest(unknown)
        return np.stack([np.isin(values, self.values[label]) for label in labels]), meta

    def stored(self, file: Path) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the file's numbers, as :func:`stored_values`; other kinds of files override it."""
        return stored_values(file, colour=self.colour)

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        found, where = np.unique(values, return_inverse=True)
        known = np.array(list(self.known), values.dtype)
        steps = [np.abs((found[:, None] >> shift & 255) - (known >> shift & 255)) for shift in (16, 8, 0)]
        return known[np.argmin(sum(steps), axis=1)][where]
