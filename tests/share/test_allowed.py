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

"""The allow-list names what exists, and nothing that could harm by another way."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from monai.bundle import ComponentLocator
from torch import _weights_only_unpickler as unpickler

from monai_ext.share.allowed import ATTRIBUTES, BUILTINS, EXCEPTIONS, MODULES, NAMES, PACKAGES, WEIGHTS
from monai_ext.share.components import judge_target, permission, short_names, takes_class_names


@pytest.mark.parametrize("path", NAMES)
def test_names_exist(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(import_module(module), name) and permission(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_give_only_their_own_classes(package: str) -> None:
    module = import_module(package)
    allowed = [name for name in vars(module) if permission(f"{package}.{name}") and f"{package}.{name}" not in NAMES]
    assert allowed and all(f"{vars(module)[name].__module__}.".startswith(f"{package}.") for name in allowed)


def test_exceptions_exist() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith(tuple(PACKAGES))]
    assert set(EXCEPTIONS) <= {name for module in modules for name in vars(module)}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_not_allowed(name: str) -> None:
    assert judge_target(name)[0] is None and judge_target(f"{name}d")[0] is None
    assert not any(permission(f"{package}.{name}") for package in PACKAGES)


def test_short_names_are_those_of_monai() -> None:
    locator = ComponentLocator()
    for name in ("UNet", "LoadImaged", "DataLoader", "download_url", "SAM2Segmenter", "RandFlipD"):
        modules = locator.get_component_module_name(name)
        assert short_names()[name] == ([modules] if isinstance(modules, str) else modules)


def test_no_attribute_of_a_component_is_a_way_into_a_module() -> None:
    """An expression that got hold of a module could use it by these names."""
    harmless = {"device", "dtype", "float", "long", "max", "mean", "min", "ndim", "shape", "squeeze", "sum", "test"}
    harmless.add("unsqueeze")
    # In a process of its own: modules that another test has imported stand in their parents, too.
    code = (
        "import json, sys, importlib; n = sys.argv[1:]; print(json.dumps([dir(importlib.import_module(m)) for m in n]))"
    )
    modules = sorted(MODULES - set(PACKAGES))
    shown = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True).stdout
    for module, names in zip(modules, json.loads(shown.splitlines()[-1]), strict=True):
        assert ATTRIBUTES & set(names) <= harmless, module  # numpy.test and ignite's show their tests


def test_allowed_classes_of_monai_load_and_start_nothing() -> None:
    """A class of a new MONAI that does so must become an exception, or be read and added here."""
    read = {"CheckpointLoader"}  # it loads weights only
    words = r"\b(locate|load_url|download_url|hf_hub_download|load_state_dict_from_url)\(|torch\.(hub|load)\b"
    words += r"|pickle\.load|subprocess\.|os\.system|\beval\((?!\))|from_pretrained\("
    for package in (package for package in PACKAGES if package.startswith("monai")):
        for name, thing in vars(import_module(package)).items():
            if isinstance(thing, type) and permission(f"{package}.{name}") and not takes_class_names(name):
                code = source(thing)
                assert code, f"{package}.{name}"
                loads = re.search(words, code)
                assert not loads or name in read, f"{package}.{name}: {loads[0]}"


def source(thing: type) -> str:
    """Source of a class without comments and docstrings."""
    tree = parsed(str(sys.modules[thing.__module__].__file__))
    name = thing.__name__
    return "".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


@cache
def parsed(path: str) -> ast.Module:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return tree


def test_builtins_call_nothing_by_name() -> None:
    assert not BUILTINS & {"getattr", "setattr", "eval", "exec", "open", "vars", "type", "map", "format", "compile"}


def test_weights_are_what_torch_takes() -> None:
    taken = set(unpickler._get_allowed_globals())
    assert {name.replace("__builtin__", "builtins") for name in WEIGHTS} <= taken


def test_nothing_is_imported_for_a_name() -> None:
    before = set(sys.modules)
    assert permission("monai.losses.antigravity.x") is None and judge_target("antigravity.geohash")[0] is None
    assert judge_target("torch.optim.nothing.there")[0] is None
    assert "antigravity" not in set(sys.modules) - before and torch.__name__ in sys.modules
