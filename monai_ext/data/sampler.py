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

from collections.abc import Iterator, Sized

import ignite.distributed as idist
from torch.utils.data import Sampler


class DistributedEvaluationSampler(Sampler[int]):
    """
    Divide the images of a validation or an evaluation over the processes: none is left out, none is padded.

    torch's ``DistributedSampler`` repeats images until all processes have as many, which counts those twice; MONAI's
    can leave that out, but refuses fewer images than processes. Here the shares differ by one image at most. If there
    are fewer images than processes, each process takes them all: a mean over the images is then the same as over one
    copy, and reports know an image by its name.

    Args:
        dataset: the images; anything with a length.

    Example:
        >>> list(DistributedEvaluationSampler(dataset=["a", "b", "c"]))
        [0, 1, 2]
    """

    def __init__(self, *, dataset: Sized) -> None:
        count, processes = len(dataset), idist.get_world_size()
        self.indices = range(count) if count < processes else range(idist.get_rank(), count, processes)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
