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


"""Links lead somewhere, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import DOCUMENTS, ROOT, read

LINK = re.compile(r"(?<!\!)\[[^\]]+\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def prose(document: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", read(document), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def targets(document: str) -> list[tuple[Path, str]]:
    """Files and anchors that a document links to, inside the repository."""
    found = []
    for link in LINK.findall(prose(document)) + PICTURE.findall(prose(document)):
        if not re.match(r"[a-z]+:", link):
            name, _, anchor = link.partition("#")
            found.append(((ROOT / document).parent / name if name else ROOT / document, anchor))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for path, anchor in targets(document):
        assert path.exists(), f"{document} links to {path}, which is not there."
        if anchor:
            assert anchor in anchors(path), f"{document} links to #{anchor}, no heading of {path.name}."


def test_links_outside_are_secure() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"http://(?!127\.0\.0\.1)", prose(document)), document


def test_every_page_is_listed() -> None:
    listed = {path.resolve() for path, _ in targets("docs/README.md")}
    pages = {path.resolve() for path in (ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "README.md"}
    assert not pages - listed, "docs/README.md must list every page."


def test_the_readme_names_every_package() -> None:
    packages = {path.parent.name for path in (ROOT / "monai_ext").glob("*/__init__.py")}
    bundles = {path.name for path in (ROOT / "bundles").iterdir() if path.is_dir()}
    text = read("README.md")
    assert not [name for name in packages if f"`monai_ext/{name}/`" not in text]
    assert not [name for name in bundles if f"`bundles/{name}/`" not in text]
