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

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

_OBJECTS = 12  # at most, in one scene


class DrawScene(Randomizable):
    """
    Draw a scene that no one photographed: textured objects on a textured ground, with a map of what is where.

    Blobs, polygons, rings, nested organs and branching trees of tubes, with colours, contrasts, textures, edges and
    noise at random. A promptable network learns from them what an object is, in unlimited number.

    Args:
        size: width and height in pixels, at least 32.
        seed: start of the random numbers; ``set_random_state`` starts them anew.

    Shape:
        The argument of a call is not looked at, so that any list can be the data of a ``Dataset``. The result holds
        ``image`` (3, size, size) float32 in 0..1 and ``label`` (1, size, size) int32: 0 for the ground, and a number
        for each object. Where objects overlap the later one is seen. A tree is one object.

    Raises:
        ValueError: ``size`` is below 32.

    Example:
        >>> scene = DrawScene(size=64)(None)
        >>> scene["image"].shape, bool(scene["label"].any())
        (torch.Size([3, 64, 64]), True)
    """

    def __init__(self, *, size: int, seed: int = 0) -> None:
        if size < 32:
            raise ValueError(f"size must be at least 32 pixels, not {size}.")
        self.size = size
        self.set_random_state(seed=seed)

    def __call__(self, _: Any) -> dict[str, torch.Tensor]:
        rng, size = self.R, self.size
        grey = rng.random_sample() < 0.5
        picture = _surface(rng, size, grey)
        objects = np.zeros((size, size), np.int32)
        for mask in _KINDS[rng.choice(len(_KINDS), p=_SHARES)](rng, size):
            if mask.any():
                objects[mask] = objects.max() + 1
                picture = _put(rng, picture, mask, grey)
        if not objects.any():
            objects[size // 3 : size // 2, size // 3 : size // 2] = 1
            picture = _put(rng, picture, objects == 1, grey)
        picture = gaussian_filter(picture, (rng.uniform(0, 1.2), rng.uniform(0, 1.2), 0))
        picture += rng.uniform(0, 0.06) * rng.standard_normal((size, size, 1 if grey else 3))
        image = torch.from_numpy(np.ascontiguousarray(picture.clip(0, 1).transpose(2, 0, 1), dtype=np.float32))
        return {"image": image, "label": torch.from_numpy(objects).unsqueeze(0)}


def _surface(rng: np.random.RandomState, size: int, grey: bool) -> np.ndarray:
    """A colour with texture of one or two grains, ``(size, size, 3)``."""
    colour = rng.uniform(0.1, 0.9, 1 if grey else 3) * np.ones(3)
    texture = np.zeros((size, size))
    for _ in range(rng.randint(1, 3)):
        cells = int(np.exp(rng.uniform(np.log(3), np.log(size / 2))))
        coarse = rng.standard_normal((cells + 1, cells + 1))
        texture += rng.uniform(0, 0.12) * zoom(coarse, size / (cells + 1) + 0.01, order=1)[:size, :size]
    return colour + texture[..., None] * (1 if grey else rng.uniform(0.3, 1, 3))


def _put(rng: np.random.RandomState, picture: np.ndarray, mask: np.ndarray, grey: bool) -> np.ndarray:
    """Paint an object over a picture: another surface, or the same one lighter or darker; an outline at times."""
    here = picture[mask].mean(0)
    surface = _surface(rng, len(mask), grey)
    if rng.random_sample() < 0.5:
        surface = picture + (surface - surface.mean((0, 1)))
    step = rng.uniform(0.1, 0.5) * rng.choice([-1, 1]) * (1 if grey else rng.uniform(0.3, 1, 3))
    surface += here + step - surface[mask].mean(0)
    alpha = gaussian_filter(mask.astype(np.float32), rng.uniform(0.3, 1.5))[..., None]
    painted = picture + alpha * (surface - picture)
    if rng.random_sample() < 0.25:
        painted += rng.uniform(-0.3, 0.3) * (4 * alpha * (1 - alpha)) ** 2
    return painted


def _blob(rng: np.random.RandomState, size: int, radius: float, centre: np.ndarray) -> np.ndarray:
    """A closed curve around a centre, smooth or with corners."""
    corners = rng.choice([3, 4, 5, 6, 48], p=[0.05, 0.1, 0.1, 0.05, 0.7])
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 2 * np.pi)
    radii = np.ones(corners)
    if corners == 48:
        for wave in range(2, 6):
            radii += rng.uniform(0, 0.35 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
    points = np.stack([np.cos(angles), flat * np.sin(angles)], -1) * (radius * radii)[:, None]
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + centre
    return _drawn(size, lambda pen: pen.polygon([tuple(point) for point in points], fill=1))


def _scattered(rng: np.random.RandomState, size: int) -> list[np.ndarray]:
    """Objects of about one size, few large ones or many small ones, as cells are."""
    count = rng.randint(1, _OBJECTS + 1)
    radius = size * np.exp(rng.uniform(np.log(0.03), np.log(0.3))) / np.sqrt(count) ** 0.5
    rings = rng.random_sample() < 0.15
    masks = []
    for _ in range(count):
        centre, scale = rng.uniform(0, size, 2), rng.uniform(0.6, 1.5)
        mask = _blob(rng, size, radius * scale, centre)
        if rings:
            mask &= ~_blob(rng, size, radius * scale * 0.5, centre)
        masks.append(mask)
    return masks


def _organs(rng: np.random.RandomState, size: int) -> list[np.ndarray]:
    """A body with organs inside it, one of them perhaps with a lesion."""
    centre = size / 2 + rng.uniform(-0.1, 0.1, 2) * size
    body = _blob(rng, size, size * rng.uniform(0.35, 0.5), centre)
    masks = [body]
    for _ in range(rng.randint(1, 6)):
        place = centre + rng.uniform(-0.28, 0.28, 2) * size
        radius = size * rng.uniform(0.04, 0.15)
        masks.append(_blob(rng, size, radius, place) & body)
        if rng.random_sample() < 0.3:
            masks.append(_blob(rng, size, radius * rng.uniform(0.2, 0.5), place) & masks[-1])
    return masks


def _tree(rng: np.random.RandomState, size: int) -> list[np.ndarray]:
    """Branching tubes that taper, as vessels do: one object."""
    lines: list[tuple[np.ndarray, float]] = []
    for _ in range(rng.randint(1, 5)):
        start, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        _grow(rng, lines, start, heading, size * rng.uniform(0.008, 0.03), size)

    def paint(pen: Any) -> None:
        for points, width in lines:
            pen.line([tuple(point) for point in points], fill=1, width=max(1, round(width)), joint="curve")

    return [_drawn(size, paint)]


def _grow(
    rng: np.random.RandomState,
    lines: list[tuple[np.ndarray, float]],
    start: np.ndarray,
    heading: float,
    width: float,
    size: int,
) -> None:
    points, bend = [start], rng.uniform(-0.08, 0.08)
    for _ in range(rng.randint(5, 25)):
        heading += bend + 0.12 * rng.standard_normal()
        points.append(points[-1] + size * 0.03 * np.array([np.cos(heading), np.sin(heading)]))
    lines.append((np.array(points), width))
    if width > max(1.0, 0.005 * size):
        for turn in rng.choice([-1, 1]) * np.array([rng.uniform(0.1, 0.4), -rng.uniform(0.3, 0.9)]):
            _grow(rng, lines, points[-1], heading + turn, width * rng.uniform(0.6, 0.9), size)


def _drawn(size: int, paint: Callable[[Any], None]) -> np.ndarray:
    canvas = Image.new("L", (size, size))
    paint(ImageDraw.Draw(canvas))
    return np.asarray(canvas) > 0


_KINDS = (_scattered, _organs, _tree)
_SHARES = (0.5, 0.25, 0.25)
