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

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath

from monai_ext.share.allowed import MODULES
from monai_ext.share.dangers import DANGERS, danger
from monai_ext.share.expressions import UNREADABLE
from monai_ext.share.finding import LOOK, REFUSED, Finding


def inspect_python(file: str, text: str) -> Iterator[Finding]:
    """
    What a Python file imports and which calls of it matter; a person must look at all of it in any case.

    Args:
        file: path in the bundle; its first part is what others may import it as, since MONAI puts the bundle's folder
            into the search path.
        text: the source.

    Example:
        >>> [finding.what for finding in inspect_python("scripts/a.py", "import os")]
        ['Python code', 'import os']
    """
    yield Finding(LOOK, file, "", "Python code", "It runs when a config, or another file, imports it.")
    name = PurePosixPath(file.rpartition("!")[2]).parts[0].removesuffix(".py")
    if name in _importable():
        yield Finding(REFUSED, file, "", name, "It takes the place of a library of that name.")
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except UNREADABLE as error:
        yield Finding(LOOK, file, "", type(error).__name__, "It cannot be parsed, so nobody knows what it would run.")
        return
    meanings: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    for node in nodes:
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            module = f"{'.' * node.level}{node.module or ''}" if isinstance(node, ast.ImportFrom) else alias.name
            full = f"{module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            meanings[alias.asname or alias.name.partition(".")[0]] = full if alias.asname or full != alias.name else ""
            if module not in MODULES:
                found[f"line {node.lineno}", f"import {full}"] = danger(full)
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            root, dot, rest = ast.unparse(node.func).partition(".")
            full = f"{meanings.get(root) or root}{dot}{rest}"
            if any(f"{full}.".startswith(f"{name}.") for name in DANGERS):
                found[f"line {node.lineno}", full] = danger(full)
    for (line, what), why in found.items():
        yield Finding(LOOK, file, line, what, why)


@cache
def _importable() -> frozenset[str]:
    """Names of Python's own modules and of installed ones."""
    return frozenset(sys.stdlib_module_names) | frozenset(importlib.metadata.packages_distributions())
