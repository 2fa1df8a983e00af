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

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.handlers.overlay import draw_overlay
from monai_ext.handlers.table_writer import RunImages, TableWriter
from monai_ext.handlers.utils import item_value, upright, write_picture


class SegmentationWriter(TableWriter):
    """
    Write what inference found: for every image a mask, a probability map, an overlay and rows in ``results.csv``.

    - ``<name>_mask.png``, 8 bit: one label is 0 and 255, so that people see it; several are 0 (none) and 1, 2, ... in
      the order of ``labels``, a later label over an earlier one.
    - ``<name>_probability.png``, 16 bit grey, 65535 = certain (``<name>_probability_<label>.png`` for several labels).
    - ``<name>_overlay.jpg``, outline and tint on the photograph.
    - ``results.csv``, one row per image and label: size, pixels, their share of the field of view, mean probability
      inside the mask, and the files. It is rewritten after each image, so nothing is lost if the run is killed.

    Args:
        output_dir: folder of all files; made if missing.
        labels: names of the channels.
        overlay: whether to draw overlays.
        images: is told by ``add_failure(path, reason)`` of an image whose files could not be written, while the rest
            goes on; without it the error ends the run.
        image_key: item with the image.
        pred_key: item with the predicted masks.
        probability_key: item with the probabilities; without it no map is written.
        fov_key: item with the field of view; without it the whole image counts.

    Shape:
        `(C, W, H)` each, as MONAI's reader gives them; masks are 0 or 1, probabilities 0 to 1.

    Raises:
        ValueError: at construction, labels cannot be used; later, an item has another number of channels.
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> SegmentationWriter(output_dir="out", labels=["vessel"]).table_path.as_posix()
        'out/results.csv'
    """

    columns = (
        *("image", "width", "height", "label", "pixels", "share", "mean_probability"),
        *("mask", "probability", "overlay"),
    )

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        labels: Sequence[str],
        overlay: bool = True,
        images: RunImages | None = None,
        image_key: str = "image",
        pred_key: str = "pred",
        probability_key: str = "probability",
        fov_key: str = "fov",
    ) -> None:
        if isinstance(labels, str) or not 0 < len(labels) < 256:
            raise ValueError(f"labels must be a list of 1 to 255 names, not {labels!r}.")
        super().__init__(Path(output_dir) / "results.csv", images)
        self.labels = list(labels)
        self.overlay = overlay
        self.image_key, self.pred_key = image_key, pred_key
        self.probability_key, self.fov_key = probability_key, fov_key

    def write_image(self, path: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        name = self.name_of(path)
        masks = upright(item_value(item, self.pred_key)) > 0.5
        if len(masks) != len(self.labels):
            raise ValueError(f"{path}: {self.pred_key!r} must have {len(self.labels)} channels, not {len(masks)}.")
        files = {"mask": f"{name}_mask.png", "overlay": f"{name}_overlay.jpg" if self.overlay else None}
        write_picture(self.output_dir / files["mask"], _index_picture(masks))  # type: ignore[operator]
        if self.overlay:
            picture = draw_overlay(upright(item_value(item, self.image_key)), masks)
            write_picture(self.output_dir / f"{name}_overlay.jpg", picture)
        rows = self._measure(item, masks)
        for row in rows:
            row |= {"image": path, **files, "probability": self._write_probability(name, item, row["label"])}
        return rows

    def _write_probability(self, name: str, item: Mapping[str, Any], label: str) -> str | None:
        if self.probability_key not in item:
            return None
        probability = upright(item_value(item, self.probability_key))[self.labels.index(label)]
        file = f"{name}_probability.png" if len(self.labels) == 1 else f"{name}_probability_{label}.png"
        write_picture(self.output_dir / file, (probability.clip(0, 1) * 65535).round().astype(np.uint16))
        return file

    def _measure(self, item: Mapping[str, Any], masks: np.ndarray) -> list[dict[str, Any]]:
        height, width = masks.shape[1:]
        fov = upright(item_value(item, self.fov_key))[0] > 0.5 if self.fov_key in item else np.ones_like(masks[0])
        chances = upright(item_value(item, self.probability_key)) if self.probability_key in item else masks * np.nan
        return [
            {
                "width": width,
                "height": height,
                "label": label,
                "pixels": int(mask.sum()),
                "share": float(mask[fov].mean()) if fov.any() else None,
                "mean_probability": float(chance[mask].mean()) if mask.any() else None,
            }
            for label, mask, chance in zip(self.labels, masks, chances, strict=True)
        ]


def _index_picture(masks: np.ndarray) -> np.ndarray:
    if len(masks) == 1:
        return masks[0].astype(np.uint8) * 255
    picture = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in enumerate(masks, start=1):
        picture[mask] = number
    return picture
