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
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.apps.utils import SUPPORTED_HASH_TYPES
from monai.bundle.scripts import _safe_large_file_path

from monai_ext.share.contents import CONFIG_SUFFIXES, METADATA, MODEL, README, find_config, read_mapping, shared_files
from monai_ext.share.problem import Problem

LARGEST = 25_000_000  # bytes, the zoo's limit for a file in git
DATA_LICENSE = "docs/data_license.txt"
HEADINGS = (
    *("Model Description", "Data", "Performance", "Additional Usage Steps", "System Configuration"),
    *("Limitations", "References", "License"),
)
TEXTS = (".json", ".yaml", ".yml", ".md", ".txt", ".conf", ".cfg", ".py", ".sh")
# Folders of people and machines; not the middle of an address.
PERSONAL = re.compile(r"(?<![\w.:/-])(?:/(?:home|Users|root|mnt|media|scratch)/|[A-Za-z]:\\+Users\\+)[^\s'\"`)]*")
SECRET = re.compile(r"\b(?:hf|ghp|gho|github_pat)_\w{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")


def check_files(bundle: Path) -> list[Problem]:
    """
    Say what is wrong with which files a bundle has: those that must be there, large ones, links, paths of people.

    Args:
        bundle: its folder.
    """
    files = shared_files(bundle)
    large, problems = large_files(bundle)
    for name in ("LICENSE", METADATA, README):
        if not (bundle / name).is_file():
            problems.append(Problem(name, "is missing", "add it"))
        elif not (bundle / name).read_bytes().strip():
            problems.append(Problem(name, "is empty", "fill it in"))
    if find_config(bundle, "inference") is None:
        problems.append(Problem("configs/inference.json", "is missing", "add it: the zoo and MONAI Label start there"))
    if not re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*", bundle.name):
        remedy = "name it by task and data with letters, digits and _: spleen_ct_segmentation"
        problems.append(Problem(".", f"the folder's name is {bundle.name!r}", remedy))
    problems += _readme_problems(bundle) + _model_problems(bundle, files, large)
    for name in files:
        path = bundle / name
        if path.is_symlink():
            problems.append(Problem(name, "is a symbolic link", "put the file itself there"))
            continue
        if path.stat().st_size > LARGEST and name not in large:
            size = f"has {path.stat().st_size / 1e6:.0f} MB, more than the zoo's 25"
            problems.append(Problem(name, size, "upload it somewhere and list it in large_files.yml"))
        if path.suffix in TEXTS:
            problems += _text_problems(path, name)
    return problems


def _readme_problems(bundle: Path) -> list[Problem]:
    path = bundle / README
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    problems = [
        Problem(README, f"has no section {heading!r}", "add it, as the zoo's template has it")
        for heading in HEADINGS
        if not re.search(rf"^#+ \**{heading}\b", text, re.M | re.I)
    ]
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        target = (path.parent / link).resolve()
        if re.match(r"[a-z]+:", link):
            continue
        if not target.is_relative_to(bundle.resolve()):
            problems.append(Problem(README, f"links to {link}, outside the bundle", "give an address, or leave it out"))
        elif not target.exists():
            problems.append(Problem(README, f"links to {link}, which is not there", "correct the link"))
    return problems


def _model_problems(bundle: Path, files: list[str], large: Mapping[str, str]) -> list[Problem]:
    readme = (bundle / README).read_text(encoding="utf-8", errors="replace") if (bundle / README).is_file() else ""
    if MODEL not in files and MODEL not in large:
        said = re.search(r"\buntrained\b|\bno (trained )?model\b", readme, re.I)
        remedy = f"add it, or say in {README} that the bundle brings no trained model"
        return [] if said else [Problem(MODEL, "is missing", remedy)]
    problems = []
    if not (bundle / DATA_LICENSE).is_file():
        remedy = "name the data the model was trained on, and their conditions"
        problems.append(Problem(DATA_LICENSE, "is missing beside a model", remedy))
    others = [name for name in {*files, *large} if re.fullmatch(r"models/[^/]+\.pt", name) and name != MODEL]
    remedy = "move it to models/base/: MONAI Label offers every .pt in models/ as a model"
    return problems + [Problem(name, f"stands beside {MODEL}", remedy) for name in sorted(others)]


def _text_problems(path: Path, name: str) -> list[Problem]:
    problems = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError:
        return [Problem(name, "is not UTF-8", "save it as UTF-8")]
    for number, line in enumerate(lines, 1):
        for found in PERSONAL.finditer(line):
            remedy = "leave it out, or begin it with /workspace/"
            problems.append(Problem(f"{name}:{number}", f"shows a path of one's own machine, {found[0]}", remedy))
        if SECRET.search(line):
            remedy = "take it out, and make it invalid where it was issued"
            problems.append(Problem(f"{name}:{number}", "holds a secret (a token or a private key)", remedy))
    return problems


def large_files(bundle: Path) -> tuple[dict[str, str], list[Problem]]:
    """Give the paths that ``large_files.*`` lists with their addresses, and what is wrong with the list."""
    name = next((f"large_files{s}" for s in CONFIG_SUFFIXES[::-1] if (bundle / f"large_files{s}").is_file()), None)
    if name is None:
        return {}, []
    content, problems = read_mapping(bundle, name)
    entries = content.get("large_files")
    if not isinstance(entries, list):
        return {}, problems or [Problem(f"{name}#large_files", "is no list", "list path, url, hash_val and hash_type")]
    listed: dict[str, str] = {}
    for number, entry in enumerate(entries):
        where = f"{name}#large_files#{number}"
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("path", "url")):
            problems.append(Problem(where, "has no path or no url", "give both as words"))
            continue
        problems += _entry_problems(bundle, where, entry)
        if entry["path"] in listed:
            problems.append(Problem(f"{where}#path", f"lists {entry['path']} again", "keep one"))
        listed[entry["path"]] = entry["url"]
    return listed, problems


def _entry_problems(bundle: Path, where: str, entry: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if not re.match(r"https://[\w-]+(\.[\w-]+)+/.", entry["url"]):
        problems.append(Problem(f"{where}#url", f"is {entry['url']!r}, no address", "give one that begins with https"))
    try:
        path = Path(_safe_large_file_path(bundle, entry["path"]))
    except ValueError:
        problems.append(Problem(f"{where}#path", f"leads out of the bundle: {entry['path']}", "keep it inside"))
        return problems
    kind, value = entry.get("hash_type"), str(entry.get("hash_val", ""))
    if kind not in SUPPORTED_HASH_TYPES:
        problems.append(Problem(f"{where}#hash_type", f"is {kind!r}", "write sha256"))
        return problems
    digest = SUPPORTED_HASH_TYPES[kind]()
    if not re.fullmatch(rf"[0-9a-f]{{{2 * digest.digest_size}}}", value):
        problems.append(Problem(f"{where}#hash_val", f"is {value!r}, no {kind}", f"give the file's {kind}"))
    elif path.is_file():
        found = file_hash(path, kind)
        if found != value:
            problems.append(Problem(f"{where}#hash_val", f"is not that of {entry['path']}", f"it is {found}"))
    return problems


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Hash of a file's content, read in pieces."""
    digest = hashlib.new(kind)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
