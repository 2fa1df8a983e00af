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

"""Small synthetic tissue, with the objects in it: in place of nuclei and glands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def draw_tissue(seed: int, size: tuple[int, int] = (96, 96), radius: float = 8) -> tuple[np.ndarray, np.ndarray]:
    """RGB pixels and the map of the objects, (H, W, 3) and (H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.array([226, 170, 206.0]) + 12 * gaussian_filter(rng.standard_normal((*size, 1)), (3, 3, 0))
    objects = np.zeros(size, np.uint8)
    for number in range(1, 13):
        centre = rng.uniform(0, size, 2)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.uniform(0.7, 1.2) * radius**2
        objects[inside] = number
        pixels[inside] = (104, 62, 140)
    return gaussian_filter(pixels, (0.7, 0.7, 0)).clip(0, 255).astype(np.uint8), objects


def write_tissue(folder: Path) -> None:
    """Two patients to train, one of them held out, and one to test, two pieces each, with maps of their objects."""
    for number in range(6):
        part = folder / ("training" if number < 4 else "test")
        for kind, pixels in zip(("images", "masks"), draw_tissue(number), strict=True):
            (part / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(part / kind / f"patient_{number // 2}{'LR'[number % 2]}.png")
