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

from dataclasses import dataclass

OK, LOOK, REFUSED = "ok", "look", "refused"


@dataclass(frozen=True)
class Finding:
    """
    One thing that a bundle would import, run, read or write.

    Args:
        level: ``ok``; ``look``, outside the allow-list, so a person must look; ``refused``, unsafe.
        file: path in the bundle; what lies in an archive is ``archive!path``.
        key: place in the file, as MONAI writes ids: ``train#trainer#_target_``.
        what: the thing itself, as it stands there.
        why: why it matters.

    Example:
        >>> Finding("look", "configs/train.json", "net#_target_", "os.system", "It starts a program.").level
        'look'
    """

    level: str
    file: str
    key: str
    what: str
    why: str


def plain(text: str) -> str:
    r"""
    Words of a stranger for a terminal: control characters, and what turns the direction of text, are written out.

    Example:
        >>> plain("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
