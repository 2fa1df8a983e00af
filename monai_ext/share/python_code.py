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
import builtins
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
        >>> [finding.what for finding in inspect_python("scripts/a.py", "import socket")]
        ['Python code', 'import socket']
    """
    yield Finding(LOOK, file, "", "Python code", "It runs when a config, or another file, imports it.")
    name = PurePosixPath(file.rpartition("!")[2]).parts[0].removesuffix(".py")
    if name in _importable():
        yield Finding(REFUSED, file, "", name, "It takes the place of a library of that name.")
    try:
        tree = ast.parse(text)
        found = dict.fromkeys([*_imports(tree), *_uses(tree)])
    except UNREADABLE as error:
        yield Finding(LOOK, file, "", type(error).__name__, "It cannot be parsed, so nobody knows what it would run.")
        return
    for line, what, name in found:
        yield Finding(LOOK, file, f"line {line}", what, danger(name))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, statement and name of each import that is not on the allow-list."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = f"{'.' * node.level}{node.module or ''}"
            names = [(module, f"{module}.{alias.name}") for alias in node.names]
        else:
            continue
        yield from ((node.lineno, f"import {full}", full) for module, full in names if module not in MODULES)


def _uses(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, name and name of what is used and known to be dangerous, by whatever name it was imported."""
    meanings = {name: name for name in vars(builtins)}
    nodes = list(ast.walk(tree))
    for node in nodes:
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            root = alias.name if module or alias.asname else alias.name.partition(".")[0]
            meanings[alias.asname or root] = f"{module}{root}"
    for node in nodes:
        if isinstance(node, (ast.Name, ast.Attribute)):
            root, dot, rest = ast.unparse(node).partition(".")
            full = f"{meanings.get(root, '')}{dot}{rest}"
            if root in meanings and full not in MODULES and any(f"{full}.".startswith(f"{n}.") for n in DANGERS):
                yield node.lineno, full, full


@cache
def _importable() -> frozenset[str]:
    """Names of Python's own modules, of those that it looks for at its start, and of installed ones."""
    always = {"monai", "monai_ext", "sitecustomize", "usercustomize"}
    return frozenset({*always, *sys.stdlib_module_names, *importlib.metadata.packages_distributions()})
