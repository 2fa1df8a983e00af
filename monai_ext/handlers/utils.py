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

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from PIL import Image

from monai_ext.data.atomic import atomic_path


def batch_items(engine: Engine) -> list[dict[str, Any]]:
    """
    Return one dictionary per image of the current iteration: what the loader gave, then what the engine made of it.

    Args:
        engine: a MONAI engine after its postprocessing.

    Raises:
        ValueError: the engine does not decollate its batches.
    """
    batch, output = engine.state.batch, engine.state.output
    if not isinstance(batch, list) or not isinstance(output, list):
        raise ValueError(
            "the engine's batch and output must be lists with one item per image, not "
            f"{type(batch).__name__} and {type(output).__name__}: leave its decollate=True."
        )
    return [{**before, **after} for before, after in zip(batch, output, strict=True)]


def iteration_loss(output: Any) -> float:
    """
    Return the loss of an iteration from a trainer's output, decollated or not.

    Args:
        output: a dictionary with ``loss``, or a list of them, one per image, that all hold the same loss.

    Example:
        >>> iteration_loss({"loss": 0.5}), iteration_loss([{"loss": 0.5}, {"loss": 0.5}])
        (0.5, 0.5)
    """
    loss = (output[0] if isinstance(output, list) else output)["loss"]
    return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)


def item_value(item: Mapping[str, Any], key: str) -> torch.Tensor:
    """
    Return ``item[key]`` as a plain CPU tensor, float32 if it is of any floating type.

    Args:
        item: one of :func:`batch_items`.
        key: which entry.

    Raises:
        KeyError: there is no such entry; the message lists those there are.
    """
    if key not in item:
        raise KeyError(
            f"{key!r} is missing from the engine's items, which have {sorted(map(str, item))}: name the right key."
        )
    value = torch.as_tensor(item[key])
    # A metadata tensor would run every operation through its own slow dispatch.
    value = (value.as_tensor() if hasattr(value, "as_tensor") else value).detach().cpu()
    return value.float() if value.is_floating_point() else value


def upright(value: torch.Tensor) -> np.ndarray:
    """
    Turn MONAI's `(..., W, H)` order of a picture into the `(..., H, W)` that people and files use.

    Args:
        value: a CPU tensor.

    Example:
        >>> upright(torch.zeros(1, 640, 480)).shape
        (1, 480, 640)
    """
    return value.numpy().swapaxes(-1, -2)


def source_path(item: Mapping[str, Any]) -> str:
    """
    Return the file an item was loaded from.

    Args:
        item: one of :func:`batch_items`.

    Raises:
        ValueError: no tensor of the item remembers its file.
    """
    for value in item.values():
        name = getattr(value, "meta", {}).get("filename_or_obj")
        if name:
            return str(name)
    raise ValueError(
        f"none of the items {sorted(map(str, item))} remembers the file it came from: load images with LoadImaged."
    )


def image_names(engine: Engine) -> dict[str, str]:
    """
    Return what :func:`unique_stem` begins with, so that all processes name an image alike.

    In a single process that is nothing; in several it is the names of all images that their loaders go through.

    Args:
        engine: a MONAI engine; its data set is MONAI's, or a ``ConcatDataset`` of such, of records with ``image``.

    Example:
        >>> image_names(Engine(lambda engine, batch: batch))
        {}
    """
    names: dict[str, str] = {}
    if idist.get_world_size() > 1:
        dataset = engine.data_loader.dataset  # type: ignore[attr-defined]
        for part in getattr(dataset, "datasets", [dataset]):
            for record in part.data:
                unique_stem(str(record["image"]), names)
    return names


def unique_stem(path: str, taken: dict[str, str]) -> str:
    """
    Return a name for what is made from ``path``, different for every path though file names may repeat in folders.

    Args:
        path: an image file.
        taken: names given so far and their paths; the new one is added.

    Example:
        >>> taken = {}
        >>> [unique_stem(path, taken) for path in ("a/01.png", "b/01.png", "a/01.png")]
        ['01', '01-2', '01']
    """
    stem = Path(path).stem
    name, number = stem, 1
    while taken.setdefault(name, path) != path:
        number += 1
        name = f"{stem}-{number}"
    return name


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """
    Write a CSV file in one go; ``NaN`` and ``None`` become empty cells.

    Args:
        path: the file.
        columns: its header.
        rows: one mapping per line.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: None if value != value else value for key, value in row.items()} for row in rows)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """
    Write a picture in the format its name says.

    Args:
        path: the file, ``.png`` or ``.jpg``.
        pixels: `(H, W)` uint8 or uint16, or `(H, W, 3)` uint8.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        # Full chroma resolution (JPEG only), or one pixel wide coloured lines turn grey.
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, quality=90, subsampling=0)
