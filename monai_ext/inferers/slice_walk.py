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

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import torch
from torch import Tensor

from monai_ext.inferers.embedding_cache import EmbeddingCache
from monai_ext.networks.segmenter import ImageEmbedding, SAM2Segmenter

Part = tuple[slice, slice]  # rows and columns of a slice
WHOLE: Part = (slice(None), slice(None))


class SliceWalk:
    """
    One propagation under way: the slices of the volume as pictures, their encodings, how far it is, whether it goes on.

    Args:
        volume: ``(1, 3, X, Y, Z)``.
        network: encodes the slices.
        number: of the network's label that is meant.
        cache: where encodings are kept; None keeps none.
        progress: called with the number of slices that are done and of all.
        cancelled: asked after every slice.
    """

    def __init__(
        self,
        volume: Tensor,
        network: SAM2Segmenter,
        *,
        number: int,
        cache: EmbeddingCache | None,
        progress: Callable[[int, int], Any] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self.volume, self.network, self.number, self.cache = volume, network, number, cache
        self.progress, self.cancelled = progress, cancelled
        self.size: tuple[int, int, int] = (volume.shape[2], volume.shape[3], volume.shape[4])
        self.depth = volume.shape[4]
        self.done = self.total = 0

    def start(self, total: int) -> None:
        """Say how many slices there are to do."""
        self.total = total
        self._report()

    def step(self) -> None:
        """
        A slice is done.

        Raises:
            CancelledError: it was the last one.
        """
        self.done += 1
        self._report()

    def picture(self, z: int) -> Tensor:
        """A slice ``(1, 3, H, W)``, upright."""
        return self.volume[..., z].transpose(2, 3)

    def embedding(self, z: int, part: Part = WHOLE) -> ImageEmbedding:
        """The encoding of a slice, or of a part of it."""
        picture = self.picture(z)[(..., *part)].to(self.network.no_mem_embed.device)
        return self.network.encode(picture) if self.cache is None else self.cache.get(picture, self.network.encode)

    def paste(self, logits: Tensor, part: Part, background: float = -20.0) -> Tensor:
        """The answer on a part of a slice as one on the whole slice ``(H, W)``, on the CPU."""
        whole = torch.full((self.size[1], self.size[0]), background)
        whole[part] = logits.float().cpu()
        return whole

    def _report(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise CancelledError(f"The propagation was cancelled after {self.done} of {self.total} slices.")
        if self.progress is not None:
            self.progress(self.done, self.total)
