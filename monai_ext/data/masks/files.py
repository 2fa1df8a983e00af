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

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.stored import stored_values


class FileMask(MaskFormat):
    """
    One mask file for each label, or several, as one for each object: a pixel belongs to the label if enough mark it.

    A label without file is absent from the image.

    Args:
        patterns: for each label a regular expression that is searched in the names of its files. None: the files bear
            the labels' names (``liver.nii.gz``), and a label without file is an error.
        above: a file marks the pixels whose value is greater; soft maps of several graders need more than 0.

    Raises:
        ValueError: the files differ in size or affine; without patterns, no file bears the label's name.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> files = [Path(tempfile.mkdtemp()) / f"{name}.png" for name in ("a_disc", "a_cup")]
        >>> for level, file in enumerate(files):
        ...     Image.fromarray(np.array([[0, 85, 170]], np.uint8) + 85 * (1 - level)).save(file)
        >>> masks = FileMask(patterns={"optic disc": "_disc", "optic cup": "_cup"}, above=127)
        >>> masks.read(files, ["optic disc", "optic cup"])[0][:, :, 0].astype(int).tolist()
        [[0, 1, 1], [0, 0, 1]]
    """

    def __init__(self, *, patterns: Mapping[str, str] | None = None, above: int = 0) -> None:
        self.patterns = patterns
        self.names = tuple(patterns or ())
        self.above = above

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        channels: dict[str, np.ndarray] = {}
        meta: dict[str, Any] = {}
        first: Path | None = None
        absent = sorted(set(labels) - set(self.names_in(files)))
        if absent:
            known = ", ".join(self.names_in(files))
            raise ValueError(f"{files[0].parent} must hold masks of {', '.join(absent)}, but holds {known}.")
        for file in files:
            chosen = [label for label in labels if self._belongs(file, label)]
            if not chosen and first is not None:
                continue
            values, its_meta = stored_values(file)
            if first is None:
                first, meta = file, its_meta
                channels = {label: np.zeros(values.shape, bool) for label in labels}
            size = next(iter(channels.values())).shape
            if values.shape != size:
                raise ValueError(f"{file} must have the size of {first}, {size}, not {values.shape}.")
            if meta and not np.allclose(meta["affine"], its_meta["affine"], atol=1e-4):
                raise ValueError(f"{file} must have the affine of {first}; export both from one volume.")
            for label in chosen:
                channels[label] |= values > self.above
        return np.stack(list(channels.values())), meta

    def names_in(self, files: Sequence[Path]) -> tuple[str, ...]:
        return self.names or tuple(file.name.partition(".")[0] for file in files)

    def _belongs(self, file: Path, label: str) -> bool:
        if self.patterns is None:
            return file.name.partition(".")[0] == label
        return re.search(self.patterns[label], file.name) is not None
