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
from monai_ext.data.masks.polygons import fill_polygon
from monai_ext.data.reader import picture_size


class ContourMask(MaskFormat):
    r"""
    Outlines in text files, a vertex x y in each line, one file for each label; a label without file is absent.

    Args:
        patterns: for each label a regular expression that is searched in the names of its files.

    Raises:
        ValueError: a file holds something else than two numbers in each line, or its outline crosses itself or misses
            the image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> image, file = (Path(tempfile.mkdtemp()) / name for name in ("1.png", "1_disc.txt"))
        >>> Image.new("RGB", (4, 3)).save(image)
        >>> _ = file.write_text("  0.0e+00   0.0e+00\n 2 0\n 2 1\n 0 1\n")
        >>> int(ContourMask(patterns={"optic disc": "_disc"}).read([file, image], ["optic disc"])[0].sum())
        6
    """

    needs_image = True

    def __init__(self, *, patterns: Mapping[str, str]) -> None:
        self.patterns = dict(patterns)
        self.names = tuple(patterns)

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        *contours, image = files
        size = picture_size(image)
        channels = {label: np.zeros(size, bool) for label in labels}
        for file in contours:
            for label in labels:
                if re.search(self.patterns[label], file.name):
                    channels[label] |= fill_polygon(_vertices(file), size, name=str(file))
        return np.stack(list(channels.values())), {}


def _vertices(file: Path) -> list[list[float]]:
    try:
        vertices = [[float(word) for word in line.split()] for line in file.read_text().splitlines() if line.strip()]
        if any(len(vertex) != 2 for vertex in vertices):
            raise ValueError("a line has another number of values")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} must have two numbers x y in each line, but has not: {error}; copy it again from its source."
        ) from error
    return vertices
