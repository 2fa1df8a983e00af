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

import hashlib
import os
import re
import threading
from pathlib import Path

from PIL import Image

from monai_ext.data.reader import picture_size
from monai_ext.label.refusal import RequestRefused

NAME = re.compile(r"[^/\\\0-\x1f]{1,200}")
MAX_PIXELS = 200_000_000
MAX_BYTES = 2 * 1024**3
MAX_KNOWN = 10_000


def check_name(name: str, what: str = "image") -> str:
    """
    Refuse a name that could lead out of a folder.

    Raises:
        RequestRefused: the name is empty, too long, hidden, or holds a slash.

    Example:
        >>> check_name("eye_01")
        'eye_01'
        >>> check_name("../eye_01")
        Traceback (most recent call last):
        ...
        monai_ext.label.refusal.RequestRefused: image must be a name without slashes, not '../eye_01': ...
    """
    if not NAME.fullmatch(name) or name.startswith("."):
        raise RequestRefused(
            f"{what} must be a name without slashes, not {name[:80]!r}: only what is in the study folder can be named."
        )
    return name


def inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """
    The real place of a file that must lie below a folder, links followed.

    Raises:
        RequestRefused: it lies elsewhere, or is no file or folder.
    """
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if not real.is_relative_to(root):
        raise RequestRefused(f"{Path(path).name} is a link that leads out of the study folder: it is not read.", 403)
    if not real.exists():
        raise RequestRefused(f"{Path(path).name} is not there any more: reload the list of images.", 404)
    return real


def _size(path: Path) -> tuple[int, int]:
    try:
        size = picture_size(path)
    except ValueError as error:
        raise RequestRefused(str(error).replace(str(path), path.name)) from error
    except Image.DecompressionBombError:
        size = (MAX_PIXELS, 2)
    if size[0] * size[1] > MAX_PIXELS:
        raise RequestRefused(
            f"{path.name} has more than the {MAX_PIXELS // 10**6} million pixels that are read: cut it, or run the "
            "bundle's slide inference.",
            413,
        )
    return size


class FileDigests:
    """
    What files hold, as short strings: read once, and again only when a file's size or time has changed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("a")
        >>> FileDigests().digest(path)[:8]
        'ca978112'
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str, tuple[int, int] | None]] = {}
        self._lock = threading.Lock()

    def digest(self, path: Path) -> str:
        """The sha256 of a file's content."""
        return self._look(path)[1]

    def picture(self, path: Path) -> tuple[str, tuple[int, int]]:
        """
        The sha256 of a picture, and its width and height.

        Raises:
            RequestRefused: it cannot be opened, or is too large.
        """
        stamp, digest, size = self._look(path)
        if size is None:
            size = _size(path)
            with self._lock:
                self._known[path] = (stamp, digest, size)
        return digest, size

    def _look(self, path: Path) -> tuple[tuple[int, ...], str, tuple[int, int] | None]:
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
            if status.st_size > MAX_BYTES:
                raise RequestRefused(f"{path.name} has {status.st_size} bytes, and at most {MAX_BYTES} are read.", 413)
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                with path.open("rb") as file:
                    known = (stamp, hashlib.file_digest(file, "sha256").hexdigest(), None)
                with self._lock:
                    if len(self._known) >= MAX_KNOWN:  # pictures that clients send have a new name each time
                        self._known.clear()
                    self._known[path] = known
        except OSError as error:
            raise RequestRefused(f"{path.name} cannot be read: {error.strerror}.", 404) from error
        return known
