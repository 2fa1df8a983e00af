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

"""Configs as nested pairs: read without any object being made, and no key is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

DEEPEST, LONGEST_KEY = 100, 200
LARGEST = {"json": 8_000_000, "yaml": 200_000}
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "null", "bool", "timestamp", "value")}


class Pairs(list[tuple[str, Any]]):
    """A mapping with all its pairs, also those whose key comes twice."""


def read_config(text: str, kind: str) -> tuple[Any, list[str]]:
    """
    Read a config.

    Args:
        text: the whole file.
        kind: ``json`` or ``yaml``.

    Returns:
        Nested `Pairs`, lists and scalars, and sentences on what should not be there.

    Raises:
        ValueError: it cannot be read.

    Example:
        >>> read_config('{"a": 1, "a": 2}', "json")
        ([('a', 1), ('a', 2)], ["The key 'a' comes twice: what counts depends on who reads it."])
    """
    try:
        tree, problems = _from_yaml(text) if kind == "yaml" else (json.loads(text, object_pairs_hook=Pairs), [])
        for _, _, node in walk(tree):
            counts = Counter(key for key, _ in node) if isinstance(node, Pairs) else {}
            twice = [key for key, count in counts.items() if count > 1]
            problems += [f"The key {key!r} comes twice: what counts depends on who reads it." for key in twice]
    except (yaml.YAMLError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"It cannot be read as {kind.upper()}: {_first_line(error)}") from error
    return tree, problems


def walk(tree: Any) -> Iterator[tuple[str, str, Any]]:
    """
    Every node with its id, as MONAI writes ids, and the last part of its key; an item of a list has its list's.

    Raises:
        ValueError: it is nested deeper than `DEEPEST`, or a key is longer than `LONGEST_KEY`.

    Example:
        >>> list(walk(Pairs([("train#lr", 0.1)])))[1:]
        [('train::lr', 'lr', 0.1)]
    """
    stack: list[tuple[str, str, Any, int]] = [("", "", tree, 0)]
    while stack:
        id, last, node, depth = stack.pop()
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels.")
        yield id, last, node
        children: list[tuple[str, str, Any, int]] = []
        if isinstance(node, Pairs):
            for key, child in node:
                if len(key) > LONGEST_KEY:
                    raise ValueError(f"a key is longer than {LONGEST_KEY} characters.")
                path = key.removeprefix("+").replace("#", "::")
                children.append((f"{id}::{path}" if id else path, path.rpartition("::")[2], child, depth + 1))
        elif isinstance(node, list):
            children = [(f"{id}::{n}" if id else str(n), last, child, depth + 1) for n, child in enumerate(node)]
        stack.extend(reversed(children))


class _ShallowLoader(yaml.SafeLoader):
    """Stops at `DEEPEST`: PyYAML needs much time for what is nested deeper."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _from_yaml(text: str) -> tuple[Any, list[str]]:
    problems: list[str] = []
    seen: set[int] = set()

    def convert(node: yaml.Node) -> Any:
        if id(node) in seen:
            problems.append(f"An alias in line {node.start_mark.line + 1}: the same text in another place.")
            return None
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return Pairs((str(key.value), convert(value)) for key, value in node.value)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [convert(item) for item in node.value]
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            problems.append(
                f"The tag {node.tag!r} in line {node.start_mark.line + 1} makes an object while it is read."
            )
            return None
        if node.tag.endswith((":null", ":bool")):
            return node.value.lower() in ("true", "yes", "on") if node.tag.endswith(":bool") else None
        return node.value

    root = yaml.compose(text, Loader=_ShallowLoader)
    return (None if root is None else convert(root)), problems


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
