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
from xml.etree import ElementTree

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.polygons import fill_polygon
from monai_ext.data.reader import picture_size


class ImageScopeMask(MaskFormat):
    """
    Outlines as Aperio ImageScope writes them (XML), all of one label: its pixels are those inside any of them.

    The outlines are drawn freehand, hundreds in a file: those with less than three vertices mark nothing, crossings
    are filled by the even-odd rule, and parts outside the image are cut off.

    Args:
        label: what the outlines show.

    Raises:
        ValueError: the file is no such XML or is damaged, or a vertex is no pair of numbers or far outside the image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> image, file = (Path(tempfile.mkdtemp()) / name for name in ("1.tif", "1.xml"))
        >>> Image.new("RGB", (4, 3)).save(image)
        >>> corners = "".join(f"<Vertex X='{x}' Y='{y}'/>" for x, y in ((0, 0), (2, 0), (2, 1), (0, 1)))
        >>> region = f"<Region Id='1'><Vertices>{corners}</Vertices></Region>"
        >>> _ = file.write_text(f"<Annotations><Annotation><Regions>{region}</Regions></Annotation></Annotations>")
        >>> int(ImageScopeMask(label="nucleus").read([file, image], ["nucleus"])[0].sum())
        6
    """

    needs_image = True

    def __init__(self, *, label: str) -> None:
        self.names = (label,)

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        file, image = files
        size = picture_size(image)
        mask = np.zeros(size, bool)
        try:
            root = ElementTree.parse(file).getroot()
            if root.tag != "Annotations":
                raise ValueError(f"its outermost element is {root.tag}")
            regions = [
                [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
                for region in root.iter("Region")
            ]
        except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
            raise ValueError(
                f"{file} must be an ImageScope XML of Annotations with Regions and Vertices X, Y, but cannot be read: "
                f"{error}; copy it again from its source."
            ) from error
        for number, vertices in enumerate(regions, start=1):
            if len(vertices) > 2:
                mask |= fill_polygon(vertices, size, name=f"{file}: region {number}", strict=False)
        return np.stack([mask] * len(labels)), {}
