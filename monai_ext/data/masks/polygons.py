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

import numpy as np


def fill_polygon(
    points: Sequence[Sequence[float]], size: tuple[int, int], *, name: str, strict: bool = True
) -> np.ndarray:
    """
    Mark the pixels whose centres, at whole coordinates, a polygon holds; what lies outside the image is cut off.

    A polygon that crosses itself is filled by the even-odd rule. It is found by its area: the centres in a closed curve
    of length L without crossings differ from its area by less than L (Jarnik, 1935), so crossings that change less
    than the border's own pixels pass.

    Args:
        points: the vertices x, y.
        size: width and height of the image.
        name: the file and the polygon, for errors.
        strict: whether to refuse a polygon that crosses itself or misses the image.

    Returns:
        ``(W, H)`` booleans.

    Raises:
        ValueError: fewer than three vertices, vertices that are no pairs of finite numbers or lie farther outside than
            the image is large; with ``strict``, a polygon that crosses itself or marks nothing.

    Example:
        >>> fill_polygon([(0, 0), (2, 0), (2, 1), (0, 1)], (4, 3), name="square").astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    from skimage.draw import polygon2mask

    try:
        vertices = np.asarray(points, float)
    except (TypeError, ValueError):
        vertices = np.zeros(0)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < 3 or not np.isfinite(vertices).all():
        raise ValueError(f"{name} must have three vertices x, y or more, all of them numbers; draw it again.")
    if (vertices < -np.array(size)).any() or (vertices > 2 * np.array(size)).any():
        raise ValueError(
            f"{name} lies far outside its image of {size[0]}x{size[1]} pixels, x, y {_span(vertices)}; "
            "it must have been drawn on another image."
        )
    start = np.floor(vertices.min(0)).astype(int)
    block = polygon2mask(np.ceil(vertices.max(0)).astype(int) - start + 1, vertices - start)
    following = np.roll(vertices, -1, axis=0)
    (x, y), (u, v) = vertices.T, following.T
    area, border = abs(np.sum(x * v - u * y)) / 2, np.linalg.norm(following - vertices, axis=1).sum()
    if strict and abs(block.sum() - area) > border + 1:
        raise ValueError(f"{name} crosses itself, x, y {_span(vertices)}; draw it again without crossings.")
    mask = np.zeros(size, bool)
    low, high = np.maximum(start, 0), np.minimum(start + block.shape, size)
    if (low < high).all():
        mask[low[0] : high[0], low[1] : high[1]] = block[tuple(map(slice, low - start, high - start))]
    if strict and not mask.any():
        raise ValueError(
            f"{name} marks no pixel of its image of {size[0]}x{size[1]} pixels, x, y {_span(vertices)}; "
            "check that it was drawn on this image."
        )
    return mask


def _span(vertices: np.ndarray) -> str:
    return " to ".join(",".join(f"{value:g}" for value in corner) for corner in (vertices.min(0), vertices.max(0)))
