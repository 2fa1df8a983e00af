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

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from monai_ext.share.finding import LOOK, REFUSED, Finding
from monai_ext.share.large_files import leaves_folder

MOST_FILES = 20_000
LARGEST_MEMBER = 256_000_000
_FOLDERS = {"configs", "docs", "models", "scripts"}


@dataclass(frozen=True)
class BundleFile:
    """
    A file of a bundle that can be read, from a folder or an archive.

    Args:
        name: path in the bundle.
        size: in bytes.
        open: opens it to read and seek.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def list_folder(folder: Path) -> Iterator[BundleFile | Finding]:
    """Files below a folder; links are not followed, and what is no file is told."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*names, *(name for name in folders if (Path(place) / name).is_symlink())]):
            path = Path(place) / name
            inside = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            count += 1
            if count > MOST_FILES:
                yield Finding(REFUSED, inside, "", f"more than {MOST_FILES:,} files", "Nobody can look at them all.")
                return
            if stat.S_ISLNK(mode):
                yield _link(folder, path, inside)
            elif not stat.S_ISREG(mode):
                yield Finding(REFUSED, inside, "", "no ordinary file", "A pipe, a socket or a device.")
            else:
                yield BundleFile(inside, path.lstat().st_size, lambda path=path: path.open("rb"))  # type: ignore[misc]


def list_archive(archive: zipfile.ZipFile, name: str = "") -> Iterator[BundleFile | Finding]:
    """
    Files of a zip archive; nothing is unpacked to disk, and names that lead elsewhere are told.

    Args:
        archive: open to read.
        name: path of the archive in the bundle; empty for the bundle itself.
    """
    members = archive.infolist()
    size = sum(info.compress_size for info in members)
    if len(members) > MOST_FILES or sum(info.file_size for info in members) > 100 * size + 100_000_000:
        yield Finding(REFUSED, name, "", "a zip bomb", f"{len(members):,} files; unpacked, it may fill the disk.")
        return
    if min((info.header_offset for info in members), default=0) > 0:
        yield Finding(REFUSED, name, "", "bytes before the archive", "Programs differ in what they find in it.")
    seen: set[str] = set()
    # A bundle may be packed with its folder, which is no part of its paths.
    tops = {info.orig_filename.partition("/")[0] for info in members if "/" in info.orig_filename}
    whole = not name and len(tops) == 1 and all("/" in info.orig_filename for info in members)
    top = f"{tops.pop()}/" if whole and not tops & _FOLDERS else ""
    for info in members:
        # Python cuts names at a zero byte; the name as it stands in the archive may be another.
        inside = f"{name}!{info.orig_filename}" if name else info.orig_filename.removeprefix(top)
        problem = _member_problem(info, seen)
        seen.add(info.filename.casefold())
        if problem:
            yield Finding(*problem[:1], inside, "", *problem[1:])
        elif not info.is_dir():
            yield BundleFile(inside, info.file_size, lambda info=info: _open_member(archive, info))  # type: ignore[misc]


def _member_problem(info: zipfile.ZipInfo, seen: set[str]) -> tuple[str, str, str] | None:
    mode = info.external_attr >> 16
    if leaves_folder(info.orig_filename) or "\\" in info.orig_filename:
        return REFUSED, "a path that leaves the folder", "Unpacking would write outside the bundle."
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return REFUSED, "a link or device", "Unpacked, it leads to another place."
    if info.filename.casefold() in seen:
        return REFUSED, "a name that comes twice", "Programs differ in which of the two they take."
    if info.flag_bits & 0x1:
        return REFUSED, "encrypted", "Nobody can look into it."
    if info.file_size > 10_000_000 and info.file_size > 200 * max(info.compress_size, 1):
        return REFUSED, "a zip bomb", f"{info.compress_size:,} bytes unpack to {info.file_size:,}."
    return None


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.file_size > LARGEST_MEMBER:
        raise OSError(f"larger than {LARGEST_MEMBER:,} bytes; unpack the bundle and inspect the folder")
    try:
        return io.BytesIO(archive.read(info))
    except Exception as error:  # zipfile raises errors of many kinds for what a stranger wrote
        raise OSError(f"the archive is damaged there ({type(error).__name__})") from error


def _link(folder: Path, path: Path, inside: str) -> Finding:
    target = os.readlink(path)
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        stays = False
    if stays and not os.path.isabs(target):
        return Finding(LOOK, inside, "", f"a link to {target}", "Its target is looked at only where it lies.")
    return Finding(REFUSED, inside, "", f"a link to {target}", "It leads out of the bundle.")
