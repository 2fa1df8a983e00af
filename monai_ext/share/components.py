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
import sys
from functools import cache
from importlib import import_module
from types import FunctionType, ModuleType

import monai  # noqa: F401  (its modules are looked up by their names)

from monai_ext.share.allowed import EXCEPTIONS, NAMES, PACKAGES, TARGETS_ONLY
from monai_ext.share.dangers import danger

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def permission(path: str) -> str | None:
    """
    The reason why a full dotted name is allowed, or None.

    Nothing is imported but the packages of the allow-list: a name that leads elsewhere, as ``monai.os.system`` or an
    alias, is not found, and so not allowed.

    Example:
        >>> permission("monai.losses.DiceLoss")
        'a loss computes with tensors'
        >>> permission("monai.bundle.run") is None
        True
    """
    if path in NAMES:
        return NAMES[path]
    module, _, name = path.rpartition(".")
    package = max((known for known in PACKAGES if f"{module}.".startswith(f"{known}.")), key=len, default=None)
    thing = vars(_module(module, package)).get(name) if package else None
    if package is None or not isinstance(thing, type) or thing.__name__.startswith("_"):
        return None
    exported = vars(_module(package, package)).get(thing.__name__) is thing
    if not exported or not f"{thing.__module__}.".startswith(f"{package}.") or _base_name(thing) in EXCEPTIONS:
        return None
    return PACKAGES[package]


def judge_target(target: object) -> tuple[str | None, str]:
    """
    Whether a ``_target_`` is allowed: the reason, or None, and why a person must look.

    Args:
        target: as it stands in the config. A short name counts for every component of MONAI that bears it, since MONAI
            takes one of them.

    Example:
        >>> judge_target("UNet")[0]
        'a network computes with tensors; those that download are excepted'
        >>> judge_target("os.system")
        (None, 'It starts programs.')
    """
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return None, "What is called is decided elsewhere, so nobody can see it here."
    paths = [f"{module}.{target}" for module in short_names().get(target, ())] or [target]
    reasons = [permission(path) or permission(_public(path)) for path in paths]
    if all(reasons):
        return reasons[0], ""
    name = target.rpartition(".")[2]
    return None, EXCEPTIONS.get(re.sub("(d|D|Dict)$", "", name), EXCEPTIONS.get(name)) or danger(paths[0])


def takes_class_names(path: str) -> bool:
    """Whether a class takes the name of another one among its arguments, as MONAI's loaders do."""
    return re.sub("(d|D|Dict)$", "", path.rpartition(".")[2]) in TARGETS_ONLY


@cache
def short_names() -> dict[str, list[str]]:
    """The modules in which MONAI's locator finds each short name, as `monai.bundle.ComponentLocator` does."""
    found: dict[str, list[str]] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("monai") and isinstance(module, ModuleType):
            for name, thing in vars(module).items():
                if isinstance(thing, (type, FunctionType)) and thing.__module__ == module_name:
                    found.setdefault(name, []).append(module_name)
    return found


@cache
def _module(name: str, package: str) -> ModuleType:
    import_module(package)
    return sys.modules.get(name, ModuleType(name))


def _public(path: str) -> str:
    """The name that NAMES has for what MONAI defines in a file of a package: its first two parts and the last."""
    parts = path.split(".")
    short = ".".join([*parts[:2], parts[-1]])
    module = sys.modules.get(path.rpartition(".")[0])
    package = sys.modules.get(".".join(parts[:2]))
    same = module and package and vars(module).get(parts[-1]) is vars(package).get(parts[-1])
    return short if same and len(parts) > 2 else path


def _base_name(thing: type) -> str:
    name = re.sub("(d|D|Dict)$", "", thing.__name__)
    return name if name in EXCEPTIONS else thing.__name__
