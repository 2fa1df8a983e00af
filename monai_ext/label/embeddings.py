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

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, tensor

from monai_ext.data.atomic import atomic_path
from monai_ext.label.memory import BoundedMemory
from monai_ext.networks.segmenter import ImageEmbedding

logger = logging.getLogger(__name__)


class EmbeddingStore:
    """
    Embeddings of images, made once: the newest in memory, more of them on disk, both bounded.

    The key says all that the embedding depends on: the content of the image file, the part of it, the weights. A file
    on disk that is damaged, or that cannot be written, costs an encoding and nothing else.

    Args:
        memory: bytes kept in memory.
        disk: bytes kept on disk; 0 keeps nothing there.
        folder: where the files lie; made if missing.

    Example:
        >>> import tempfile, torch
        >>> cache = EmbeddingStore(memory=10**6, disk=10**6, folder=tempfile.mkdtemp())
        >>> made = ImageEmbedding(torch.ones(1, 4, 2, 2), (torch.ones(1, 1, 8, 8), torch.ones(1, 2, 4, 4)), (32, 30))
        >>> cache.get_or_make("picture, adapter", lambda: made).size, cache.get_or_make("picture, adapter", None).size
        ((32, 30), (32, 30))
    """

    def __init__(self, *, memory: int, disk: int, folder: str | os.PathLike[str]) -> None:
        self.memory = BoundedMemory(memory)
        self.disk, self.folder = disk, Path(folder)
        self._lock = threading.Lock()
        if disk:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.safetensors"):  # of a process that was killed
                leftover.unlink(missing_ok=True)

    def get_or_make(self, key: str, make: Callable[[], ImageEmbedding]) -> ImageEmbedding:
        """The embedding under this key, from memory, from disk, or made now, once for all who wait."""
        return self.memory.get_or_make(key, lambda: self._load(key) or self._keep(key, make()))

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _load(self, key: str) -> ImageEmbedding | None:
        path = self._path(key)
        if not self.disk or not path.is_file():
            return None
        try:
            parts = load_file(path)
            os.utime(path)
            height, width = parts["size"].tolist()
            return ImageEmbedding(parts["features"], (parts["finest"], parts["fine"]), (height, width))
        except Exception as error:  # a damaged file raises SafetensorError, an Exception directly, and others
            logger.warning("%s is left aside: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None

    def _keep(self, key: str, embedding: ImageEmbedding) -> ImageEmbedding:
        if self.disk:
            parts: dict[str, Tensor] = {
                "features": embedding.features,
                "finest": embedding.high_res[0],
                "fine": embedding.high_res[1],
                "size": tensor(embedding.size),
            }
            try:
                with atomic_path(self._path(key)) as temporary:
                    save_file({name: part.cpu().contiguous() for name, part in parts.items()}, temporary)
                self._shrink()
            except OSError as error:
                logger.warning("An embedding is kept in memory only: %s", error)
        return embedding

    def _shrink(self) -> None:
        """Remove the files that were not used for the longest time until the rest fits."""
        with self._lock:
            files = []
            for path in self.folder.glob("*.safetensors"):
                with contextlib.suppress(FileNotFoundError):
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self.disk:
                    break
                path.unlink(missing_ok=True)
                total -= size
