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
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_ext.data.atomic import atomic_path
from monai_ext.label.refusal import RequestRefused

SHIPPED = 0
CURRENT = "current.json"
STAGING = ".training-"


class AdapterVersions:
    """
    The trained parts of one bundle: the one it was shipped with and those that were tuned since, one of them in use.

    A version is a folder with ``model.pt`` and ``adapter.json``. It is made beside the others and gets its number by
    one renaming when it is whole; which one is in use stands in a file that is replaced as a whole. A process that is
    killed at any moment therefore leaves all versions as they were.

    Args:
        folder: where the tuned versions are kept; made when the first one comes.
        shipped: the bundle's own ``models`` folder, version 0; it is never written to.

    Example:
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "models").mkdir()
        >>> _ = (root / "models/model.pt").write_bytes(b"shipped")
        >>> versions = AdapterVersions(root / "tuned", root / "models")
        >>> with versions.new() as folder:
        ...     _ = (folder / "model.pt").write_bytes(b"tuned")
        >>> versions.numbers(), versions.current, versions.path.read_bytes()
        ([0, 1], 1, b'tuned')
        >>> versions.use(0)
        >>> versions.path.read_bytes()
        b'shipped'
    """

    def __init__(self, folder: str | os.PathLike[str], shipped: str | os.PathLike[str]) -> None:
        self.folder, self.shipped = Path(folder), Path(shipped)
        self._lock = threading.Lock()

    def numbers(self) -> list[int]:
        """All versions that are there, 0 for the shipped one."""
        tuned = [int(path.name) for path in self.folder.glob("[0-9]*") if (path / "model.pt").is_file()]
        return [SHIPPED] * (self.shipped / "model.pt").is_file() + sorted(tuned)

    @property
    def current(self) -> int | None:
        """The version in use; None where nothing was ever trained."""
        numbers = self.numbers()
        try:
            chosen = json.loads((self.folder / CURRENT).read_text())["version"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            chosen = None
        # Without the file, or with one that names a version somebody removed, the newest there is.
        return chosen if chosen in numbers else (numbers[-1] if numbers else None)

    @property
    def path(self) -> Path | None:
        """The ``model.pt`` in use; None where nothing was ever trained."""
        return None if (current := self.current) is None else self.path_of(current)

    def path_of(self, version: int) -> Path:
        """The ``model.pt`` of a version."""
        return (self.shipped if version == SHIPPED else self.folder / f"{version:04d}") / "model.pt"

    def use(self, version: int) -> None:
        """
        Take a version into use, an older one too.

        Raises:
            RequestRefused: there is no such version.
        """
        with self._lock:
            if version not in self.numbers():
                there = ", ".join(map(str, self.numbers())) or "none"
                raise RequestRefused(f"Version {version} is not there: there are {there}.", 404)
            with atomic_path(self.folder / CURRENT) as temporary:
                temporary.write_text(json.dumps({"version": version}) + "\n")

    @contextmanager
    def new(self) -> Iterator[Path]:
        """
        A folder to write a new version into, ``model.pt`` at least; it comes into use when the block ends.

        Raises:
            RequestRefused: nothing was trained, ``model.pt`` was not written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=self.folder))
        try:
            yield staging
            if not (staging / "model.pt").is_file():
                raise RequestRefused("The training kept no model: no epoch gave a score on the validation images.", 409)
            _sync(staging)
            with self._lock:
                version = max([SHIPPED, *self.numbers()]) + 1
                while (self.folder / f"{version:04d}").exists():  # the rest of one that somebody emptied
                    version += 1
                os.rename(staging, self.folder / f"{version:04d}")
            self.use(version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a training that was killed left behind; to be called when no training runs."""
        for leftover in self.folder.glob(f"{STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.folder.glob(f".{Path(CURRENT).stem}-*"):
            leftover.unlink(missing_ok=True)

    def describe(self) -> dict[str, Any]:
        """Which versions there are, which is in use, and what each one's ``adapter.json`` says."""
        versions = {}
        for number in self.numbers():
            try:
                versions[number] = json.loads(self.path_of(number).with_name("adapter.json").read_text())
            except (OSError, ValueError):
                versions[number] = {}
        return {"current": self.current, "versions": versions}


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
