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

from collections.abc import Mapping
from typing import Any

import numpy as np

from monai_ext.data.polygons import mask_polygon


def contour_elements(
    mask: np.ndarray, names: Mapping[str, int], *, offset: tuple[int, int] = (0, 0), smallest: float = 0
) -> list[dict[str, Any]]:
    """
    The outlines of a mask's objects as MONAI Label's clients (QuPath, CVAT, DSA) want them.

    An outline runs along the edges of pixels, straight lines joined; holes cannot be said in this format.

    Args:
        mask: index mask ``(H, W)``.
        names: the numbers of the labels.
        offset: what is added to x and y.
        smallest: objects of fewer pixels are left out.

    Returns:
        ``label`` and ``contours``, lists of x and y, for each label that is there.

    Example:
        >>> contour_elements(np.array([[0, 1], [0, 1]]), {"nucleus": 1}, offset=(10, 20))
        [{'label': 'nucleus', 'contours': [[[11, 20], [12, 20], [12, 22], [11, 22]]]}]
    """
    elements = []
    for label, number in names.items():
        if not (mask == number).any():
            continue
        shape = mask_polygon(mask == number)
        contours = []
        for polygon in getattr(shape, "geoms", [shape]):
            if polygon.area >= smallest:
                corners = np.asarray(polygon.exterior.coords[:-1]).astype(int) + offset
                contours.append(corners.tolist())
        if contours:
            elements.append({"label": label, "contours": contours})
    return elements
