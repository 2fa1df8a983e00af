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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from monai_ext.share.allowed import CLASS_ARGUMENTS, CLASS_WORDS
from monai_ext.share.components import judge_target
from monai_ext.share.config_text import Pairs, walk
from monai_ext.share.expressions import LONGEST, absolute_path, judge_expression, judge_text, read_import
from monai_ext.share.finding import LOOK, OK, Finding

_KEY = re.compile(r"\+?[\w .,;:#/+*&-]*")
_PATHS = ("dir", "root", "path", "file")
# Entries of metadata.json that are for people, and may hold addresses.
_PROSE = ("changelog", "copyright", "data_source", "description", "intended_use", "references", "schema")
_SHAPE = re.compile(r"[\dnp+*/ ()-]*")


def inspect_configs(configs: Sequence[tuple[str, Any]]) -> list[Finding]:
    """
    What the configs of a bundle would import, call, evaluate, read and write.

    All are looked at together, since MONAI merges any of them: an import in one gives a name to all.

    Args:
        configs: path of each file and its content as `read_config` gives it.

    Example:
        >>> [f.what for f in inspect_configs([("a.json", Pairs([("net", Pairs([("_target_", "os.system")]))]))])]
        ['os.system']
    """
    imports: dict[str, str] = {}
    places: set[str] = set()
    findings = []
    for file, tree in configs:
        for id, _, node in walk(tree):
            found = read_import(node) if isinstance(node, str) and node.startswith("$") else None
            if found:
                name, target, why = found
                if imports.setdefault(name, target) != target:
                    why = f"{name!r} is something else in another place."
                places.add(id)
                findings.append(_finding(file, id, str(node), why))
    for file, tree in configs:
        for id, last, node in walk(tree):
            findings += [_finding(file, id, what, why) for what, why in _judge(file, id, last, node, imports, places)]
    return findings


def _finding(file: str, id: str, what: str, why: str) -> Finding:
    return Finding(LOOK if why else OK, file, id.replace("::", "#"), what, why)


def _judge(
    file: str, id: str, last: str, node: Any, imports: Mapping[str, str], places: set[str]
) -> Iterator[tuple[str, str]]:
    """Pairs of what stands there and why a person must look, which is empty if nobody must."""
    if isinstance(node, Pairs):
        for key, _ in node:
            if not _KEY.fullmatch(key):
                yield str(key), "A key with such characters may become code where MONAI puts it into references."
    if last in _KEYS:
        yield from _KEYS[last](node)
    elif last.startswith("pretrained") and node not in (None, False, 0, "0"):
        yield str(node), "Weights are downloaded or loaded from elsewhere."
    if not isinstance(node, str):
        return
    if node.startswith(("$", "%", "@")) and len(node) > LONGEST:
        yield f"{node[:20]}... ({len(node):,} characters)", "An expression of this length hides what it does."
    elif node.startswith("$"):
        if read_import(node) is None:
            wrong = judge_expression(id, node, imports)
            yield node, "; ".join(f"{what}: {why}" for what, why in wrong)
        yield from _references(id, node, places)
    elif node.startswith("%"):
        yield from _macro(id, node)
    elif node.startswith("@"):
        yield from _references(id, node, places) or [(node, "")]
    elif last not in ("_target_", "_desc_") and not _is_prose(file, id):
        found = [*judge_text(node), *absolute_path(node)]
        yield from found or ([(node, "")] if "/" in node or last.endswith(_PATHS) else [])


def _is_prose(file: str, id: str) -> bool:
    path = PurePosixPath(file)
    return path.stem == "large_files" or (path.name == "metadata.json" and id.partition("::")[0] in _PROSE)


def _target(node: Any) -> Iterator[tuple[str, str]]:
    yield str(node), judge_target(node)[1]


def _mode(node: Any) -> Iterator[tuple[str, str]]:
    if node != "default":
        yield str(node), "A class is handed on without its arguments, or the run stops in a debugger."


def _debug(node: Any) -> Iterator[tuple[str, str]]:
    yield str(node), "It stops in a debugger, which the environment names."


def _class_argument(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, str) and node.lower() not in CLASS_WORDS and not judge_target(node)[0]:
        yield node, "The name of a class: MONAI imports and calls it, as a _target_."


def _shape(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, str) and not _SHAPE.fullmatch(node):
        yield node, "A formula of a shape, which MONAI before 1.6.1 runs as code."


_KEYS = {
    "_target_": _target,
    "_mode_": _mode,
    "_debug_": _debug,
    "spatial_shape": _shape,
    **dict.fromkeys(CLASS_ARGUMENTS, _class_argument),
}


def _references(id: str, text: str, places: set[str]) -> list[tuple[str, str]]:
    """References to a module, which an import expression leaves in its place."""
    try:
        names = ReferenceResolver.match_refs_pattern(ConfigParser.resolve_relative_ids(id, text))
    except ValueError:
        return [(text, "It refers to a place outside the config.")]
    modules = [name for name in names if any(f"{place}::".startswith(f"{name}::") or not name for place in places)]
    return [(f"@{name}", "It refers to a module that is imported, so all of it.") for name in modules]


def _macro(id: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        path, _ = ConfigParser.split_path_id(ConfigParser.resolve_relative_ids(id, text)[1:])
    except ValueError:
        path = text
    yield text, "The content of another file, by a path that depends on the working directory." if path else ""
