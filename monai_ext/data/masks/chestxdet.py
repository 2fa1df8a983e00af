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

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.polygons import fill_polygon
from monai_ext.data.reader import picture_size


class ChestXDetMask(MaskFormat):
    """
    Polygons of all images in one JSON, as ChestX-Det has them: lists of findings (``syms``) and their ``polygons``.

    Findings may overlap; an image with empty lists shows none. Crossings are filled by the even-odd rule, and parts
    outside the image are cut off.

    Args:
        labels: the findings, as the file calls them.

    Raises:
        ValueError: the file is no such JSON or is damaged, does not list the image, or names another finding.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> image, file = (Path(tempfile.mkdtemp()) / name for name in ("1.png", "all.json"))
        >>> Image.new("L", (4, 3)).save(image)
        >>> square = [[0, 0], [2, 0], [2, 1], [0, 1]]
        >>> _ = file.write_text(json.dumps([{"file_name": "1.png", "syms": ["Mass"], "polygons": [square]}]))
        >>> masks = ChestXDetMask(labels=["Mass", "Nodule"])
        >>> masks.read([file, image], ["Mass", "Nodule"])[0].sum((1, 2)).tolist()
        [6, 0]
    """

    needs_image = True

    def __init__(self, *, labels: Sequence[str]) -> None:
        self.names = tuple(labels)

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        file, image = files
        size = picture_size(image)
        channels = {label: np.zeros(size, bool) for label in labels}
        try:
            findings = _findings(file, file.stat().st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} must be a JSON list of objects with `file_name`, `syms` and as many `polygons`, but cannot be "
                f"read: {error}; copy it again from its source."
            ) from error
        if image.name not in findings:
            raise ValueError(f"{file} must list {image.name}, but does not; take the image away.")
        for number, (name, points) in enumerate(findings[image.name], start=1):
            if name not in self.names:
                raise ValueError(f"{file}: findings of {image.name} must be of {', '.join(self.names)}, not {name!r}.")
            if name in channels:
                what = f"{file}: polygon {number} of {image.name} ({name})"
                channels[name] |= fill_polygon(points, size, name=what, strict=False)
        return np.stack(list(channels.values())), {}


@lru_cache(maxsize=2)
def _findings(file: Path, changed: int) -> dict[str, list[tuple[str, Any]]]:
    """What the file lists, read once for all its images until it changes."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return {entry["file_name"]: list(zip(entry["syms"], entry["polygons"], strict=True)) for entry in entries}
