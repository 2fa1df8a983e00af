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

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_ext.handlers.files import require_writable
from monai_ext.handlers.shared_table import SharedTable
from monai_ext.handlers.utils import batch_items, source_path, unique_stem


class RunImages(Protocol):
    """The images of a run, and whatever collects those that could not be done."""

    paths: Sequence[str]

    def at_end(self, action: Callable[[], None]) -> None:
        """Have ``action`` called in every process, when all its images are done."""

    def add_failure(self, path: str, reason: str) -> None:
        """Remember that the image at ``path`` failed, and why."""


class TableWriter(ABC):
    """
    Write files for every image of a run and rows about them into one table: the part that all writers share.

    The table is rewritten after each image, so nothing is lost if the run is killed; several processes put theirs
    together when ``images`` is finished. A writer is a subclass with one method, :meth:`write_image`, and ``columns``.

    Args:
        table_path: the table (CSV); its folder is made if missing.
        images: is told by ``add_failure(path, reason)`` of an image whose files could not be written, while the rest
            goes on; without it the error ends the run. Several processes need it.

    Raises:
        OSError: when attached, the folder cannot be written.
    """

    columns: Sequence[str]

    def __init__(self, table_path: str | os.PathLike[str], images: RunImages | None) -> None:
        self.table_path = Path(table_path)
        self.output_dir = self.table_path.parent
        self.images = images
        self._table = SharedTable(self.table_path, self.columns)
        self._names: dict[str, str] = {}

    @abstractmethod
    def write_image(self, path: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        """
        Write the files of one image and return its rows.

        Args:
            path: the image.
            item: what the loader gave and the engine made of it.

        Raises:
            OSError: a file cannot be written.
            ValueError: the item does not fit its file.
        """

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a MONAI evaluator.
        """
        require_writable(self.table_path)
        if self.images is not None:
            images = self.images
            images.at_end(lambda: self._table.finish(images.paths))
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def name_of(self, path: str) -> str:
        """What the files made from an image are called, the same in every process."""
        return unique_stem(path, self._names)

    def _start(self, _engine: Engine) -> None:
        self._table, self._names = SharedTable(self.table_path, self.columns), {}
        if self.images is not None and idist.get_world_size() > 1:
            for path in self.images.paths:
                self.name_of(path)

    def _write(self, engine: Engine) -> None:
        for item in batch_items(engine):
            path = source_path(item)
            try:
                self._table.add(self.write_image(path, item))
            except (OSError, ValueError) as error:
                if self.images is None:
                    raise
                self.images.add_failure(path, str(error))
