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

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.utils import ensure_tuple

from monai_ext.data.dataset_layout import Record, Splits
from monai_ext.data.masks import MaskFormat
from monai_ext.data.masks.stored import stored_values
from monai_ext.data.reader import PhotographReader
from monai_ext.data.splits import (
    SegmentationData,
    masks_of,
    missing_images,
    missing_masks,
    read_splits,
    shared_subjects,
)

SMALLEST_SIDE = 64  # pixels; no fundus camera is that coarse, thumbnails are


def check_data(
    data: SegmentationData | str | os.PathLike[str],
    *,
    layout: str | None = None,
    subject: str | None = None,
    labels: Sequence[str] = (),
) -> list[str]:
    """
    Say in sentences what is wrong with a data set, all of it: every picture is read.

    Covers images without mask and masks without image (a test set published without any masks is fine), sizes that
    differ, masks that hold what the layout does not know, files that cannot be read, constant or very small images,
    people in two splits, and the same file under two names. One's own masks must have two values if there is one
    label, and mark something, but not everything.

    Args:
        data: a folder, a datalist or what was read from one.
        layout: a key of ``LAYOUTS`` for a folder, None to recognise it.
        subject: regular expression for the person in an image's path, as for ``SegmentationData``.
        labels: names of one's own labels, if there are several; the public sets know theirs.

    Returns:
        One sentence per problem; an empty list if there is none.

    Example:
        >>> check_data("/no/such/folder")
        ['/no/such/folder does not exist; give the folder of a data set or a MONAI datalist (JSON).']
    """
    if isinstance(data, SegmentationData):
        splits: Splits = {"training": data.training, "validation": data.validation, "test": data.test}
        masks = data.masks
    else:
        try:
            name, splits = read_splits(data, layout=layout, subject=subject)
            masks = masks_of(name)
            masks.check_labels(labels)
        except ValueError as error:
            return [str(error)]
    problems = _pair_problems(splits) + shared_subjects(splits)
    contents: dict[str, str] = {}
    for split, records in splits.items():
        for record in records:
            found = _picture_problems(record, masks, labels)
            problems += found
            # What is broken or empty looks alike without being copied.
            problems += [] if found else _copies(record, split, contents)
    return problems


def _pair_problems(splits: Mapping[str, Sequence[Record]]) -> list[str]:
    problems = missing_images(splits)
    for split, records in splits.items():
        images = [record for record in records if "image" in record]
        if split != "test" or any("label" in record for record in images):
            problems += missing_masks(images)
        without = [record["image"] for record in images if "fov" not in record]
        if len(without) < len(images):
            problems += [f"{image} has no field of view, others have; add it or take all away." for image in without]
    return problems


def _picture_problems(record: Record, masks: MaskFormat, labels: Sequence[str]) -> list[str]:
    problems: list[str] = []
    sizes: dict[str, tuple[int, ...]] = {}
    for name in ("image", "label", "fov"):
        if name in record:
            try:
                if name == "label":
                    sizes[name], found = _read_mask(record["label"], masks, labels)
                    problems += found
                else:
                    reader = PhotographReader(channels=3 if name == "image" else 1)
                    pixels = reader.get_data(reader.read(record[name]))[0]
                    sizes[name] = pixels.shape[:2]
                    if name == "fov" and not pixels.any():
                        problems.append(f"{record['fov']} marks no pixel as field of view; make it again.")
            except ValueError as error:
                problems.append(str(error))
    return problems + (_size_problems(record, sizes) if "image" in sizes else [])


def _read_mask(label: str | list[str], masks: MaskFormat, labels: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """The mask's size, and what is wrong with what it marks."""
    files = [Path(path) for path in ensure_tuple(label)]
    if masks.names or len(labels) > 1:
        channels, _ = masks.read(files, labels or masks.names)
        own = (
            []
            if masks.names or channels.any()
            else [f"{files[0]} is empty: nothing is marked; mark it or take it away."]
        )
        return channels.shape[1:], own
    values, _ = stored_values(files[0])
    return values.shape, _own_mask_problems(str(files[0]), values)


def _size_problems(record: Record, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    sizes = {name: "x".join(map(str, shape)) for name, shape in shapes.items()}
    problems = [
        f"{record['image']} and its {word} {ensure_tuple(record[name])[0]} differ in size: {sizes['image']} against "
        f"{sizes[name]}; export the {word} again at the image's size."
        for name, word in (("label", "mask"), ("fov", "field of view"))
        if name in sizes and sizes[name] != sizes["image"]
    ]
    if min(shapes["image"][:2]) < SMALLEST_SIDE:
        problems.append(
            f"{record['image']} is only {sizes['image']} pixels, less than {SMALLEST_SIDE} on a side; "
            "take the photograph in full size, not its thumbnail."
        )
    return problems


def _own_mask_problems(path: str, mask: np.ndarray) -> list[str]:
    values = np.unique(mask)
    if len(values) > 2:
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        return [
            f"{path} has {len(values)} values ({shown}) where a mask has two, background and foreground; "
            "export it without smoothing, not as JPEG, and with one label, or name its labels."
        ]
    if not values.any():
        return [f"{path} is empty: nothing is marked; mark it or take the pair away."]
    if values[0] > 0:
        return [f"{path} marks every pixel (smallest value {values[0]}, background is 0); export it with background 0."]
    return []


def _copies(record: Record, split: str, contents: dict[str, str]) -> list[str]:
    problems = []
    for name in ("image", "label"):
        # Of several mask files some may belong to all images.
        if isinstance(record.get(name), str):
            with open(record[name], "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            this = f"{record[name]} ({split})"
            first = contents.setdefault(digest, this)
            if first is not this:
                problems.append(f"{this} has the same content as {first}; keep one of the two.")
    return problems
