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
from typing import Any

import numpy as np
from monai.utils import ensure_tuple

from monai_ext.data.dataset_layout import Record, Splits
from monai_ext.data.masks import MaskFormat
from monai_ext.data.masks.stored import stored_values
from monai_ext.data.nifti import is_nifti
from monai_ext.data.progress import with_progress
from monai_ext.data.reader import PhotographReader
from monai_ext.data.splits import (
    SegmentationData,
    masks_of,
    missing_images,
    missing_masks,
    read_splits,
    shared_subjects,
)
from monai_ext.data.volume_reader import VolumeReader

SMALLEST_SIDE = 64  # pixels; no fundus camera is that coarse, thumbnails are
_AT_ONCE = 16


def check_data(
    data: SegmentationData | str | os.PathLike[str],
    *,
    layout: str | None = None,
    subject: str | None = None,
    labels: Sequence[str] = (),
) -> list[str]:
    """
    Say in sentences what is wrong with a data set, all of it: every file is read.

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
    return examine_data(data, layout=layout, subject=subject, labels=labels)[0]


def examine_data(
    data: SegmentationData | str | os.PathLike[str],
    *,
    layout: str | None = None,
    subject: str | None = None,
    labels: Sequence[str] = (),
) -> tuple[list[str], dict[str, int]]:
    """Do what :func:`check_data` does, and count for each label with a name the images that show it."""
    shown: dict[str, int] = dict.fromkeys(labels, 0)
    if isinstance(data, SegmentationData):
        splits: Splits = {"training": data.training, "validation": data.validation, "test": data.test}
        masks = data.masks
    else:
        try:
            name, splits = read_splits(data, layout=layout, subject=subject)
            masks = masks_of(name)
            masks.check_labels(labels)
        except ValueError as error:
            return [str(error)], shown
    problems = _pair_problems(splits) + shared_subjects(splits)
    contents: dict[str, str] = {}
    # Frames of a public video may have equal masks.
    compared = ("image",) if masks.names else ("image", "label")
    everything = [(split, record) for split, records in splits.items() for record in records]
    for split, record in with_progress(everything, "Checking"):
        found = _record_problems(record, masks, labels, shown)
        problems += found
        # What is broken or empty looks alike without being copied.
        problems += [] if found else _copies(record, split, contents, compared)
    return problems, shown


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


def _record_problems(record: Record, masks: MaskFormat, labels: Sequence[str], shown: dict[str, int]) -> list[str]:
    problems: list[str] = []
    sizes: dict[str, tuple[int, ...]] = {}
    affines: dict[str, np.ndarray] = {}
    for name in ("image", "label", "fov"):
        if name in record:
            try:
                meta: dict[str, Any] = {}
                if name == "label":
                    sizes[name], meta, found = _read_mask(record["label"], masks, labels, shown)
                    problems += found
                elif is_nifti(record[name]):
                    values, meta = VolumeReader().get_data(record[name])
                    sizes[name] = values.shape
                else:
                    reader = PhotographReader(channels=3 if name == "image" else 1)
                    pixels = reader.get_data(reader.read(record[name]))[0]
                    sizes[name] = pixels.shape[:2]
                    if name == "fov" and not pixels.any():
                        problems.append(f"{record['fov']} marks no pixel as field of view; make it again.")
                if "affine" in meta:
                    affines[name] = meta["affine"]
            except ValueError as error:
                problems.append(str(error))
    if "image" in sizes:
        problems += _size_problems(record, sizes)
    if len(affines) == 2 and not np.allclose(affines["image"], affines["label"], atol=1e-3):
        problems.append(
            f"{record['image']} and its mask {ensure_tuple(record['label'])[0]} lie at different places or have "
            "different spacings (their affines differ); export the mask again from this volume."
        )
    return problems


def _read_mask(
    label: str | list[str], masks: MaskFormat, labels: Sequence[str], shown: dict[str, int]
) -> tuple[tuple[int, ...], dict[str, Any], list[str]]:
    """The mask's size and metadata, and what is wrong with what it marks."""
    files = [Path(path) for path in ensure_tuple(label)]
    known = masks.names_in(files)
    if not known and len(labels) < 2:
        values, meta = stored_values(files[0])
        for name in labels:
            shown[name] += bool(values.any())
        return values.shape, meta, _own_mask_problems(str(files[0]), values)
    names, seen = list(labels or known), 0
    # A few at a time: volumes with a hundred labels would fill the memory.
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        channels, meta = masks.read(files, some)
        for name, channel in zip(some, channels, strict=True):
            shown[name] = shown.get(name, 0) + bool(channel.any())
        seen += int(channels.any())
    own = [] if known or seen else [f"{files[0]} is empty: nothing is marked; mark it or take it away."]
    return channels.shape[1:], meta, own


def _size_problems(record: Record, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    sizes = {name: "x".join(map(str, shape)) for name, shape in shapes.items()}
    problems = [
        f"{record['image']} and its {word} {ensure_tuple(record[name])[0]} differ in size: {sizes['image']} against "
        f"{sizes[name]}; export the {word} again at the image's size."
        for name, word in (("label", "mask"), ("fov", "field of view"))
        if name in sizes and sizes[name] != sizes["image"]
    ]
    if not is_nifti(record["image"]) and min(shapes["image"]) < SMALLEST_SIDE:
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


def _copies(record: Record, split: str, contents: dict[str, str], names: Sequence[str]) -> list[str]:
    problems = []
    for name in names:
        # Of several mask files some may belong to all images.
        if isinstance(record.get(name), str):
            with open(record[name], "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            this = f"{record[name]} ({split})"
            first = contents.setdefault(digest, this)
            if first is not this:
                problems.append(f"{this} has the same content as {first}; keep one of the two.")
    return problems
