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

"""Finding pictures in a folder and pairing them by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from monai_ext.data.reader import IMAGE_SUFFIXES


def pictures_by_name(folder: Path, pattern: str = "(.+)") -> dict[str, Path]:
    """
    List the pictures of a folder, in order, by the first group of what their names (without suffix) must match.

    Args:
        folder: where to look, not below; a folder that is not there holds no pictures.
        pattern: regular expression for the whole name.

    Raises:
        ValueError: two pictures have the same key, or one is packed (``.gz``).
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        packed = path.suffix.lower() == ".gz" and not path.with_suffix("").exists()
        picture = path.with_suffix("") if packed else path
        match = re.fullmatch(pattern, picture.stem)
        if picture.name.startswith(".") or picture.suffix.lower() not in IMAGE_SUFFIXES or not match:
            continue
        if packed:
            raise ValueError(f"{path} is packed; unpack the pictures first: gunzip {folder}/*.gz")
        if match[1] in found:
            raise ValueError(f"{found[match[1]]} and {path} have the same name; keep one of them.")
        found[match[1]] = path
    return found


def pictures_by_affix(folder: Path, stems: Collection[str]) -> dict[str, Path]:
    """
    List the pictures of a folder by the image's name that theirs contains, less one common prefix or suffix.

    All masks of a folder carry the same words before or behind the image's name, or none: those that fit the most
    images are taken. So ``1_2.png`` is never taken for the mask of ``1.png`` because a mask is missing.

    Args:
        folder: where to look.
        stems: the images' names without suffix.

    Raises:
        ValueError: two prefixes or suffixes fit equally many images, as with the masks of two observers.
    """
    pictures = pictures_by_name(folder)
    fits = Counter(affix for name in pictures for stem, affix in _readings(name) if stem in stems)
    if not fits:
        return pictures
    most = max(fits.values())
    affixes = [affix for affix, count in fits.items() if count == most]
    if ("", "") in affixes:
        return pictures
    if len(affixes) > 1:
        words = " and ".join("…".join(affix) for affix in affixes)
        raise ValueError(f"{folder} holds several masks for an image ({words}); keep one of them in the folder.")
    before, behind = affixes[0]
    # A name without the words keeps its suffix, so that it cannot be mistaken for an image's name.
    return {
        name[len(before) : len(name) - len(behind)]
        if name.startswith(before) and name.endswith(behind)
        else path.name: path
        for name, path in pictures.items()
    }


def _readings(name: str) -> list[tuple[str, tuple[str, str]]]:
    """Every way to read a name as an image's name with words before or behind it."""
    cuts = [match.start() for match in re.finditer(r"(?<=.)[_\-. ](?=.)", name)]
    whole = [(name, ("", ""))]
    before = [(name[cut + 1 :], (name[: cut + 1], "")) for cut in cuts]
    return whole + before + [(name[:cut], ("", name[cut:])) for cut in cuts]
