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
import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from monai.data import check_missing_files, load_decathlon_datalist
from monai.utils import ensure_tuple

from monai_ext.data.atomic import atomic_path
from monai_ext.data.dataset_layout import Record, Splits
from monai_ext.data.layouts import FOLDERS, LAYOUTS, find_records
from monai_ext.data.masks import MaskFormat

logger = logging.getLogger(__name__)

FILES = {"image", "label", "fov"}


class SegmentationData:
    """
    Images and masks as the MONAI datalists ``training``, ``validation`` and ``test``, which share no subject.

    A folder is read by its layout, which gives the test: official where there is one. A MONAI datalist (JSON) is taken
    as it is, paths relative to it. Where neither says what validates, the last subjects in sorted order are held out of
    training, never out of the test, so that two runs hold out the same people. Test images without mask are left out
    with a warning, as are masks without image.

    Args:
        root: a folder in one of the ``LAYOUTS``, or a datalist.
        layout: a key of ``LAYOUTS``; None recognises it.
        validation: share of the training subjects to hold out, 0 <= validation < 1, rounded up.
        subject: regular expression for the person in an image's path (below ``root``), in place of the layout's own;
            its groups are joined by ``-``. Own images are one person's up to the eye (``12_L``, ``12_R``).

    Attributes:
        training, validation, test: records of absolute paths ``image``, ``label`` and, if the set has them, ``fov``,
            and the name ``subject``.
        layout: the layout's name, or ``datalist``.
        masks: what the mask files mean, for :class:`monai_ext.data.LabelReader`.

    Raises:
        ValueError: no data, an image without mask outside the test, a subject in two splits, a file that is not there.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder in ("images", "masks"):
        ...     (root / folder).mkdir()
        ...     for name in ("1_L.png", "1_R.png", "2_L.png"):
        ...         (root / folder / name).touch()
        >>> data = SegmentationData(root=root, validation=0.5)
        >>> data.layout, [record["subject"] for record in data.training], len(data.validation), len(data.test)
        ('folders', ['1', '1'], 1, 0)
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str],
        layout: str | None = None,
        validation: float = 0.2,
        subject: str | None = None,
    ) -> None:
        if not 0 <= validation < 1:
            raise ValueError(f"`validation` must be a share of the subjects, 0 <= validation < 1, not {validation}.")
        self.layout, splits = read_splits(root, layout=layout, subject=subject)
        for sentences in (missing_images(splits), missing_masks(splits["test"])):
            if sentences:
                logger.warning("Left out: %s", _few(sentences))
        splits = {name: [record for record in split if "image" in record] for name, split in splits.items()}
        splits["test"] = [record for record in splits["test"] if "label" in record]
        problems = [sentence for name in splits if name != "test" for sentence in missing_masks(splits[name])]
        problems = problems or missing_files(splits) or shared_subjects(splits)
        if problems:
            raise ValueError(_few(problems))
        if "validation" not in splits:
            splits["training"], splits["validation"] = hold_out_subjects(splits["training"], validation)
        self.training, self.validation, self.test = splits["training"], splits["validation"], splits["test"]
        self.masks = masks_of(self.layout)


def read_splits(
    root: str | os.PathLike[str], *, layout: str | None = None, subject: str | None = None
) -> tuple[str, Splits]:
    """
    Return the layout's name and the records of a folder or datalist as found, whatever is wrong with them.

    A datalist that does not name a layout is called ``datalist``. ``training`` and ``test`` are always there,
    ``validation`` only if the data say what validates.
    """
    root = Path(os.path.abspath(Path(root).expanduser()))
    if root.is_file():
        return _read_datalist(root, subject)
    if not root.is_dir():
        raise ValueError(f"{root} does not exist; give the folder of a data set or a MONAI datalist (JSON).")
    name, splits = find_records(root, layout, subject)
    return name, {split: records for split, records in splits.items() if records or split != "validation"}


def masks_of(layout: str) -> MaskFormat:
    """What the mask files of a layout mean; those of a ``datalist`` are one's own."""
    return LAYOUTS.get(layout, FOLDERS).masks


def hold_out_subjects(training: Sequence[Record], fraction: float) -> tuple[list[Record], list[Record]]:
    """Divide records into those that stay and those of the last ``ceil(fraction * subjects)`` subjects in order."""
    subjects = sorted({record["subject"] for record in training})
    # As written: 0.07 * 100 is a little more than 7 in floating point and must not become 8.
    count = math.ceil(Fraction(str(fraction)) * len(subjects))
    if count and count == len(subjects):
        raise ValueError(
            f"`validation` {fraction} holds out all of the training subjects ({', '.join(subjects)}); "
            "add images of more people, or set it to 0."
        )
    held = set(subjects[len(subjects) - count :])
    return [r for r in training if r["subject"] not in held], [r for r in training if r["subject"] in held]


def missing_masks(records: Sequence[Record]) -> list[str]:
    """Say which images have no mask."""
    return [f"{r['image']} has no mask; add its mask or take the image away." for r in records if "label" not in r]


def missing_images(splits: Mapping[str, Sequence[Record]]) -> list[str]:
    """Say which masks have no image."""
    alone = [
        ensure_tuple(record["label"])[0] for records in splits.values() for record in records if "image" not in record
    ]
    return [f"{mask} belongs to no image; name it as its image or take it away." for mask in alone]


def missing_files(splits: Mapping[str, Sequence[Record]]) -> list[str]:
    """Say which files of a datalist are not there."""
    records = [record for split in splits.values() for record in split]
    missing = check_missing_files(records, keys=tuple(sorted(FILES)), allow_missing_keys=True)
    return [f"{path} does not exist; correct the datalist or bring the file back." for path in missing]


def shared_subjects(splits: Mapping[str, Sequence[Record]]) -> list[str]:
    """Say which subjects are in more than one split."""
    where: dict[str, list[str]] = defaultdict(list)
    for split, records in splits.items():
        for subject in {record["subject"] for record in records if "image" in record}:
            where[subject].append(split)
    return [
        f"Subject {subject} is in {' and '.join(found)}; put all images of a person into one split, or tell people "
        "apart by `subject`, a regular expression for the person in an image's path."
        for subject, found in sorted(where.items())
        if len(found) > 1
    ]


def write_datalist(data: SegmentationData, path: str | os.PathLike[str]) -> None:
    """Write a MONAI datalist (JSON) with paths relative to its folder, which ``SegmentationData`` reads back."""
    path = Path(os.path.abspath(Path(path).expanduser()))
    content: dict[str, object] = {"name": data.layout, "layout": data.layout}
    if (layout := LAYOUTS.get(data.layout, FOLDERS)) is not FOLDERS:
        content.update(reference=layout.source, licence=layout.licence)
    for split in ("training", "validation", "test"):
        content[split] = [_relative(record, path.parent) for record in getattr(data, split)]
    if not data.test:
        del content["test"]  # MONAI's reader takes an empty list here for a damaged one
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_datalist(path: Path, subject: str | None) -> tuple[str, Splits]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a MONAI datalist (JSON), but cannot be read: {error}.") from error
    if not isinstance(content, dict) or not content.keys() & {"training", "validation", "test", "testing"}:
        raise ValueError(f"{path} must hold lists named training, validation or test, and holds none of them.")
    splits: Splits = {"training": [], "test": []}
    for key in ("training", "validation", "test", "testing"):
        if key in content:
            entries = _entries(path, key, subject) if content[key] else []
            splits.setdefault("test" if key == "testing" else key, []).extend(entries)
    layout = content.get("layout", "datalist")
    if layout not in (*LAYOUTS, "datalist"):
        raise ValueError(
            f"{path}: `layout` must be one of {', '.join(LAYOUTS)}, not {layout!r}; it says how masks are read."
        )
    return layout, splits


def _entries(path: Path, key: str, subject: str | None) -> list[Record]:
    try:
        records = load_decathlon_datalist(path, data_list_key=key)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: `{key}` must be a list of {{'image': ..., 'label': ...}}: {error}.") from error
    for record in records:
        for name in {"image", *(FILES & record.keys())}:
            files = record.get(name)
            several = name == "label" and isinstance(files, list) and files and all(isinstance(f, str) for f in files)
            if not isinstance(files, str) and not several:
                raise ValueError(f"{path}: `{name}` must be one path in all of `{key}`, not {files!r}.")
        if subject or "subject" not in record:
            place = Path(os.path.relpath(record["image"], path.parent)).as_posix()
            record["subject"] = FOLDERS.subject_of(place, subject)
        record["subject"] = str(record["subject"])
    return records


def _relative(record: Record, folder: Path) -> Record:
    def relative(path: str | list[str]) -> str | list[str]:
        if isinstance(path, list):
            return [str(relative(one)) for one in path]
        try:
            return Path(os.path.relpath(path, folder)).as_posix()
        except ValueError:  # another drive
            return path

    return {key: relative(value) if key in FILES else value for key, value in record.items()}


def _few(sentences: Sequence[str]) -> str:
    shown = " ".join(sentences[:3])
    return shown if len(sentences) <= 3 else f"{shown} ({len(sentences) - 3} more like these; run the data check.)"
