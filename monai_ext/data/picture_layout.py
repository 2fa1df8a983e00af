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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from monai_ext.data.dataset_layout import DatasetLayout, Record
from monai_ext.data.pictures import pictures_by_affix, pictures_by_name


class Place(NamedTuple):
    """Folders that belong together; `labels` are alternatives, and without a `split` the layout's rule decides."""

    split: str | None
    images: str
    labels: tuple[str, ...]
    fovs: str | None = None


@dataclass(frozen=True, kw_only=True)
class PictureLayout(DatasetLayout):
    r"""
    Pictures in some folders, one mask for each in others, paired by name.

    Args:
        places: the folders to look in.
        image: what an image is called (without suffix); the regular expression's group is the key that pairs it.
        label: what its mask is called, with the same key in the group; None pairs by the image's name with one
            word or more before or behind it, the same for all masks of a folder (`01_h_manual`, `seg-01_h`).
        fov: the same for the field of view.

    Example:
        >>> layout = PictureLayout(places=(Place(None, "images", ("masks",)),), looks_for="images/ with masks/")
        >>> layout.subject_of("images/Image_01L.jpg")
        'Image_01'
    """

    places: tuple[Place, ...]
    image: str = "(.+)"
    label: str | None = None
    fov: str | None = None

    def records(self, root: Path, paths: Sequence[str]) -> Iterator[tuple[str | None, Record]]:
        for place in self.places:
            for record in self._records(root, place):
                yield place.split, record

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
