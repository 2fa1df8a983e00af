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

import colorsys
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.utils import ensure_tuple
from PIL import Image, ImageDraw

from monai_ext.data.atomic import atomic_path
from monai_ext.data.dataset_layout import Record
from monai_ext.data.masks import MaskFormat
from monai_ext.data.nifti import is_nifti
from monai_ext.data.progress import with_progress
from monai_ext.data.reader import PhotographReader
from monai_ext.data.splits import masks_of, read_splits
from monai_ext.data.volume_reader import VolumeReader

TILE, LINE, GAP = 256, 16, 6  # pixels
WINDOW = (-160, 240)  # HU, soft tissue
MOST_LABELS = 20


class Tile(NamedTuple):
    """A picture that is to be drawn, ``(H, W, 3)`` in 0..1, and how much of each pixel the labels cover."""

    name: str
    picture: np.ndarray
    labels: dict[str, np.ndarray]


def write_sheet(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    subject: str | None = None,
    labels: Sequence[str] = (),
    count: int = 24,
) -> list[str]:
    """
    Draw images with their masks on one sheet, each label in a colour of its own: a look at a whole data set.

    Of a volume the axial slice is drawn that shows the most of its labels, between -160 and 240 HU.

    Args:
        source: a folder or a datalist, as for :class:`monai_ext.data.SegmentationData`.
        out: the picture to write.
        layout: a key of ``LAYOUTS`` for a folder, None to recognise it.
        subject: regular expression for the person in an image's path.
        labels: the labels to draw; by default all that the files know.
        count: how many images, spread evenly over all that have masks.

    Returns:
        A sentence for each image that could not be drawn; the others are.

    Raises:
        ValueError: there is no image with a mask, none can be drawn, or ``count`` or a label is wrong.

    Example:
        >>> import tempfile
        >>> from monai_ext.data.phantom import write_phantoms
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_phantoms(folder, count=2, size=64)
        >>> write_sheet(folder, folder / "sheet.png")
        []
    """
    if count < 1:
        raise ValueError(f"`count` must be 1 or more, not {count}.")
    name, splits = read_splits(source, layout=layout, subject=subject)
    masks = masks_of(name)
    masks.check_labels(labels)
    records = [record for split in splits.values() for record in split if {"image", "label"} <= record.keys()]
    if not records:
        raise ValueError(f"{source} holds no image with a mask; add masks.")
    chosen = [records[at] for at in np.unique(np.linspace(0, len(records) - 1, count).round().astype(int))]
    tiles, problems = [], []
    for record in with_progress(chosen, "Drawing"):
        try:
            tiles.append(_tile(record, masks, labels))
        except ValueError as error:
            problems.append(str(error))
    if not tiles:
        raise ValueError(f"None of the images can be drawn: {problems[0]}")
    with atomic_path(out) as temporary:
        _sheet(tiles).save(temporary)
    return problems


def _tile(record: Record, masks: MaskFormat, labels: Sequence[str]) -> Tile:
    files = [Path(file) for file in ensure_tuple(record["label"])]
    names = list(labels or masks.names_in(files) or ["mask"])
    if len(names) > MOST_LABELS:
        raise ValueError(f"{files[0].parent} knows {len(names)} labels; choose at most {MOST_LABELS} by --labels.")
    channels = masks.read(files, names)[0]
    if is_nifti(record["image"]):
        pixels, image_meta = VolumeReader().get_data(record["image"])
    else:
        reader, image_meta = PhotographReader(), {}
        pixels = reader.get_data(reader.read(record["image"]))[0]
    if pixels.shape[: channels.ndim - 1] != channels.shape[1:]:
        sizes = ["x".join(map(str, shape)) for shape in (pixels.shape[: channels.ndim - 1], channels.shape[1:])]
        raise ValueError(
            f"{record['image']} and its mask {files[0]} differ in size: {sizes[0]} against {sizes[1]}; "
            "run the data check."
        )
    if "affine" in image_meta:
        pixels, channels = _axial_slice(pixels, channels, image_meta["affine"])
    covers = {name: _reduced(channel.T) for name, channel in zip(names, channels, strict=True)}
    picture = np.stack([_reduced(pixels[..., colour].T) for colour in range(3)], axis=-1)
    return Tile(Path(record["image"]).name, picture, covers)


def _axial_slice(volume: np.ndarray, channels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slice with the most labelled voxels, its front up and the patient's right on the left."""
    from nibabel.orientations import apply_orientation, io_orientation

    turn = io_orientation(affine)
    volume, *masks = (apply_orientation(array, turn)[::-1, ::-1] for array in (volume, *channels))
    at = int(np.argmax(sum(mask.sum((0, 1)) for mask in masks)))
    grey = np.clip((volume[..., at] - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)
    return np.repeat(grey[..., None], 3, axis=-1), np.stack([mask[..., at] for mask in masks])


def _reduced(plane: np.ndarray) -> np.ndarray:
    """A plane as large as a tile allows, every pixel the mean of what it stands for."""
    scale = TILE / max(plane.shape)
    size = [max(1, round(side * scale)) for side in plane.shape[::-1]]
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BOX))


def _sheet(tiles: Sequence[Tile]) -> Image.Image:
    names = list(dict.fromkeys(name for tile in tiles for name in tile.labels))
    shades = [colorsys.hsv_to_rgb(number / len(names), 0.9, 1) for number in range(len(names))]
    colours = dict(zip(names, shades, strict=True))
    columns = math.ceil(math.sqrt(len(tiles)))
    width = GAP + columns * (TILE + GAP)
    legend = GAP + len(names) * LINE
    row = TILE + LINE + GAP
    sheet = Image.new("RGB", (width, legend + math.ceil(len(tiles) / columns) * row + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, colour) in enumerate(colours.items()):
        top = GAP + number * LINE
        draw.rectangle((GAP, top, GAP + 10, top + 10), fill=_bytes(colour))
        draw.text((GAP + 18, top - 1), _written(name), fill="black")
    for number, tile in enumerate(tiles):
        x, y = GAP + number % columns * (TILE + GAP), legend + number // columns * row
        sheet.paste(Image.fromarray(_drawn(tile, colours)), (x, y + LINE))
        draw.text((x, y), _written(tile.name)[: TILE // 7], fill="black")
    return sheet


def _drawn(tile: Tile, colours: dict[str, tuple[float, float, float]]) -> np.ndarray:
    """Tint what a label covers and draw its outline."""
    from scipy.ndimage import binary_erosion

    picture = tile.picture.copy()
    for name, cover in tile.labels.items():
        inside = cover >= 0.5
        share = np.where(inside & ~binary_erosion(inside), 0.9, 0.4 * cover)[..., None]
        picture = (1 - share) * picture + share * np.array(colours[name])
    return (255 * picture).round().astype(np.uint8)


def _bytes(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _written(text: str) -> str:
    """What Pillow's own font can write of a text."""
    return text.encode("latin-1", "replace").decode("latin-1")
