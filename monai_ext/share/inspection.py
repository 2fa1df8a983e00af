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
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from numpy.lib import format as npy

from monai_ext.share.bundle_files import BundleFile, list_archive, list_folder
from monai_ext.share.config_text import LARGEST, read_config
from monai_ext.share.configs import inspect_configs
from monai_ext.share.finding import LOOK, OK, REFUSED, Finding
from monai_ext.share.large_files import inspect_large_files
from monai_ext.share.logging_file import inspect_logging
from monai_ext.share.pickles import inspect_pickle
from monai_ext.share.python_code import inspect_python

DEEPEST = 3
MOST_UNPACKED = 8_000_000_000
LONGEST_TEXT = 2_000_000
_HEAD = 512
_WEIGHTS = (".pt", ".pth", ".ckpt", ".ts", ".bin", ".tar")
_PICKLES = (*_WEIGHTS, ".pkl", ".pickle", ".joblib", ".p", ".npy", ".npz")
_COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".exe")
_PROGRAMS = (b"\x7fELF", b"MZ", b"\xfe\xed\xfa", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_PICTURES = {".png": b"\x89PNG\r\n", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".gif": b"GIF8"}
_TEXTS = (".md", ".txt", ".rst", ".csv", ".tsv", ".bib", ".cff")
_TEXT_NAMES = ("LICENSE", "NOTICE", "README", "AUTHORS", "CHANGELOG", "CITATION", "VERSION")
# What torch writes beside the pickle of an archive; data/0, data/1, ... are numbers only.
_TORCH_PARTS = re.compile(
    r"[^/]*/(version|byteorder|data/\d+|constants/\d+|\.format_version|\.storage_alignment|\.data/serialization_id)"
)


def inspect_bundle(path: str | os.PathLike[str]) -> list[Finding]:
    """
    List what a bundle would import, run, read and write, without running, importing or unpacking anything of it.

    Args:
        path: folder or ``.zip`` of the bundle.

    Returns:
        Findings in the order of the files, also those that are fine.

    Raises:
        ValueError: it is no folder and no zip archive, or it is empty.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "train.json").write_text('{"net": {"_target_": "os.system", "command": "ls"}}')
        >>> [(f.level, f.key, f.what) for f in inspect_bundle(folder) if f.level != "ok"]
        [('look', 'net#_target_', 'os.system')]
    """
    path = Path(path)
    if path.is_dir():
        return _Inspection().inspect(list_folder(path), path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Inspection().inspect(list_archive(archive), path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"{path} must be the folder or a whole .zip of a bundle; it is neither ({error}).") from error


class _Inspection:
    """Collects findings; configs are kept to the end, since they depend on each other."""

    def __init__(self) -> None:
        self.configs: list[tuple[str, Any]] = []
        self.unpacked = 0

    def inspect(self, entries: Iterable[BundleFile | Finding], path: Path) -> list[Finding]:
        findings = list(self._inspect_all(entries, 0))
        if not findings and not self.configs:
            raise ValueError(f"{path} is empty. Give the folder or .zip of a bundle.")
        if not self.configs:
            findings.append(Finding(LOOK, "configs", "", "no config", "This is no bundle of MONAI, or not all of it."))
        return findings + inspect_configs(self.configs)

    def _inspect_all(self, entries: Iterable[BundleFile | Finding], depth: int) -> Iterator[Finding]:
        for entry in entries:
            if isinstance(entry, Finding):
                yield entry
                continue
            try:
                self._count(entry, depth)
                with entry.open() as stream:
                    yield from self._inspect(entry, stream, depth)
            except (OSError, RecursionError, MemoryError) as error:
                level = REFUSED if entry.name.lower().endswith(_PICKLES) else LOOK
                reason = getattr(error, "strerror", None) or error or type(error).__name__
                yield Finding(level, entry.name, "", "not read", f"Nobody looked into it: {reason}.")

    def _count(self, entry: BundleFile, depth: int) -> None:
        self.unpacked += entry.size if depth else 0
        if self.unpacked > MOST_UNPACKED:
            raise OSError(f"the archives of the bundle hold more than {MOST_UNPACKED:,} bytes")

    def _inspect(self, file: BundleFile, stream: IO[bytes], depth: int) -> Iterator[Finding]:
        """What a file is by its first bytes comes before what its name says."""
        head = stream.read(_HEAD)
        stream.seek(0)
        name, suffix = file.name, PurePosixPath(file.name).suffix.lower()
        if head.startswith(b"PK"):
            yield from self._inspect_archive(file, stream, depth)
            return
        if zipfile.is_zipfile(stream):
            yield Finding(REFUSED, name, "", "an archive behind something else", "Programs differ in what it is.")
        stream.seek(0)
        if head.startswith(_PROGRAMS) or suffix in _COMPILED:
            yield Finding(REFUSED, name, "", "machine code", "It can be run, and nobody can read it.")
        elif head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
            level = REFUSED if suffix in _PICKLES else LOOK
            yield Finding(level, name, "", "an archive", "It is not opened here; nobody looked into it.")
        elif head.startswith(b"\x93NUMPY"):
            yield from _inspect_array(name, stream)
        elif re.match(rb"\x80[\x00-\x05]", head) or suffix in _PICKLES:
            yield from inspect_pickle(name, stream, weights=suffix in _WEIGHTS)
        elif suffix == ".safetensors":
            yield from _inspect_safetensors(name, stream, file.size)
        elif suffix in _PICTURES:
            yield _known(name, head.startswith(_PICTURES[suffix]))
        else:
            yield from self._inspect_text(file, stream, suffix)

    def _inspect_text(self, file: BundleFile, stream: IO[bytes], suffix: str) -> Iterator[Finding]:
        name = PurePosixPath(file.name).name
        kind = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}.get(suffix, "")
        if file.size > LARGEST.get(kind, LONGEST_TEXT):
            yield Finding(LOOK, file.name, "", f"{file.size:,} bytes", "It is too large to be looked at here.")
            return
        content = stream.read()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text or text.startswith("\ufeff"):
            yield Finding(LOOK, file.name, "", "no UTF-8 text", "It is of a kind that is not known here.")
        elif kind:
            yield from self._read_config(file.name, text, kind)
        elif suffix in (".py", ".pyw"):
            yield from inspect_python(file.name, text)
        elif suffix in (".conf", ".ini", ".cfg"):
            yield from inspect_logging(file.name, text)
        elif text.startswith("#!"):
            yield Finding(LOOK, file.name, "", "a program", f"It can be run by {text.splitlines()[0][2:].strip()}.")
        elif name.startswith("requirements"):
            yield Finding(LOOK, file.name, "", "packages to install", "Installing a package runs its code.")
        else:
            yield _known(file.name, suffix in _TEXTS or name in _TEXT_NAMES or not text)

    def _read_config(self, name: str, text: str, kind: str) -> Iterator[Finding]:
        try:
            tree, problems = read_config(text, kind)
        except ValueError as error:
            yield Finding(LOOK, name, "", "a broken config", str(error))
            return
        yield Finding(OK, name, "", "a config", "")
        yield from (Finding(LOOK, name, "", "a config", problem) for problem in problems)
        if PurePosixPath(name).stem == "large_files":
            yield from inspect_large_files(name, tree)
        self.configs.append((name, tree))

    def _inspect_archive(self, file: BundleFile, stream: IO[bytes], depth: int) -> Iterator[Finding]:
        suffix = PurePosixPath(file.name).suffix.lower()
        if depth >= DEEPEST:
            yield Finding(REFUSED, file.name, "", "an archive", f"It lies in {depth} others; nobody looks that deep.")
            return
        try:
            archive = zipfile.ZipFile(stream)
        except Exception as error:  # zipfile raises errors of many kinds for what a stranger wrote
            level = REFUSED if suffix in _PICKLES else LOOK
            yield Finding(
                level, file.name, "", "a broken archive", f"Nobody can look into it ({type(error).__name__})."
            )
            return
        with archive:
            names = archive.namelist()
            weights = any(name.endswith("/data.pkl") for name in names)
            script = weights and any(re.match(r"[^/]*/code/", name) for name in names)
            if script:
                yield Finding(
                    LOOK, file.name, "", "TorchScript", "It holds code of its own, which runs when it is used."
                )
            elif not weights and suffix != ".npz":
                level = REFUSED if suffix in _WEIGHTS else LOOK
                yield Finding(level, file.name, "", "an archive", "MONAI does not open it; what for is it there?")
            for entry in list_archive(archive, file.name):
                inside = entry.name.rpartition("!")[2] if isinstance(entry, BundleFile) else ""
                if weights and _TORCH_PARTS.fullmatch(inside):
                    continue
                if script and re.match(r"[^/]*/code/.*\.py$", inside):
                    yield from _inspect_script(entry)  # type: ignore[arg-type]
                elif weights and inside.endswith(".pkl"):
                    yield from _inspect_member(entry, script)  # type: ignore[arg-type]
                elif not (script and inside.endswith(".debug_pkl")):
                    yield from self._inspect_all([entry], depth + 1)


def _inspect_member(entry: BundleFile, script: bool) -> Iterator[Finding]:
    try:
        with entry.open() as stream:
            yield from inspect_pickle(entry.name, stream, weights=True, script=script)
    except OSError as error:
        yield Finding(REFUSED, entry.name, "", "not read", f"Nobody looked into it: {error}.")


def _inspect_script(entry: BundleFile) -> Iterator[Finding]:
    """Files of TorchScript's code; its few operations on files are told."""
    yield Finding(LOOK, entry.name, "", "TorchScript code", "It runs when the network is used.")
    with entry.open() as stream:
        text = stream.read(LONGEST_TEXT).decode("utf-8", "replace")
    for word in dict.fromkeys(
        re.findall(r"\b(?:torch|aten|ops\.\w+)\.(?:from_file|save|load)\b|\bops\.(?!prim)\w+", text)
    ):
        yield Finding(LOOK, entry.name, "", word, "It may read or write files, or call another library.")


def _inspect_array(name: str, stream: IO[bytes]) -> Iterator[Finding]:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        objects = read(stream)[2].hasobject
    except Exception as error:  # numpy raises errors of many kinds for what a stranger wrote
        yield Finding(LOOK, name, "", "a broken array", f"Its header cannot be read ({type(error).__name__}).")
        return
    if objects:
        yield Finding(LOOK, name, "", "an array of objects", "MONAI's NumpyReader unpickles it.")
        yield from inspect_pickle(name, stream, weights=False)
    else:
        yield Finding(OK, name, "", "an array", "")


def _inspect_safetensors(name: str, stream: IO[bytes], size: int) -> Iterator[Finding]:
    start = stream.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    try:
        sound = length + 8 <= size and length <= LARGEST["json"] and isinstance(json.loads(stream.read(length)), dict)
    except (ValueError, RecursionError):
        sound = False
    yield _known(name, sound)


def _known(name: str, known: bool) -> Finding:
    if known:
        return Finding(OK, name, "", "a file that is not run", "")
    return Finding(LOOK, name, "", "an unknown kind of file", "What it holds was not looked at.")
