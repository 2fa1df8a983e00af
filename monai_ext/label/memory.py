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

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class BoundedMemory:
    """
    Remembers what was used last, as much as fits into so many bytes; safe to use from many threads.

    Args:
        limit: bytes of tensors that are kept.

    Example:
        >>> memory = BoundedMemory(100)
        >>> for name in "ab":
        ...     _ = memory.get_or_make(name, lambda: torch.zeros(20))  # 80 bytes
        >>> memory.get("a"), memory.used
        (None, 80)
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, tuple[threading.Lock, int]] = {}

    def get(self, key: Hashable) -> Any:
        """What was put under this key, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Remember a value; what was not used for the longest time is forgotten if need be."""
        size = tensor_bytes(value)
        with self._lock:
            self.used -= self._values.pop(key, (None, 0))[1]
            if size > self.limit:
                return
            self._values[key] = (value, size)
            self.used += size
            while self.used > self.limit:
                self.used -= self._values.popitem(last=False)[1][1]

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value under this key; whoever asks first makes it while the others wait for it."""
        if (value := self.get(key)) is not None:
            return value
        with self._one_maker(key):
            if (value := self.get(key)) is None:
                value = make()
                self.put(key, value)
            return value

    @contextmanager
    def _one_maker(self, key: Hashable) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._making.get(key, (threading.Lock(), 0))
            self._making[key] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._making.pop(key)
                if waiting > 1:
                    self._making[key] = (lock, waiting - 1)


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in a value, its tuples and its lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(tensor_bytes(part) for part in value) if isinstance(value, (tuple, list)) else 0
