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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_ext.data.dataset_layout import DatasetLayout, Record


@dataclass(frozen=True, kw_only=True)
class PathLayout(DatasetLayout):
    r"""
    Images and their mask files anywhere below the root, found by regular expressions for their whole paths.

    Args:
        image: an image's path below the root; the groups, joined by `-`, are the key that pairs it.
        labels: paths of mask files. Those with the key of an image belong to it; a file whose expression has no groups
            belongs to all images, as one JSON with all annotations does.
        splits: for the splits that the folders tell, an expression searched in the image's path; elsewhere the
            subject decides.

    Example:
        >>> layout = PathLayout(
        ...     image=r"(s\d+)/ct\.nii\.gz", labels=(r"(s\d+)/segmentations/.+",), looks_for="s0001/ct.nii.gz"
        ... )
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("ct.nii.gz", "segmentations/liver.nii.gz", "segmentations/spleen.nii.gz"):
        ...     (root / "s0001" / name).parent.mkdir(parents=True, exist_ok=True)
        ...     (root / "s0001" / name).touch()
        >>> [[Path(path).name for path in record["label"]] for _, record in layout.records(root)]
        [['liver.nii.gz', 'spleen.nii.gz']]
    """

    image: str
    labels: tuple[str, ...]
    splits: Mapping[str, str] = field(default_factory=dict)

    def records(self, root: Path) -> Iterator[tuple[str | None, Record]]:
        images: dict[str, str] = {}
        labels: dict[str, list[str]] = defaultdict(list)
        for path in _paths(root):
            if match := re.fullmatch(self.image, path):
                key = "-".join(match.groups(""))
                if key in images:
                    raise ValueError(f"{root / images[key]} and {root / path} are the same image; keep one of them.")
                images[key] = path
            for match in filter(None, (re.fullmatch(label, path) for label in self.labels)):
                labels["-".join(match.groups(""))].append(path)
        shared = labels.pop("", [])
        for key, path in images.items():
            record: Record = {"image": str(root / path)}
            if files := labels.pop(key, []) + shared:
                paths = [str(root / file) for file in files] + [record["image"]] * self.masks.needs_image
                record["label"] = paths if len(paths) > 1 else paths[0]
            yield self._told(path), record
        for files in labels.values():
            yield None, {"label": str(root / files[0])}

    def _told(self, path: str) -> str | None:
        return next((split for split, pattern in self.splits.items() if re.search(pattern, path)), None)


def _paths(root: Path) -> Iterator[str]:
    """All files below the root, in order, as posix paths relative to it; hidden ones are left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()
