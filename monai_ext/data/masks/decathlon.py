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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.base import MaskFormat
from monai_ext.data.masks.index import IndexMask
from monai_ext.data.masks.values import ValueMask


class DecathlonMask(MaskFormat):
    """
    Volumes whose numbers are named in the ``dataset.json`` beside them, as in the Medical Segmentation Decathlon.

    The names are those of the file, so a label is exactly its number: in Task03 the liver is without its cancer.
    Without ``dataset.json`` volumes are read as one's own masks, see :class:`monai_ext.data.masks.IndexMask`.

    Raises:
        ValueError: ``dataset.json`` is damaged or does not name a label, or a volume holds a number that it does not
            name.

    Example:
        >>> import nibabel, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> nibabel.save(nibabel.Nifti1Image(np.eye(3, dtype="u1")[None], np.eye(4)), folder / "spleen_8.nii.gz")
        >>> _ = (folder / "dataset.json").write_text('{"labels": {"0": "background", "1": "spleen"}}')
        >>> files = [folder / "spleen_8.nii.gz", folder / "dataset.json"]
        >>> DecathlonMask().names_in(files), int(DecathlonMask().read(files, ["spleen"])[0].sum())
        (('spleen',), 3)
    """

    def read(self, files: Sequence[Path], labels: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        volume, *named = files
        if not named:
            return IndexMask().read(files, labels)
        masks = _named(named[0])
        try:
            masks.check_labels(labels)
        except ValueError as error:
            raise ValueError(f"{named[0]}: {error}") from error
        return masks.read([volume], labels)

    def names_in(self, files: Sequence[Path]) -> tuple[str, ...]:
        return _named(files[1]).names if len(files) > 1 else ()


def _named(file: Path) -> ValueMask:
    try:
        named = json.loads(file.read_text(encoding="utf-8"))["labels"]
        values = {str(name): [int(number)] for number, name in named.items() if int(number)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} must be a JSON with `labels` as {{number: name}}, but cannot be read: {error}; "
            "copy it again from its source."
        ) from error
    return ValueMask(values=values)
