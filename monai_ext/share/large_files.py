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
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from monai_ext.share.allowed import HASHES, HOSTS
from monai_ext.share.config_text import Pairs, walk
from monai_ext.share.finding import LOOK, OK, REFUSED, Finding


def inspect_large_files(file: str, tree: Any) -> Iterator[Finding]:
    """
    What `monai.bundle.download_large_files` would fetch, from where and to where.

    Args:
        file: path for the findings.
        tree: content of ``large_files.yml`` as `read_config` gives it.

    Example:
        >>> entry = Pairs([("path", "../a.pt"), ("url", "https://dl.fbaipublicfiles.com/a.pt")])
        >>> [finding.level for finding in inspect_large_files("large_files.yml", Pairs([("large_files", [entry])]))]
        ['refused', 'ok', 'look']
    """
    for id, _, node in walk(tree):
        entry = dict(node) if isinstance(node, Pairs) else {}
        if "path" in entry or "url" in entry:
            key = id.replace("::", "#")
            for name, (what, (level, why)) in {
                "path": (entry.get("path"), _judge_path(str(entry.get("path")))),
                "url": (entry.get("url"), _judge_address(str(entry.get("url")))),
                "hash_val": (entry.get("hash_val"), _judge_hash(entry)),
            }.items():
                yield Finding(level, file, f"{key}#{name}", str(what), why)


def leaves_folder(path: str) -> bool:
    """
    Whether a path in a bundle leads out of it, on any system.

    Example:
        >>> leaves_folder("models/../../a"), leaves_folder("models/a.pt")
        (True, False)
    """
    return bool(re.match(r"[/\\~]|[A-Za-z]:", path)) or ".." in re.split(r"[\\/]", path) or "\0" in path


def _judge_path(path: str) -> tuple[str, str]:
    if leaves_folder(path):
        return REFUSED, "The download would be written outside the bundle."
    if PurePosixPath(path).parts[:1] != ("models",) or "\\" in path:
        return LOOK, "Only models/ should be downloaded: a config or code would come unseen."
    return OK, ""


def _judge_address(url: str) -> tuple[str, str]:
    try:
        address = urlsplit(url)
    except ValueError:
        return LOOK, "It is no address."
    if address.scheme != "https":
        return LOOK, "Without https anybody on the way may exchange the file."
    if address.netloc not in HOSTS:
        return LOOK, f"The file comes from {address.netloc!r}."
    return OK, ""


def _judge_hash(entry: dict[str, Any]) -> tuple[str, str]:
    if not entry.get("hash_val"):
        return LOOK, "Without a hash nobody knows whether it is the same file as ever."
    if str(entry.get("hash_type")) not in HASHES:
        return LOOK, f"hash_type must be one of {', '.join(sorted(HASHES))}: others can be forged, or are not named."
    return OK, ""
