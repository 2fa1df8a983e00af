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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from monai_ext.data.processes import gather_values
from monai_ext.handlers.utils import write_table


class SharedTable:
    """
    A table (CSV) of several processes: each keeps its own rows safe, and in the end the first one writes all.

    The first process writes the table itself, the others ``<name>.rank1.csv``, ``<name>.rank2.csv``, ... beside it. All
    are rewritten with every row that is added, so nothing is lost if the run is killed, and :meth:`finish` puts them
    together.

    Args:
        path: the table.
        columns: its header.

    Example:
        >>> import tempfile
        >>> table = SharedTable(Path(tempfile.mkdtemp()) / "results.csv", ["image", "pixels"])
        >>> table.add([{"image": "a.png", "pixels": 7}])
        >>> table.finish(["a.png"])
        >>> table.path.read_text().split()
        ['image,pixels', 'a.png,7']
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)
        rank = idist.get_rank()
        self._own_path = path.with_name(f"{path.stem}.rank{rank}{path.suffix}") if rank else path
        self._rows: list[Mapping[str, Any]] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """
        Add rows, which have ``image``.

        Raises:
            OSError: the file cannot be written; the table is then as it was.
        """
        write_table(self._own_path, self.columns, [*self._rows, *rows])
        self._rows += rows

    def finish(self, images: Sequence[str]) -> None:
        """
        Write the rows of all processes into one table; all must call this, with or without rows.

        Args:
            images: in their order.
        """
        parts = gather_values(self._rows)
        if idist.get_rank() == 0:
            if len(parts) > 1 and any(parts):
                places = {image: place for place, image in enumerate(images)}
                rows = [row for part in parts for row in part]
                write_table(
                    self.path, self.columns, sorted(rows, key=lambda row: places.get(row["image"], len(places)))
                )
            for part_path in self.path.parent.glob(f"{self.path.stem}.rank*{self.path.suffix}"):
                part_path.unlink()
