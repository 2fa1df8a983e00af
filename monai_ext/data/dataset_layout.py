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

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from monai_ext.data.pictures import pictures_by_affix, pictures_by_name

Record = dict[str, str]
Splits = dict[str, list[Record]]

# A name is the subject's, up to the eye: `Image_01L`, `12_R`, `7-OD`, `10_left`; only behind a digit, so `01_dr` stays.
OWN_SUBJECT = r"([^/]+?)(?:(?<=\d)[_-]?(?i:L|R|OD|OS|left|right))?\.[^./]+$"


class Place(NamedTuple):
    """Folders that belong together; `labels` are alternatives, and without a `split` the layout's rule decides."""

    split: str | None
    images: str
    labels: tuple[str, ...]
    fovs: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetLayout:
    r"""
    One way to arrange images and masks in folders, with what a user of the set must know about it.

    Args:
        places: the folders to look in.
        looks_for: these folders in words, for error messages.
        image: what an image is called (without suffix); the regular expression's group is the key that pairs it.
        label: what its mask is called, with the same key in the group; None pairs by the image's name with one
            word or more before or behind it, the same for all masks of a folder (`01_h_manual`, `seg-01_h`).
        fov: the same for the field of view.
        subject: regular expression searched in the image's path below the root; its groups, joined by `-`, are the
            person.
        training: subjects that train where the folders do not say it; the others are the test.
        split: where the split comes from.
        source: the paper to cite.
        page: where the set is published.
        licence: what its owners allow.

    Example:
        >>> layout = DatasetLayout(places=(Place(None, "images", ("masks",)),), looks_for="images/ with masks/")
        >>> layout.subject_of("images/Image_01L.jpg")
        'Image_01'
    """

    places: tuple[Place, ...]
    looks_for: str
    image: str = "(.+)"
    label: str | None = None
    fov: str | None = None
    subject: str = OWN_SUBJECT
    training: str = ".+"
    split: str = ""
    source: str = ""
    page: str = ""
    licence: str = ""

    def find(self, root: Path, subject: str | None = None) -> Splits:
        """
        List what lies below ``root`` as ``training``, ``validation`` and ``test``.

        An image without mask has no ``label``; a mask without image is a record that has nothing but its ``label``.

        Args:
            root: the folder of the data set.
            subject: regular expression in place of the layout's own.

        Raises:
            ValueError: two files claim to be the same image or mask, or pictures are still packed.
        """
        found: Splits = {"training": [], "validation": [], "test": []}
        for place in self.places:
            for record in self._records(root, place):
                split = place.split or "training"
                if "image" in record:
                    path = Path(record["image"]).relative_to(root).as_posix()
                    if not place.split and not re.fullmatch(self.training, self.subject_of(path)):
                        split = "test"
                    record["subject"] = self.subject_of(path, subject)
                found[split].append(record)
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

    def _records(self, root: Path, place: Place) -> list[Record]:
        images = pictures_by_name(root / place.images, self.image)
        labels = self._partners(self._label_folder(root, place), self.label, images)
        fovs = self._partners(root / place.fovs, self.fov, images) if place.fovs else {}
        records = [
            {
                name: str(group[key])
                for name, group in (("image", images), ("label", labels), ("fov", fovs))
                if key in group
            }
            for key in images
        ]
        return records + [{"label": str(path)} for key, path in labels.items() if key not in images]

    def _label_folder(self, root: Path, place: Place) -> Path:
        there = [root / name for name in place.labels if (root / name).is_dir()]
        if self.label is None and len(there) > 1:
            raise ValueError(
                f"{there[0].parent} has both {there[0].name}/ and {there[1].name}/; keep the one with masks."
            )
        return there[0] if there else root / place.labels[0]

    @staticmethod
    def _partners(folder: Path, pattern: str | None, images: dict[str, Path]) -> dict[str, Path]:
        return pictures_by_affix(folder, images) if pattern is None else pictures_by_name(folder, pattern)
