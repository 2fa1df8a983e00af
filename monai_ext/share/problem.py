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

import shutil
import textwrap
from collections.abc import Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with a bundle: where, what it is, and what to do about it."""

    where: str  # file below the bundle's folder, with `#key` or `:line`
    what: str
    remedy: str


def problem_table(problems: Sequence[Problem], *, width: int | None = None) -> str:
    """
    Lay problems out as a table of text, one row each.

    Args:
        problems: the rows.
        width: characters of a line; None takes the terminal's.

    Example:
        >>> print(problem_table([Problem("LICENSE", "is missing", "add it")], width=60))
        file, key  what is wrong            what to do
        ---------  -----------------------  -----------------------
        LICENSE    is missing               add it
    """
    width = shutil.get_terminal_size((120, 24)).columns if width is None else width
    first = min(max(len("file, key"), *(len(problem.where) for problem in problems)), width // 3)
    rest = max((width - first - 4) // 2, 20)
    widths = (first, rest, rest)
    lines = [_line(("file, key", "what is wrong", "what to do"), widths), _line(["-" * w for w in widths], widths)]
    for problem in problems:
        cells = [textwrap.wrap(cell, w) or [""] for cell, w in zip(problem, widths, strict=True)]
        for at in range(max(map(len, cells))):
            lines.append(_line([cell[at] if at < len(cell) else "" for cell in cells], widths))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
