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

"""Small pictures of tissue, as several tests need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw_picture(path: Path, size: tuple[int, int] = (96, 80), seed: int = 0) -> np.ndarray:
    """A light ground with dark discs; returns where the discs are, ``(H, W)`` bool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[1], : size[0]]
    discs = np.zeros(size[::-1], bool)
    for _ in range(4):
        cx, cy, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(5, 10)
        discs |= (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    pixels = np.where(discs[..., None], (120, 60, 140), (230, 200, 220)) + rng.integers(-8, 8, (*size[::-1], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return discs
