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
import os
from collections.abc import Callable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from monai_ext.data.processes import gather_values
from monai_ext.data.progress import with_progress
from monai_ext.data.reader import IMAGE_SUFFIXES, PhotographReader

_LOGGER = logging.getLogger(__name__)
_LISTS = ("testing", "test", "validation")


class ImageList:
    """
    The images that inference runs on: found, opened once, and sorted into good ones and bad ones.

    One bad file must neither stop the others nor be forgotten: it is left out of ``datalist``, logged, and listed by
    ``finish``, which a bundle calls last.

    Several processes divide the images: each opens a part, and then each has its part of the good ones in ``datalist``.

    Args:
        source: a folder (its images, not those of its subfolders), a glob pattern, one image file, a MONAI datalist
            ``.json`` (a list, or a dict with the list under ``testing``, ``test`` or ``validation``), or a list.
            The items of a list are paths or dicts with the path under ``key``; paths in a JSON file are relative to
            it.
        key: the key of the image in each item of ``datalist``.

    Attributes:
        datalist: the good images, ``[{key: path, ...}, ...]``, sorted where ``source`` has no order of its own.
        paths: the good images of all processes, in order.
        rejected: path -> the sentence that says why, for every bad image.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: ``source`` names no image, is no datalist, or no image in it can be used; or two images would write
            results of the same name.

    Example:
        >>> import tempfile, numpy as np
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "good.png")
        >>> _ = (folder / "bad.png").write_bytes(b"")
        >>> images = ImageList(source=str(folder))
        >>> [Path(item["image"]).name for item in images.datalist], [Path(path).name for path in images.rejected]
        (['good.png'], ['bad.png'])

    """

    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    looks_for = ""  # in words, where suffixes do not say it
    names_by_stem = True  # whether results are named by the image's stem alone

    def __init__(
        self, *, source: str | os.PathLike[str] | Sequence[str | Mapping[str, Any]], key: str = "image"
    ) -> None:
        self.key = key
        self.rejected: dict[str, str] = {}
        self._last: list[Callable[[], None]] = []
        items = self._items(source)
        good = self._open_all(items)
        self.paths = [item[key] for item in good]
        self.datalist = good[idist.get_rank() :: idist.get_world_size()]
        if not good:
            reasons = "\n".join(self.rejected.values())
            raise ValueError(f"none of the {len(items)} images in {_brief(source)} can be used:\n{reasons}")

    def find(self, source: str) -> list[str]:
        """
        List the images that a folder, a pattern or a path stands for.

        Args:
            source: the folder, pattern or path.

        """
        return _find_files(source, self.suffixes)

    def open(self, path: str) -> Any:
        """
        Read an image once, whose ``ValueError`` says what is wrong with it.

        Args:
            path: the image.

        """
        return PhotographReader().get_data(path)

    def add_failure(self, path: str | os.PathLike[str], reason: str) -> None:
        """
        Record that an image failed later, while it was segmented or its results were written.

        Args:
            path: the image.
            reason: one sentence.

        """
        self.rejected[str(path)] = reason if str(path) in reason else f"{path}: {reason}"
        _LOGGER.warning(self.rejected[str(path)])

    def at_end(self, action: Callable[[], None]) -> None:
        """
        Have something done in ``finish``, before anything else.

        Args:
            action: called without arguments, in every process.

        """
        self._last.append(action)

    def finish(self) -> None:
        """
        End the program with exit code 1 and one line per failed image, if any failed.

        Of several processes the first one does, when all have done their images.

        Raises:
            SystemExit: an image was rejected or failed later.

        """
        for action in self._last:
            action()
        failed = {path: reason for part in gather_values(self.rejected) for path, reason in part.items()}
        if failed and idist.get_rank() == 0:
            raise SystemExit("\n".join([f"{len(failed)} of the images failed:", *failed.values()]))

    def _items(self, source: Any) -> list[dict[str, Any]]:
        if not isinstance(source, (str, os.PathLike)):
            items = _as_items(source, self.key, Path(), "the list given as source")
        elif Path(source).suffix.lower() == ".json":
            items = _read_json(Path(source), self.key)
        else:
            items = [{self.key: path} for path in self.find(os.fspath(source))]
        if not items:
            raise ValueError(
                f"{_brief(source)} names no image; looked for {self.looks_for or ', '.join(self.suffixes)}."
            )
        if self.names_by_stem:
            _check_output_names([item[self.key] for item in items])
        return items

    def _open_all(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Open this process's part; the good items of all processes."""
        rank, processes = idist.get_rank(), idist.get_world_size()
        for item in with_progress(items[rank::processes], "Opening images"):
            try:
                self.open(item[self.key])
            except ValueError as error:
                self.add_failure(item[self.key], str(error))
        reasons = {path: reason for part in gather_values(self.rejected) for path, reason in part.items()}
        paths = [item[self.key] for item in items]
        self.rejected = {path: reasons[path] for path in paths if path in reasons}
        return [item for item in items if item[self.key] not in reasons]


def _find_files(source: str, suffixes: tuple[str, ...]) -> list[str]:
    path = Path(source).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        found = [str(child) for child in path.iterdir() if not child.name.startswith(".")]
    elif any(sign in source for sign in "*?["):
        found = glob(str(path), recursive=True)
    else:
        raise FileNotFoundError(f"{source} does not exist; give a folder, a pattern, an image or a datalist (.json).")
    return sorted(name for name in found if name.lower().endswith(suffixes) and Path(name).is_file())


def _read_json(path: Path, key: str) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the datalist's path.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a JSON datalist, but it does not parse: {error}.") from error
    if isinstance(content, dict):
        name = next((name for name in _LISTS if name in content), None)
        if name is None:
            raise ValueError(f"{path} must have a list named {', '.join(_LISTS)}, not only {', '.join(content)}.")
        content = content[name]
    return _as_items(content, key, path.parent, str(path))


def _as_items(content: Any, key: str, folder: Path, name: str) -> list[dict[str, Any]]:
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{name} must hold a list of images, not {type(content).__name__}.")
    items = []
    for number, entry in enumerate(content):
        item = dict(entry) if isinstance(entry, Mapping) else {key: entry}
        if not isinstance(item.get(key), (str, os.PathLike)):
            raise ValueError(f"item {number} of {name} must be a path or have one under {key!r}, not {entry!r}.")
        image = str(folder / item[key])
        # A label or a field of view beside the list is a path too; a subject's name is not.
        others = {other: _if_file(folder, value) for other, value in item.items() if other != key}
        items.append({key: image, **others})
    return items


def _if_file(folder: Path, value: Any) -> Any:
    return str(folder / value) if isinstance(value, str) and (folder / value).is_file() else value


def _check_output_names(paths: list[str]) -> None:
    first: dict[str, str] = {}
    for path in paths:
        stem = Path(path).stem
        if stem in first:
            raise ValueError(
                f"{first[stem]} and {path} would both write results named {stem!r}; rename one or run them apart."
            )
        first[stem] = path


def _brief(source: Any) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else "the list given as source"
