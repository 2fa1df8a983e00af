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

import csv
from pathlib import Path


def read_column(path: Path, key: str, value: str) -> dict[str, str]:
    r"""
    Read one column of a table (CSV; commas or semicolons) by another, whatever blanks and line ends it has.

    Args:
        path: the file.
        key: heading of the column that names the rows.
        value: heading of the column to read.

    Raises:
        ValueError: the file is no text, or has no such column.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "meta.csv"
        >>> _ = file.write_text("\ufeffimage_id;age; split\rs0000;12;train\rs0001;;test", encoding="utf-8")
        >>> read_column(file, "image_id", "split")
        {'s0000': 'train', 's0001': 'test'}
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise ValueError(f"{path} must be a text file (CSV), but is not; copy it again from its source.") from error
    separator = ";" if lines and ";" in lines[0] else ","
    head, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)] or [[]]
    if not {key, value} <= set(head):
        raise ValueError(
            f"{path} must have the columns `{key}` and `{value}`, not {', '.join(head) or 'none'}; "
            "copy it again from its source."
        )
    at, of = head.index(key), head.index(value)
    return {row[at]: row[of] for row in rows if len(row) > max(at, of)}
