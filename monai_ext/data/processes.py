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

from typing import TypeVar, cast

import ignite.distributed as idist

Value = TypeVar("Value")


def gather_values(value: Value) -> list[Value]:
    """
    Return what all processes hand over, in their order; all must call it, and wait for the last one.

    Args:
        value: anything that can be pickled.

    Example:
        >>> gather_values({"a.png": 7})
        [{'a.png': 7}]
    """
    return [part for (part,) in cast(list[tuple[Value]], idist.all_gather((value,)))]
