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
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from monai_ext.data.dataset_layout import DatasetLayout, Record
from monai_ext.data.tables import read_column


class SplitTable(NamedTuple):
    """A CSV file with the split of every image: its path, the column with the image, that with the split, its words."""

    file: str
    image: str
    split: str
    words: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PathLayout(DatasetLayout):
    r"""
    Images and their mask files anywhere below the root, found by regular expressions for their whole paths.

    Args:
        image: an image's path below the root; the groups are the key that pairs it.
        labels: paths of mask files. Those with the key of an image belong to it; a file with fewer groups belongs to
            all images whose keys begin with them, as one JSON with all annotations does. An image has a mask if a file
            of the first expression belongs to it; the others add to it.
        splits: for the splits that the folders tell, an expression searched in the image's path; elsewhere the
            subject decides.
        split_table: where a table tells the split; it comes first.
        annotated: whether images without mask are left out, for sets that have masks of some images only.

    Example:
        >>> layout = PathLayout(
        ...     image=r"(s\d+)/ct\.nii\.gz", labels=(r"(s\d+)/segmentations/.+",), looks_for="s0001/ct.nii.gz"
        ... )
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("ct.nii.gz", "segmentations/liver.nii.gz", "segmentations/spleen.nii.gz"):
        ...     (root / "s0001" / name).parent.mkdir(parents=True, exist_ok=True)
        ...     (root / "s0001" / name).touch()
        >>> [[Path(path).name for path in record["label"]] for record in layout.find(root)["training"]]
        [['liver.nii.gz', 'spleen.nii.gz']]
    """

    image: str
    labels: tuple[str, ...]
    splits: Mapping[str, str] = field(default_factory=dict)
    split_table: SplitTable | None = None
    annotated: bool = False

    def records(self, root: Path, paths: Sequence[str]) -> Iterator[tuple[str | None, Record]]:
        images: dict[tuple[str, ...], str] = {}
        for path in paths:
            if match := re.fullmatch(self.image, path):
                key = match.groups("")
                if key in images:
                    raise ValueError(f"{root / images[key]} and {root / path} are the same image; keep one of them.")
                images[key] = path
        if not images:
            return
        first, *others = (self._by_key(pattern, paths) for pattern in self.labels)
        table = self._split_table(root, paths)
        for key, path in images.items():
            record: Record = {"image": str(root / path)}
            if files := _belonging(key, first):
                files += [file for group in others for file in _belonging(key, group)]
                # Path objects would take longer than the whole search where there are a hundred thousand files.
                absolute = [os.path.join(root, file) for file in files] + [record["image"]] * self.masks.needs_image
                record["label"] = absolute if len(absolute) > 1 else absolute[0]
            if self.annotated and not files:
                continue
            yield table.get("-".join(key)) or self._told(path), record
        used = {key[:length] for key in images for length in range(len(key) + 1)}
        for key in first.keys() - used:
            yield None, {"label": str(root / first[key][0])}

    @staticmethod
    def _by_key(pattern: str, paths: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for path in paths:
            if match := re.fullmatch(pattern, path):
                found[match.groups("")].append(path)
        return found

    def _split_table(self, root: Path, paths: Sequence[str]) -> dict[str, str]:
        table = self.split_table
        file = next((path for path in paths if table and re.fullmatch(table.file, path)), None)
        if not table or file is None:
            return {}
        column = read_column(root / file, table.image, table.split)
        unknown = sorted(set(column.values()) - set(table.words))
        if unknown:
            raise ValueError(
                f"{root / file}: `{table.split}` must be of {', '.join(table.words)}, not {', '.join(unknown)}; "
                "copy it again from its source."
            )
        return {Path(image).stem: table.words[word] for image, word in column.items()}

    def _told(self, path: str) -> str | None:
        return next((split for split, pattern in self.splits.items() if re.search(pattern, path)), None)


def _belonging(key: tuple[str, ...], files: Mapping[tuple[str, ...], list[str]]) -> list[str]:
    return [file for length in range(len(key), -1, -1) for file in files.get(key[:length], ())]
