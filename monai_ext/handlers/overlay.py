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

import logging
import os
from itertools import cycle
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events

from monai_ext.handlers.files import require_writable
from monai_ext.handlers.utils import (
    batch_items,
    image_names,
    item_value,
    source_path,
    unique_stem,
    upright,
    write_picture,
)

logger = logging.getLogger(__name__)

GREEN, RED, BLUE = (0, 200, 0), (255, 0, 0), (40, 80, 255)
# Far from the reds and browns of tissue and from one another.
LABEL_COLOURS = ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (80, 120, 255), (255, 255, 255))
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class OverlayHandler:
    """
    Write pictures that compare prediction and truth on the photograph: green both, red false, blue missed.

    Each image has one file, ``<output_dir>/<image name>.jpg``, that is overwritten by later epochs. A picture that
    cannot be written is logged and costs nothing else. Of several processes each draws its own images.

    Args:
        output_dir: folder of the pictures; made if missing.
        interval: draw every so many epochs.
        max_images: draw at most so many images an epoch; all by default.
        image_key: item with the image.
        pred_key: item with the predicted masks.
        label_key: item with the true masks.

    Shape:
        `(C, W, H)` each, as MONAI's reader gives them; masks are 0 or 1.

    Raises:
        ValueError: at construction, a number is not positive.
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> OverlayHandler(output_dir="overlays", max_images=4).max_images
        4
    """

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        interval: int = 1,
        max_images: int | None = None,
        image_key: str = "image",
        pred_key: str = "pred",
        label_key: str = "label",
    ) -> None:
        for name, value in (("interval", interval), ("max_images", max_images)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}.")
        self.output_dir = Path(output_dir)
        self.interval = interval
        self.max_images = max_images
        self.keys = (image_key, pred_key, label_key)
        self._names: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a MONAI evaluator.
        """
        require_writable(self.output_dir / "overlay.jpg")
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        self._names = image_names(engine)

    def _draw(self, engine: Engine) -> None:
        if engine.state.epoch % self.interval:
            return
        for item in batch_items(engine):
            name = unique_stem(source_path(item), self._names)
            if self.max_images is not None and list(self._names).index(name) >= self.max_images:
                continue
            picture = draw_overlay(*(upright(item_value(item, key)) for key in self.keys))
            try:
                write_picture(self.output_dir / f"{name}.jpg", picture)
            except OSError as error:
                logger.warning("%s", error)


def draw_overlay(image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """
    Draw masks on a photograph.

    With ``truth``: green where both have a label, red where only the mask has it, blue where it is missed. Without: an
    outline and a tint, one colour per label.

    Args:
        image: the photograph; whole numbers of any depth, 0 to 1, or normalised as the network wants it (then, as
            some values are negative, ImageNet's mean and deviation are undone).
        mask: predicted masks, 0 or 1.
        truth: true masks, 0 or 1.

    Shape:
        image `(C, H, W)` with one channel, three or four (alpha is dropped); masks `(L, H, W)` or `(H, W)`;
        the result `(H, W, 3)` uint8.

    Raises:
        ValueError: the sizes differ.

    Example:
        >>> draw_overlay(np.zeros((3, 4, 6)), np.ones((1, 4, 6)), np.ones((1, 4, 6)))[0, 0].tolist()
        [0, 140, 0]
    """
    picture = _photograph(image)
    masks = _planes(mask, picture)
    if truth is None:
        for plane, colour in zip(masks, cycle(LABEL_COLOURS), strict=False):
            _tint(picture, plane, colour, 0.3)
            _tint(picture, _outline(plane), colour, 0.9)
    else:
        truths = _planes(truth, picture)
        for region, colour in ((masks & truths, GREEN), (masks & ~truths, RED), (~masks & truths, BLUE)):
            _tint(picture, region.any(axis=0), colour, 0.7)
    return picture.round().astype(np.uint8)


def _photograph(image: np.ndarray) -> np.ndarray:
    picture = np.moveaxis(image[:3] if len(image) >= 3 else image[[0, 0, 0]], 0, -1)
    if np.issubdtype(picture.dtype, np.integer):
        picture = picture / np.iinfo(picture.dtype).max
    picture = np.nan_to_num(picture.astype(np.float64))
    if picture.min() < 0:
        picture = picture * IMAGENET_STD + IMAGENET_MEAN
    return 255 * np.clip(picture / max(picture.max(), 1), 0, 1)


def _planes(mask: np.ndarray, picture: np.ndarray) -> np.ndarray:
    planes = mask.reshape(-1, *mask.shape[-2:]) > 0.5
    if planes.shape[1:] != picture.shape[:2]:
        raise ValueError(f"a mask must be as large as its image {picture.shape[:2]}, not {planes.shape[1:]}.")
    return planes


def _outline(plane: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return plane & ~binary_erosion(plane)


def _tint(picture: np.ndarray, region: np.ndarray, colour: tuple[int, int, int], strength: float) -> None:
    picture[region] = (1 - strength) * picture[region] + strength * np.array(colour)
