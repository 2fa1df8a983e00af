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


"""The documentation as files, blocks of code and tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "bundles"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "bundles/*/docs/*.md")
    for path in ROOT.glob(pattern)
)
_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<note>[^\n]+) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and what the comment right above it says to the test."""

    language: str
    code: str
    added: str = ""
    skipped: str = ""

    @property
    def commands(self) -> list[str]:
        """The lines of a bash block, continued ones joined."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read(document: str) -> str:
    """Text of a document."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    r"""
    All bash and python blocks in order.

    >>> blocks("<!-- test: add --size 1 -->\n```bash\nls \\\n  here\n```\n")[0].commands
    ['ls    here']
    """
    found = []
    for match in _BLOCK.finditer(text):
        kind, _, words = (match["note"] or "").partition(" ")
        if kind not in ("", "add", "skip"):
            raise ValueError(f"a test comment must begin with add or skip, not {match['note']!r}.")
        skipped = words.removeprefix("because ") if kind == "skip" else ""
        found.append(Block(match["language"], match["code"], words if kind == "add" else "", skipped))
    return found


def section(text: str, heading: str) -> str:
    """What stands below a heading that begins with these whole words, up to the next one."""
    match = re.search(rf"^#+ {re.escape(heading)}(?!\w).*?\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert match, f"no heading {heading!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    r"""
    Rows of the tables in a text, without their head, as plain cells.

    >>> rows("| a | b |\n|---|---|\n| `x` | 1 |\n")
    [['x', '1']]
    """
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {at for i, line in enumerate(lines) if re.fullmatch(r"[|\-: ]+", line) and "-" in line for at in (i - 1, i)}
    return [
        [re.sub(r"^`(.*)`$", r"\1", cell.strip()) for cell in line.strip().strip("|").split("|")]
        for i, line in enumerate(lines)
        if i not in heads
    ]
