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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.polygons import fill_polygon
from monai_ext.data.reader import picture_size


class LabelmeMask(MaskFormat):
    """
    Polygons as labelme writes them, one JSON for each image; a label without polygon is absent from the image.

    Old files hold no size, so the image's counts; polygons are cut off at its border.

    Args:
        shapes: for each label what its polygons are called in the files.
        ignored: shapes that occur and belong to no label.

    Raises:
        ValueError: the file is no labelme JSON, belongs to an image of another size, has a shape of another name or
            kind, or a polygon crosses itself or misses the image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> image, file = (Path(tempfile.mkdtemp()) / name for name in ("1.png", "1.json"))
        >>> Image.new("RGB", (4, 3)).save(image)
        >>> shape = {"label": "disc", "points": [[0, 0], [2, 0], [2, 1], [0, 1]]}
        >>> _ = file.write_text(json.dumps({"shapes": [shape]}))
        >>> masks = LabelmeMask(shapes={"optic disc": "disc", "optic cup": "cup"})
        >>> masks.read([file, image], ["optic disc", "optic cup"])[0].sum((1, 2)).tolist()
        [6, 0]
    """

    needs_image = True

    def __init__(self, *, shapes: Mapping[str, str], ignored: Sequence[str] = ()) -> None:
        self.names = tuple(shapes)
        self.labels = {shape: label for label, shape in shapes.items()}
        self.ignored = tuple(ignored)

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        file, image = files
        size = picture_size(image)
        channels = {label: np.zeros(size, bool) for label in labels}
        for number, shape in enumerate(self._shapes(file, size), start=1):
            name = shape.get("label")
            if name not in (*self.labels, *self.ignored):
                raise ValueError(
                    f"{file}: shape {number} must be called {', '.join([*self.labels, *self.ignored])}, not {name!r}; "
                    "rename it or take it away."
                )
            if shape.get("shape_type", "polygon") != "polygon" and name not in self.ignored:
                raise ValueError(
                    f"{file}: shape {number} ({name}) must be a polygon, not {shape['shape_type']!r}; draw it again."
                )
            if self.labels.get(name) in channels:
                what = f"{file}: shape {number} ({name})"
                channels[self.labels[name]] |= fill_polygon(shape.get("points", ()), size, name=what)
        return np.stack(list(channels.values())), {}

    @staticmethod
    def _shapes(file: Path, size: tuple[int, int]) -> list[dict[str, Any]]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            shapes = content["shapes"]
            if not all(isinstance(shape, dict) for shape in shapes):
                raise TypeError("its shapes are no objects")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} must be a labelme JSON with a list of `shapes`, but cannot be read: {error}; "
                "copy it again from its source."
            ) from error
        stated = content.get("imageWidth") or size[0], content.get("imageHeight") or size[1]
        if stated != size:
            raise ValueError(
                f"{file} was drawn on an image of {stated[0]}x{stated[1]} pixels, but its image has "
                f"{size[0]}x{size[1]}; bring the image back that it was drawn on."
            )
        return shapes
