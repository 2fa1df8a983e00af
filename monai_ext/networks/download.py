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
import shutil
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from monai_ext.networks.weights import FOLDER_VARIABLE, OfficialWeights, official_weights, weights_folder

__all__ = ["download_weights"]

BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
ATTEMPTS = 4
PAUSE = 1.0
TIMEOUT = 30.0
CHUNK = 1 << 20


def download_weights(name: str, folder: str | os.PathLike[str] | None = None, *, base_url: str = BASE_URL) -> Path:
    """
    Download an official SAM 2.1 checkpoint, or return at once if the right file is there already.

    What arrives goes to ``NAME.pt.part``; an interrupted download continues there, and only a file of the published
    size and sha256 is renamed to ``NAME.pt``. MONAI's ``download_url`` begins anew each time.

    Args:
        name: a name of ``OFFICIAL_WEIGHTS``.
        folder: where to put it; None takes ``$MONAI_EXT_WEIGHTS`` if set, else the user's cache.
        base_url: folder of the server, for a mirror.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: unknown name; or the file there, or the one that the server gives, is not the official one.
        OSError: the server cannot be reached, the disk is full or the folder cannot be written.

    Example:
        >>> download_weights("sam2.1_hiera_tiny")  # doctest: +SKIP
    """
    weights = official_weights(name)
    target = (Path(folder).expanduser() if folder is not None else weights_folder()) / f"{name}.pt"
    if target.exists():
        if problem := _difference(target, weights):
            raise ValueError(f"{target} is not the official file ({problem}): move or delete it and try again.")
        return target
    part = target.with_name(f"{target.name}.part")
    _make_folder(target.parent)
    _download(f"{base_url.rstrip('/')}/{target.name}", part, weights, target)
    if problem := _difference(part, weights):
        part.unlink()
        raise ValueError(
            f"What {base_url} gave as {target.name} is not the official file ({problem}) and was deleted: try again, "
            f"or copy the file to {target} by hand."
        )
    os.replace(part, target)
    return target


def _download(url: str, part: Path, weights: OfficialWeights, target: Path) -> None:
    """Fetch until the file is whole; give up after ``ATTEMPTS`` tries in a row that brought nothing new."""
    farthest, idle = _size(part), 0
    while True:
        try:
            if _fetch(url, part, weights):
                return
            reason = "the connection was cut"
        except HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code < 500:
                idle = ATTEMPTS  # asking again will not help
        except URLError as error:
            reason = str(error.reason)
        idle = 0 if _size(part) > farthest else idle + 1
        if idle >= ATTEMPTS:
            raise ConnectionError(
                f"Could not download {url} ({reason}): try again later, copy the file by hand to {target}, "
                f"or set {FOLDER_VARIABLE} to a folder that holds it."
            )
        farthest = max(farthest, _size(part))
        time.sleep(PAUSE)


def _fetch(url: str, part: Path, weights: OfficialWeights) -> bool:
    """One request for what is missing in ``part``; True if the file is whole after it."""
    start = _size(part)
    if start == weights.bytes:
        return True
    try:
        response = _open(url, start)
    except HTTPError as error:
        if error.code != 416:
            raise
        # "Nothing after that byte": either all is here, or `part` is longer than the file.
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True
        part.unlink()
        return False
    with response:
        first, total = _extent(response)
        if total is not None and weights.bytes not in (None, total):
            raise ValueError(f"{url} offers {total:,} bytes, not {weights.bytes:,}: it is not the official file.")
        if first not in (0, start):
            part.unlink()
            return False
        _save(response, part, first, total)
    return total is None or _size(part) == total


def _open(url: str, start: int) -> Any:
    headers = {"User-Agent": "monai_ext"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except URLError:
        raise
    except (OSError, HTTPException) as error:
        raise URLError(_words(error)) from error


def _extent(response: Any) -> tuple[int, int | None]:
    """First byte that the response holds, and the size of the whole file if the server tells it."""
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status == 206 and found:
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _save(response: Any, part: Path, first: int, total: int | None) -> None:
    from tqdm import tqdm

    if total is not None and shutil.disk_usage(part.parent).free < total - first:
        raise OSError(f"{part.parent} has too little space for {total:,} bytes: free some or choose another folder.")
    bar = tqdm(total=total, initial=first, unit="B", unit_scale=True, desc=part.stem, disable=None)
    try:
        with bar, part.open("ab" if first else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except URLError:
        raise
    except OSError as error:
        raise OSError(
            f"{part} could not be written ({_words(error)}): free some space or choose another folder."
        ) from error


def _read(response: Any) -> bytes:
    # Failures of the network become URLErrors, so that every other OSError is one of the disk.
    try:
        return response.read(CHUNK)
    except (OSError, HTTPException) as error:
        raise URLError(_words(error)) from error


def _difference(path: Path, weights: OfficialWeights) -> str:
    """What tells ``path`` from the official file, or nothing."""
    if weights.bytes is not None and _size(path) != weights.bytes:
        return f"{_size(path):,} bytes, not {weights.bytes:,}"
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "" if digest.hexdigest() == weights.sha256 else f"sha256 {digest.hexdigest()}, not {weights.sha256}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"The folder {folder} cannot be made ({_words(error)}): choose another folder.") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
