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

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from monai_ext.data.atomic import atomic_path
from monai_ext.data.nifti import is_nifti, read_nifti
from monai_ext.data.reader import picture_size
from monai_ext.label.mask_files import index_mask, read_mask
from monai_ext.label.outlines import read_outlines
from monai_ext.label.refusal import RequestRefused


class SavedLabel(NamedTuple):
    """One label that an annotator finished: the picture, its mask, and what the client said of it."""

    image: Path
    mask: Path
    info: Mapping[str, Any]


def write_training_list(
    saved: Sequence[SavedLabel], labels: Sequence[str], folder: Path, *, volumes: bool = False
) -> tuple[Path, list[str]]:
    """
    Write the saved labels as the MONAI datalist that a bundle trains on.

    The numbers in a mask mean what the client said with it (``label_info``, a list of ``name`` and ``idx``, as 3D
    Slicer and our page send it); without that, 1 is the bundle's first label, and with one label every number is it.
    A mask whose names are all of other labels is left out: it belongs to another adapter.

    Args:
        saved: the labels.
        labels: the bundle's labels.
        folder: where the list and its masks go.
        volumes: whether the bundle segments volumes, whose masks are NIfTI.

    Returns:
        The list's path, and a sentence for each label that cannot be used.

    Raises:
        RequestRefused: fewer than two are left, one to train on and one to validate.
    """
    records, problems = [], []
    for number, label in enumerate(saved):
        path = folder / "masks" / f"{number:05d}{'.nii.gz' if volumes else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if (_write_volume if volumes else _write_picture)(label, labels, path):
                records.append({"image": str(label.image), "label": str(path)})
        except ValueError as error:
            problems.append(f"{label.image.name} is left out: {error}")
    if len(records) < 2:
        reasons = f" ({' '.join(problems[:3])})" if problems else ""
        raise RequestRefused(
            f"Training needs the saved labels of at least two pictures, one of them to validate on; there are "
            f"{len(records)} with {', '.join(labels)}{reasons}.",
            409,
        )
    path = folder / "datalist.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"training": records}, indent=2) + "\n")
    return path, problems


def _write_picture(label: SavedLabel, labels: Sequence[str], path: Path) -> bool:
    size, info = picture_size(label.image), label.info
    if label.mask.suffix == ".xml":
        drawn, names = read_outlines(label.mask, size)
        info = {"label_info": [{"name": name, "idx": number} for name, number in names.items()]}
    else:
        drawn = read_mask(label.mask, size)
    mask = _own_numbers(drawn, labels, info)
    if mask is None:
        return False
    Image.fromarray(mask).save(path)
    return True


def _write_volume(label: SavedLabel, labels: Sequence[str], path: Path) -> bool:
    import nibabel

    if not is_nifti(label.mask):
        raise ValueError("the mask of a volume must be NIfTI.")
    values, affine = read_nifti(label.mask)
    mask = _own_numbers(np.asarray(values), labels, label.info)
    if mask is None:
        return False
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), path)
    return True


def _own_numbers(mask: np.ndarray, labels: Sequence[str], info: Mapping[str, Any]) -> np.ndarray | None:
    """The mask with the bundle's numbers; None if it says nothing of the bundle's labels."""
    meaning = _meaning(info)
    if meaning:
        own = [meaning.get(label.lower()) for label in labels]
        if not any(own):
            return None
        return index_mask(np.stack([mask == number if number else np.zeros(mask.shape, bool) for number in own]))
    if len(labels) == 1:
        return (mask > 0).astype(np.uint8)
    if mask.max() > len(labels):
        raise ValueError(f"its mask must hold 0 to {len(labels)} for {', '.join(labels)}, not {mask.max()}.")
    return mask


def _meaning(info: Mapping[str, Any]) -> dict[str, int]:
    """What the numbers of a mask mean, by the label's name in lower case."""
    given = info.get("label_info")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return {}
    names = {}
    for entry in given:
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str) and isinstance(entry.get("idx"), int):
            names[entry["name"].lower()] = entry["idx"]
    return names
