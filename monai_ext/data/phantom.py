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

import cmath
import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ext.data.atomic import atomic_path

_README = """\
These are synthetic pictures that look like fundus photographs. No eye was photographed and no patient exists.

images/  the pictures; phantom_<subject>L.png and phantom_<subject>R.png are the two eyes of one made-up subject
masks/   their vessels, exact by construction: 255 vessel, 0 elsewhere
fov/     the field of view: 255 inside, 0 outside

They are good for trying out a training and for tests. Numbers measured on them say nothing about real photographs.
"""


def write_phantoms(folder: str | os.PathLike[str], *, count: int = 20, size: int = 512, seed: int = 0) -> list[Path]:
    """
    Write synthetic fundus photographs with exact vessel masks, for a demo and tests that need no data.

    A picture has an orange-red background with texture and vignetting, a bright optic disc, a dark macula, arteries
    and veins that branch and taper, dark and bright spots that are no vessels, blur and noise. Colours and contrast
    belong to the subject, vessels and spots to the eye. The same arguments write the same pixels, and picture ``i``
    does not depend on ``count``.

    Args:
        folder: gets ``images/``, ``masks/``, ``fov/`` with files of the same names, and ``README.txt``.
        count: how many pictures; two follow each other for each subject, the left eye and the right.
        size: width and height in pixels, at least 64.
        seed: another seed gives other subjects.

    Returns:
        The paths of the pictures.

    Raises:
        ValueError: ``count`` is below 1 or ``size`` below 64.
        OSError: ``folder`` cannot be written.

    Example:
        >>> import tempfile
        >>> paths = write_phantoms(tempfile.mkdtemp(), count=2, size=64)
        >>> [path.name for path in paths]
        ['phantom_000L.png', 'phantom_000R.png']

    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}.")
    if size < 64:
        raise ValueError(f"size must be at least 64 pixels, not {size}.")
    folder, paths = Path(folder), []
    for index in range(count):
        name = f"phantom_{index // 2:03d}{'LR'[index % 2]}.png"
        for kind, pixels in zip(("images", "masks", "fov"), _draw_eye(index, size, seed), strict=True):
            with atomic_path(folder / kind / name) as temporary:
                Image.fromarray(pixels).save(temporary)
        paths.append(folder / "images" / name)
    with atomic_path(folder / "README.txt") as temporary:
        temporary.write_text(_README, encoding="utf-8")
    return paths


def write_retina(folder: str | os.PathLike[str]) -> Path:
    """
    Write the one real fundus photograph that ships inside scikit-image (1411x1411, CC0, M. Haggstrom 2014).

    Args:
        folder: gets ``retina.jpg``.

    Returns:
        The path of the photograph.

    Raises:
        FileNotFoundError: scikit-image is not installed, or its package lacks the photograph.

    Example:
        >>> import tempfile
        >>> write_retina(tempfile.mkdtemp()).name
        'retina.jpg'

    """
    spec = find_spec("skimage")
    source = Path(spec.origin or "").parent / "data" / "retina.jpg" if spec else None
    if source is None or not source.is_file():
        raise FileNotFoundError(
            f"retina.jpg ships with scikit-image, but {source or 'that'} is not there; pip install it."
        )
    target = Path(folder) / "retina.jpg"
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


@dataclass(frozen=True)
class _Eye:
    """Where things are, in pixels x + iy; ``side`` is +1 where the macula lies right of the disc, as in a left eye."""

    size: int
    side: int
    centre: complex
    radius: float
    disc: complex
    disc_radius: float
    macula: complex


def _draw_eye(index: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    subject = np.random.default_rng([seed, index // 2])
    rng = np.random.default_rng([seed, index // 2, index % 2 + 1])
    eye = _place(rng, size, side=1 if index % 2 == 0 else -1)
    arteries, veins = _grow_vessels(rng, eye)
    distance = _distance_to(eye.centre, eye) / eye.radius
    view = distance < 1
    mask = ((arteries > 0) | (veins > 0)) & view
    picture = _background(subject, rng, eye, distance)
    picture = _photograph(rng, _absorb(subject, picture, arteries, veins), eye)
    return picture, mask.astype(np.uint8) * 255, view.astype(np.uint8) * 255


def _place(rng: np.random.Generator, size: int, side: int) -> _Eye:
    radius = size * rng.uniform(0.455, 0.485)
    centre = complex(size / 2 + rng.normal(0, 0.004 * size), size / 2 + rng.normal(0, 0.004 * size))
    disc = centre + radius * complex(-side * rng.uniform(0.35, 0.55), rng.uniform(-0.12, 0.08))
    disc_radius = radius * rng.uniform(0.13, 0.16)
    macula = disc + disc_radius * complex(side * rng.uniform(4.6, 5.4), rng.uniform(0.3, 1.0))
    return _Eye(size, side, centre, radius, disc, disc_radius, macula)


def _grow_vessels(rng: np.random.Generator, eye: _Eye) -> np.ndarray:
    """Depth of blood, 0..1, in arteries and in veins: four arcades of each leave the disc."""
    canvases = np.zeros((2, eye.size, eye.size))
    for canvas, width, turn in zip(canvases, (0.0125, 0.0165), (-0.12, 0.12), strict=True):
        for away, up in ((1, -1), (1, 1), (-1, -1), (-1, 1)):
            # Temporal arcades rise steeply and bend round the macula; nasal ones run straight and are thinner.
            angle = rng.normal(1.15 if away > 0 else 0.75, 0.12) + turn
            heading = np.arctan2(up * np.sin(angle), eye.side * away * np.cos(angle))
            bend = -up * eye.side * away * rng.normal(0.85 if away > 0 else -0.1, 0.1) / eye.radius
            start = eye.disc + 0.15 * eye.disc_radius * complex(rng.normal(), rng.normal())
            radius = eye.radius * width * rng.uniform(0.85, 1.1) * (1 if away > 0 else 0.8)
            _grow(rng, eye, canvas, start, heading, radius, bend)
        for _ in range(2):  # small vessels straight to the macula or to the nasal side
            heading = rng.choice([0.0, np.pi]) + rng.normal(0, 0.35)
            _grow(rng, eye, canvas, eye.disc, heading, eye.radius * rng.uniform(0.005, 0.007), 0.0)
    return canvases


def _grow(
    rng: np.random.Generator, eye: _Eye, canvas: np.ndarray, start: complex, heading: float, radius: float, bend: float
) -> None:
    """Walk one vessel in small steps, paint it, then grow its branches."""
    step, side = max(0.4, 0.003 * eye.radius), rng.choice([-1, 1])
    until_branch, wander = rng.uniform(0.08, 0.2) * eye.radius, 0.0
    point, points, radii, branches = start, [], [], []
    while radius > 0.003 * eye.radius and _is_free(eye, canvas, start, point, heading):
        wander = 0.96 * wander + 0.03 * rng.normal()
        heading += step * (bend + 9 * wander / eye.radius)
        point += cmath.rect(step, heading)
        points.append(point)
        radii.append(radius)
        radius *= 1 - 0.35 * step / eye.radius
        until_branch -= step
        if until_branch < 0 and abs(point - eye.disc) > 0.8 * eye.disc_radius:
            share = rng.uniform(0.4, 0.75)
            branches.append((point, heading + side * rng.uniform(0.5, 1.0), radius * share))
            heading -= side * 0.25 * share
            radius *= (1 - 0.45 * share**3) ** (1 / 3)  # what flows off makes the parent thinner (Murray's law)
            until_branch = rng.uniform(0.1, 0.26) * eye.radius
            side = -side if rng.random() < 0.75 else side
    if points:
        # A vessel that ends inside the view thins out before its end.
        left = np.arange(len(points), 0, -1) * step / (0.3 * eye.radius) + (abs(point - eye.centre) >= eye.radius)
        _paint_tube(canvas, np.array(points), np.array(radii) * np.minimum(1, left), eye.radius)
    for where, direction, width in branches:
        _grow(rng, eye, canvas, where, direction, width, 0.4 * bend)


def _is_free(eye: _Eye, canvas: np.ndarray, start: complex, point: complex, heading: float) -> bool:
    """Whether a vessel may go on: in view, away from the macula, and with no vessel of its own kind ahead."""
    ahead = point + cmath.rect(0.03 * eye.radius, heading)
    if abs(ahead - eye.centre) > 1.03 * eye.radius or abs(point - eye.macula) < 0.11 * eye.radius:
        return False
    row, column = int(ahead.imag), int(ahead.real)
    young = abs(point - start) < 0.05 * eye.radius or abs(point - eye.disc) < 1.5 * eye.disc_radius
    return young or not (0 <= row < eye.size and 0 <= column < eye.size) or canvas[row, column] == 0


def _paint_tube(canvas: np.ndarray, points: np.ndarray, radii: np.ndarray, view_radius: float) -> None:
    """Draw discs along a line: a pixel is vessel if its centre lies nearer to the line than the radius there."""
    points = np.stack([points.real, points.imag], axis=-1)
    radii = np.maximum(radii, 0.6)  # else a thin vessel would pass between the pixel centres
    reach = int(np.ceil(radii.max()))
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)[::-1].T
    pixels = np.round(points).astype(int)[:, None] + offsets
    inside = ((pixels >= 0) & (pixels < len(canvas))).all(-1)
    relative = ((pixels - points[:, None]) ** 2).sum(-1) / radii[:, None] ** 2
    inside &= relative < 1
    # Thin vessels hold less blood, so they are faint.
    depth = np.sqrt(1 - np.minimum(relative, 1)) * np.minimum(1, 0.3 + radii[:, None] / (0.012 * view_radius))
    np.maximum.at(canvas, (pixels[inside][:, 1], pixels[inside][:, 0]), depth[inside])


def _background(subject: np.random.Generator, rng: np.random.Generator, eye: _Eye, distance: np.ndarray) -> np.ndarray:
    from scipy.ndimage import zoom

    colour = np.array([subject.uniform(0.7, 0.92), subject.uniform(0.32, 0.46), subject.uniform(0.1, 0.24)])
    texture = np.zeros_like(distance)
    for scale, strength in ((0.5, 0.1), (0.12, 0.05), (0.03, 0.035)):
        cells = int(eye.size / (scale * eye.radius)) + 3
        texture += strength * zoom(rng.normal(size=(cells, cells)), eye.size / cells)
    picture = colour * (1 + texture[..., None] * [0.5, 1.0, 1.0])
    picture *= (1 - rng.uniform(0.25, 0.45) * np.minimum(distance, 1) ** 2.5)[..., None]
    away = _distance_to(eye.macula, eye) / eye.radius
    shade = 0.3 * np.exp(-((away / 0.2) ** 2)) + 0.18 * np.exp(-((away / 0.07) ** 2))
    return _add_disc(subject, _add_spots(rng, picture * (1 - shade[..., None] * [0.45, 1.0, 1.0]), eye), eye)


def _add_spots(rng: np.random.Generator, picture: np.ndarray, eye: _Eye) -> np.ndarray:
    """Small haemorrhages (dark red) and drusen (pale yellow): what a vessel detector must not fall for."""
    for tint in ([-0.25, -0.5, -0.4], [0.15, 0.55, 0.6]):
        for _ in range(rng.integers(0, 14)):
            centre = eye.centre + cmath.rect(eye.radius * rng.uniform(0.1, 0.95), rng.uniform(0, 2 * np.pi))
            spread = eye.radius * rng.uniform(0.005, 0.016)
            spot = 1 / (1 + (_distance_to(centre, eye) / spread) ** 4)
            picture = picture * (1 + rng.uniform(0.4, 1) * spot[..., None] * tint)
    return picture


def _add_disc(subject: np.random.Generator, picture: np.ndarray, eye: _Eye) -> np.ndarray:
    away = _distance_to(eye.disc, eye, flatten=subject.uniform(0.85, 1)) / eye.disc_radius
    for edge, softness, colour in ((1.0, 0.05, [0.96, 0.74, 0.45]), (subject.uniform(0.35, 0.6), 0.1, [1, 0.9, 0.7])):
        share = 0.85 / (1 + np.exp(np.clip((away - edge) / softness, -50, 50)))
        picture = picture + share[..., None] * (np.array(colour) - picture)
    return picture


def _distance_to(centre: complex, eye: _Eye, flatten: float = 1.0) -> np.ndarray:
    y, x = np.ogrid[: eye.size, : eye.size]
    return np.hypot((x - centre.real) / flatten, y - centre.imag)


def _absorb(subject: np.random.Generator, picture: np.ndarray, arteries: np.ndarray, veins: np.ndarray) -> np.ndarray:
    """Blood takes light away by Beer and Lambert's law, green most; wide arteries reflect some along their middle."""
    strength = subject.uniform(0.75, 1.25)
    middle = np.clip((arteries - 0.85) / 0.15, 0, 1)
    blood = (arteries - 0.35 * middle)[..., None] * [0.1, 0.5, 0.35] + veins[..., None] * [0.25, 0.75, 0.5]
    return picture * np.exp(-strength * blood)


def _photograph(rng: np.random.Generator, picture: np.ndarray, eye: _Eye) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    picture = gaussian_filter(picture, (*(2 * [eye.size * rng.uniform(0.0009, 0.0018)]), 0))
    noise = gaussian_filter(rng.normal(size=picture.shape), (0.5, 0.5, 0))
    picture = picture * rng.uniform(0.85, 1.05) + rng.uniform(0.012, 0.025) * noise
    inside = np.clip(eye.radius - _distance_to(eye.centre, eye), 0, 1)[..., None]
    return np.round(255 * np.clip(picture * inside + 0.01, 0, 1)).astype(np.uint8)
