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
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ext.data.masks import IndexMask, MaskFormat

Record = dict[str, Any]
Splits = dict[str, list[Record]]

OWN_SUBJECT = r"([^/]+?)(?:(?<=\d)[_-]?(?i:L|R|OD|OS|left|right))?\.[^./]+$"


@dataclass(frozen=True, kw_only=True)
class DatasetLayout(ABC):
    """
    One way to arrange images and masks, with what a user of the set must know about it.

    A kind of arrangement is a subclass with one method, :meth:`records`.

    Args:
        looks_for: what it looks for, in words, for error messages.
        masks: what the mask files mean.
        subject: regular expression searched in the image's path below the root; its groups, joined by `-`, are the
            person.
        training: regular expression of the subjects that train where the folders do not say it.
        validation: the same for those that validate; the others are the test.
        split: where the split comes from.
        source: the paper to cite.
        page: where the set is published.
        licence: what its owners allow.
    """

    looks_for: str
    masks: MaskFormat = field(default_factory=IndexMask)
    subject: str = OWN_SUBJECT
    training: str = ".+"
    validation: str = ""
    split: str = ""
    source: str = ""
    page: str = ""
    licence: str = ""

    @abstractmethod
    def records(self, root: Path, paths: Sequence[str]) -> Iterator[tuple[str | None, Record]]:
        """
        List what lies below ``root``: the split, or None where the subject decides it, and a record.

        A record has the path ``image``, ``label`` (a path, or a list of them), perhaps ``fov``, and ``subject`` if the
        image's path does not say it. An image without mask has no ``label``; a mask without image is a record that has
        nothing but its ``label``.

        Args:
            root: the folder of the data set.
            paths: all files below it, as :func:`files_below` lists them.
        """

    def find(self, root: Path, subject: str | None = None, paths: Sequence[str] | None = None) -> Splits:
        """
        List what lies below ``root`` as ``training``, ``validation`` and ``test``, with the records' ``subject``.

        Args:
            root: the folder of the data set.
            subject: regular expression in place of the layout's own.
            paths: what :func:`files_below` lists, if it was called already.

        Raises:
            ValueError: two files claim to be the same image or mask, or pictures are still packed.
        """
        found: Splits = {"training": [], "validation": [], "test": []}
        for split, record in self.records(root, files_below(root) if paths is None else paths):
            if "image" in record:
                path = Path(record["image"]).relative_to(root).as_posix()
                split = split or self._split_of(self.subject_of(path))
                if subject or "subject" not in record:
                    record["subject"] = self.subject_of(path, subject)
            found[split or "training"].append(record)
        return found

    def subject_of(self, path: str, subject: str | None = None) -> str:
        """Return the person that an image shows, read from its path below the root."""
        pattern = subject or self.subject
        try:
            match = re.search(pattern, path)
        except re.error as error:
            raise ValueError(f"`subject` must be a regular expression, not {pattern!r}: {error}.") from error
        name = "-".join(match.groups("") or [match.group()]) if match else ""
        if not name:
            raise ValueError(f"`subject` must find a name in every image's path, but {pattern!r} finds none in {path}.")
        return name

    def _split_of(self, subject: str) -> str:
        for split in ("validation", "training"):
            if re.fullmatch(getattr(self, split), subject):
                return split
        return "test"


def files_below(root: Path) -> list[str]:
    """All files below a folder, in order, as posix paths relative to it; hidden ones are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = "" if folder == str(root) else f"{Path(folder).relative_to(root).as_posix()}/"
        found += [f"{place}{name}" for name in sorted(files) if not name.startswith(".")]
    return found
