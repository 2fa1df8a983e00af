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
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from monai_ext.share.allowed import ATTRIBUTES, BUILTINS, CLASS_ARGUMENTS, DATA_ROOT, EXPRESSIONS, GLOBALS, MODULES
from monai_ext.share.components import permission, takes_class_names
from monai_ext.share.dangers import danger

LONGEST = 2000
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_REFERENCES = "__local_refs"
_LITERALS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Slice, ast.IfExp, ast.Compare, ast.BoolOp, ast.UnaryOp)
_PARTS = (ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop, ast.keyword, ast.FormattedValue)
_LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def judge_expression(id: str, value: str, imports: Mapping[str, str]) -> list[tuple[str, str]]:
    """
    What in an expression of a config is outside the allow-list; nothing is evaluated.

    The text is first changed as MONAI changes it, with its own functions, since a reference is replaced in the text,
    even inside quotes: what looks like a string may be code then.

    Args:
        id: place in the config, which relative references need.
        value: the expression with its ``$``.
        imports: module or component by the name that import expressions of the bundle give it.

    Returns:
        Pairs of what was found and why it matters; empty if all is allowed.

    Example:
        >>> judge_expression("device", "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')", {})
        []
        >>> judge_expression("run", "$os.system('ls')", {"os": "os"})
        [('os.system', 'It starts programs.')]
    """
    if value[1:] in EXPRESSIONS:
        return []
    if len(value) > LONGEST:
        return [(f"{len(value)} characters", "An expression of this length hides what it does.")]
    try:
        text = ConfigParser.resolve_relative_ids(id, value)
        text = ReferenceResolver.update_refs_pattern(text, dict.fromkeys(ReferenceResolver.match_refs_pattern(text)))
        tree = ast.parse(text[1:].strip(), mode="eval")
        return list(dict.fromkeys([*_Judge(imports).judge(tree.body), *_absolute_paths(tree.body)]))
    except UNREADABLE as error:
        return [(type(error).__name__, "It cannot be parsed, so nobody knows what it would run.")]


def read_import(value: str) -> tuple[str, str, str] | None:
    """
    The name, what it stands for and why a person must look (or nothing) of ``$import ...``, None for all else.

    Example:
        >>> read_import("$import torch.distributed as dist")
        ('dist', 'torch.distributed', '')
        >>> read_import("$from os import system")
        ('system', 'os.system', 'It starts programs.')
    """
    try:
        text = ReferenceResolver.normalize_id(value)[1:].strip()
        body = ast.parse(text).body if len(text) <= LONGEST and "import" in text else []
    except UNREADABLE:
        return None
    if not body or not isinstance(body[0], (ast.Import, ast.ImportFrom)):
        return None
    node, first = body[0], body[0].names[0]
    name = first.asname or first.name
    if isinstance(node, ast.Import):
        target, allowed = first.name, first.name in MODULES
    else:
        target = f"{'.' * node.level}{node.module or ''}.{first.name}"
        allowed = permission(target) is not None or target in MODULES
    if len(body) > 1 or len(node.names) > 1:
        return name, target, "There is more than one statement; MONAI takes the first."
    if name in BUILTINS or name.startswith("_") or GLOBALS.get(name, target) != target:
        return name, target, f"It gives {name!r} another meaning."
    return name, target, "" if allowed else danger(target)


class _Judge:
    """Walks an expression; a kind of syntax that it does not know is found, too."""

    def __init__(self, imports: Mapping[str, str]) -> None:
        self.names = {**GLOBALS, **imports}
        self.arguments: set[str] = set()

    def judge(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, (ast.Name, ast.Attribute)):
            yield from self._name(node)
            return
        if isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.Lambda):
            yield from self._function(node)
            return
        elif isinstance(node, _LOOPS):
            yield "a loop", "A loop calls things with values that are not written here."
            names = {
                name.id for part in node.generators for name in ast.walk(part.target) if isinstance(name, ast.Name)
            }
            yield from self._inside(_parts(node), names)
            return
        elif isinstance(node, ast.Subscript) and _is_reference(node):
            return
        elif isinstance(node, ast.Constant):
            yield from _constant(node.value)
        elif isinstance(node, ast.BinOp):
            yield from _operation(node)
        elif isinstance(node, ast.keyword) and node.arg is None:
            yield "**", "It hands on arguments that are not written here."
        elif isinstance(node, ast.keyword) and str(node.arg).startswith(("pretrained", *CLASS_ARGUMENTS)):
            yield f"{node.arg}=", "It loads weights or a class; give it in a _target_."
        elif isinstance(node, ast.Dict) and None in node.keys:
            yield "**", "It hands on entries that are not written here."
        elif not isinstance(node, (*_LITERALS, *_PARTS, ast.Subscript)):
            yield type(node).__name__, _SYNTAX.get(type(node), "This syntax is not needed in a config.")
        for child in ast.iter_child_nodes(node):
            yield from self.judge(child)

    def _name(self, node: ast.Name | ast.Attribute) -> Iterator[tuple[str, str]]:
        attributes: list[str] = []
        root: ast.AST = node
        while isinstance(root, ast.Attribute):
            attributes.insert(0, root.attr)
            root = root.value
        if isinstance(root, ast.Name) and root.id not in self.arguments:
            attributes, found = self._known(root.id, attributes)
            yield from found
        elif not isinstance(root, ast.Name):
            yield from self.judge(root)
        for name in attributes:
            if name not in ATTRIBUTES:
                why = "An attribute with underscores reaches into Python." if name.startswith("_") else _ATTRIBUTE
                yield f".{name}", why

    def _known(self, name: str, attributes: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """The attributes behind the longest allowed name, and what is wrong with the name."""
        if name in BUILTINS:
            return attributes, []
        path = self.names.get(name)
        full = ".".join([path or name, *attributes])
        for count in range(len(attributes) + 1) if path else ():
            start = ".".join([path or name, *attributes[:count]])
            if permission(start):
                by_name = [(start, "It takes the name of a class; give it as a _target_.")]
                return attributes[count:], by_name if takes_class_names(start) else []
        why = "It is a whole module." if full in MODULES else danger(full)
        return [], [(full, why)]

    def _call(self, node: ast.Call) -> Iterator[tuple[str, str]]:
        if not isinstance(node.func, (ast.Name, ast.Attribute)) and not _is_reference(node.func):
            yield "a call", "It calls what another expression gives."

    def _function(self, node: ast.Lambda) -> Iterator[tuple[str, str]]:
        if any(isinstance(inner, ast.Call) for inner in ast.walk(node)):
            yield "lambda", "A function that makes calls, later and with arguments that are not written here."
        arguments = node.args
        if arguments.vararg or arguments.kwarg or arguments.defaults or arguments.kw_defaults:
            yield "lambda", "A function with more than plain arguments."
        names = {argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
        yield from self._inside([node.body], names)

    def _inside(self, nodes: Iterable[ast.AST], names: set[str]) -> Iterator[tuple[str, str]]:
        """Judge what knows some more names."""
        outer = self.arguments
        self.arguments = outer | names
        for node in nodes:
            yield from self.judge(node)
        self.arguments = outer


_ATTRIBUTE = "This attribute is not on the allow-list."
_TEXT = "It builds a text, of which nobody knows what it will name."
_SYNTAX: dict[type[Any], str] = {
    ast.JoinedStr: _TEXT,
    ast.NamedExpr: "It gives a name another meaning.",
}


def _is_reference(node: ast.AST) -> bool:
    match node:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str())):
            return name == _REFERENCES
    return False


def _parts(node: Any) -> Iterator[ast.AST]:
    """What a loop gives, and what it goes through."""
    yield from (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
    for part in node.generators:
        yield from (part.iter, *part.ifs)


def _absolute_paths(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Texts that begin with a slash, unless they are hung on something."""
    nodes = list(ast.walk(tree))
    hung = {id(node.right) for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hung:
            yield from absolute_path(node.value)


def _constant(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, bytes):
        yield "bytes", _TEXT
    if isinstance(value, str):
        yield from judge_text(value)


def _operation(node: ast.BinOp) -> Iterator[tuple[str, str]]:
    texts = [isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (node.left, node.right)]
    if all(texts) or (any(texts) and not isinstance(node.op, ast.Add)):
        yield "text", _TEXT
    if isinstance(node.op, (ast.Pow, ast.LShift)):
        yield "power", "It may make a number that fills the memory."


def judge_text(text: str) -> Iterator[tuple[str, str]]:
    """Addresses, and paths that leave the folder of the run, in a text of a config; absolute ones are not told."""
    if "://" in text:
        yield text, "An address: it may be read from or written to."
    elif ".." in re.split(r"[\\/]", text):
        yield text, "A path that leaves its folder."
    elif text.startswith("~"):
        yield text, "A path in the home folder."


def absolute_path(text: str) -> Iterator[tuple[str, str]]:
    """A text that is an absolute path, but for the folder that stands for the user's data."""
    if re.match(r"/|[A-Za-z]:[\\/]|\\\\", text) and not text.startswith(DATA_ROOT):
        yield text, "An absolute path: it may be read or written."
