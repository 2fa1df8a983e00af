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

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from monai_ext.data.polygons import polygon_mask
from monai_ext.label.refusal import RequestRefused


def read_outlines(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, dict[str, int]]:
    """
    Read the outlines that QuPath saves, in ASAP's format, as an index mask.

    Args:
        path: the XML file.
        size: width and height of the picture.

    Returns:
        The mask ``(H, W)``, later outlines over earlier ones, and the numbers of the names.

    Raises:
        RequestRefused: the file is no such XML, or declares entities, with which a small file can fill the memory.
    """
    from shapely import Polygon

    text = path.read_bytes()
    if b"<!" in text.replace(b"<!--", b""):
        raise RequestRefused("Annotations in .xml must hold no declarations (<!DOCTYPE, <!ENTITY).")
    mask, names = np.zeros(size[::-1], np.uint8), dict[str, int]()
    try:
        for annotation in ElementTree.fromstring(text).iter("Annotation"):
            points = [(float(c.attrib["X"]), float(c.attrib["Y"])) for c in annotation.iter("Coordinate")]
            name = annotation.attrib["Name"]
            if len(points) >= 3 and (name in names or len(names) < 255):
                number = names.setdefault(name, len(names) + 1)
                mask[polygon_mask(Polygon(points), size[::-1])] = number
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise RequestRefused(f"The annotations cannot be read: {error}.") from error
    return mask, names
