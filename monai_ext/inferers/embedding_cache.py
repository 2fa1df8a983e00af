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

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from monai_ext.networks.segmenter import ImageEmbedding


class EmbeddingCache:
    """
    Keep the encodings of the images that were looked at last, in bounded memory.

    An image is known by its pixels, so images of several volumes and users may share a cache, but only of one network:
    ``clear`` it when the network's weights change. Threads may share it.

    Args:
        megabytes: how much memory the encodings may take together; one that is larger is not kept.

    Raises:
        ValueError: ``megabytes`` is below 0.

    Example:
        >>> from monai_ext.networks import SAM2Segmenter
        >>> cache, network = EmbeddingCache(megabytes=100), SAM2Segmenter(size="micro")
        >>> image = torch.zeros(1, 3, 32, 32)
        >>> cache.get(image, network.encode) is cache.get(image, network.encode)
        True
    """

    def __init__(self, *, megabytes: float = 1024) -> None:
        if not megabytes >= 0:
            raise ValueError(f"megabytes must be at least 0, not {megabytes}.")
        self.limit = int(megabytes * 1e6)
        self.bytes = 0
        self._kept: OrderedDict[bytes, tuple[ImageEmbedding, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, image: Tensor, encode: Callable[[Tensor], ImageEmbedding]) -> ImageEmbedding:
        """The encoding of an image ``(1, 3, H, W)``, which ``encode`` makes if it is not here."""
        key = _key(image)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        embedding = encode(image)  # outside of the lock: others need not wait for it
        with self._lock:
            self._keep(key, embedding)
        return embedding

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0

    def _keep(self, key: bytes, embedding: ImageEmbedding) -> None:
        size = sum(part.numel() * part.element_size() for part in (embedding.features, *embedding.high_res))
        if key in self._kept or size > self.limit:
            return
        while self.bytes + size > self.limit:
            self.bytes -= self._kept.popitem(last=False)[1][1]
        self._kept[key] = (embedding, size)
        self.bytes += size


def _key(image: Tensor) -> bytes:
    pixels = image.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.blake2b(f"{tuple(image.shape)} {image.dtype}".encode() + pixels.tobytes(), digest_size=16).digest()
