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

import ignite.distributed as idist
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_ext.data import DistributedEvaluationSampler


@given(count=st.integers(0, 40), processes=st.integers(1, 9))
def test_all_processes_together_have_every_image_equally_often(count: int, processes: int) -> None:
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idist, "get_world_size", lambda: processes)
        for rank in range(processes):
            patch.setattr(idist, "get_rank", lambda rank=rank: rank)
            sampler = DistributedEvaluationSampler(dataset=range(count))
            shares.append(list(sampler))
            assert len(sampler) == len(shares[-1])
    together = sorted(index for share in shares for index in share)
    if count < processes:
        assert shares == [list(range(count))] * processes
    else:
        assert together == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
