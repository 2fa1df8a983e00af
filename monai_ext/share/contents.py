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
"""What of a bundle's folder is shared, and how its files are read for checking."""

from __future__ import annotations

import fnmatch
import json
import os
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_ext.share.problem import Problem

METADATA = "configs/metadata.json"
README = "docs/README.md"
MODEL = "models/model.pt"
DESCRIPTION = "models/adapter.json"
CARD = "MODEL_CARD.md"
# Made by runs, downloaded, private to an editor, or made again when the bundle is packed.
LEFT_OUT = (
    *("eval/*", "export/*", "runs/*", "mlruns/*", "mlruns.db", "models/base/*", "resume.pt", "*/resume.pt"),
    *(".*", "*/.*", "__pycache__/*", "*/__pycache__/*", "*.pyc", "events.out.*", "*/events.out.*", CARD),
)
CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


def shared_files(bundle: Path) -> list[str]:
    """
    List the files of a bundle that are shared, as paths below it with slashes, sorted; symbolic links are not followed.

    Example:
        >>> import tempfile
        >>> bundle = Path(tempfile.mkdtemp())
        >>> for name in ("LICENSE", ".env", "eval/results.csv"):
        ...     (bundle / name).parent.mkdir(exist_ok=True)
        ...     _ = (bundle / name).write_text("")
        >>> shared_files(bundle)
        ['LICENSE']
    """
    found = []
    for folder, folders, files in os.walk(bundle):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder, name).relative_to(bundle).as_posix() for name in (*files, *links)]
    return sorted(name for name in found if not any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT))


def find_config(bundle: Path, name: str) -> str | None:
    """The config of this name, JSON or YAML, as a path below the bundle; None if there is none."""
    found = (f"configs/{name}{suffix}" for suffix in CONFIG_SUFFIXES)
    return next((path for path in found if (bundle / path).is_file()), None)


def read_mapping(bundle: Path, name: str) -> tuple[dict[str, Any], list[Problem]]:
    """Read a JSON or YAML file that holds a mapping; an empty one and a problem if it does not."""
    path = bundle / name
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        repeated.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(items)

    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
        else:
            content = ConfigParser.load_config_file(path)
    except Exception as error:  # yaml's errors are Exceptions directly
        reason = " ".join(str(error).split())
        return {}, [Problem(name, f"cannot be read ({reason})", "write it as valid JSON or YAML")]
    if not isinstance(content, dict):
        return {}, [Problem(name, f"holds a {type(content).__name__}, not a mapping", "write keys and values")]
    return content, [
        Problem(f"{name}#{key}", "stands twice in the same place; only the last counts", "keep one") for key in repeated
    ]
