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
import configparser
import logging
import logging.handlers
from collections.abc import Iterator

from monai_ext.share.allowed import LOGGING_CLASSES
from monai_ext.share.expressions import UNREADABLE
from monai_ext.share.finding import LOOK, OK, REFUSED, Finding

_STREAMS = {"sys.stdout", "sys.stderr"}
_REFUSED = "Python runs it as code when the run starts; MONAI from 1.6.1 on refuses it."


def inspect_logging(file: str, text: str) -> Iterator[Finding]:
    r"""
    The classes and arguments of a ``logging.conf``, which `logging.config.fileConfig` evaluates.

    Example:
        >>> [f.level for f in inspect_logging("logging.conf", "[handler_a]\nclass=os.system\nargs=('ls',)")]
        ['ok', 'refused', 'ok']
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        yield Finding(LOOK, file, "", "a broken file", " ".join(str(error).split())[:200])
        return
    yield Finding(OK, file, "", "settings of the log", "")
    for section in parser.sections():
        for field in ("class", "args", "kwargs"):
            value = parser.get(section, field, fallback="", raw=True).strip()
            if value:
                level, why = _judge_class(value) if field == "class" else _judge_arguments(value)
                yield Finding(level, file, f"{section}#{field}", value, why)


def _judge_class(value: str) -> tuple[str, str]:
    if value in LOGGING_CLASSES:
        return OK, ""
    path, _, name = value.rpartition(".")
    module = {"": logging, "logging": logging, "logging.handlers": logging.handlers}.get(path)
    thing = vars(module).get(name) if module else None
    if isinstance(thing, type) and issubclass(thing, (logging.Handler, logging.Formatter)):
        return LOOK, "It writes to a file or sends to another machine."
    return REFUSED, _REFUSED


def _judge_arguments(value: str) -> tuple[str, str]:
    try:
        nodes: list[ast.AST] = [ast.parse(value, mode="eval").body]
    except UNREADABLE:
        return REFUSED, _REFUSED
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _STREAMS:
            continue
        if not isinstance(node, (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.expr_context)):
            return REFUSED, _REFUSED
        nodes += ast.iter_child_nodes(node)
    return OK, ""
