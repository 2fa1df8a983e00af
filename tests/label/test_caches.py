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
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_ext.label import BoundedMemory, EmbeddingStore
from monai_ext.label.memory import tensor_bytes
from monai_ext.networks.segmenter import ImageEmbedding


def embedding(value: float = 0.0) -> ImageEmbedding:
    return ImageEmbedding(
        torch.full((1, 4, 2, 2), value), (torch.full((1, 1, 8, 8), value), torch.full((1, 2, 4, 4), value)), (32, 30)
    )


SIZE = tensor_bytes(embedding())


def test_bytes_of_an_embedding() -> None:
    assert SIZE == 4 * (16 + 64 + 32)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=40))
def test_memory_never_holds_more_than_its_limit(uses: list[tuple[int, int]]) -> None:
    memory = BoundedMemory(400)
    for key, count in uses:
        memory.put(key, torch.zeros(count))
        kept = sum(tensor_bytes(memory.get(k)) for k in range(10) if memory.get(k) is not None)
        assert memory.used == kept <= 400
        assert memory.get(key) is not None


def test_what_is_larger_than_the_memory_is_made_but_not_kept() -> None:
    memory = BoundedMemory(8)
    assert memory.get_or_make("a", lambda: torch.ones(9)).sum() == 9
    assert memory.used == 0


def test_many_at_once_make_one() -> None:
    memory, made = BoundedMemory(1000), []

    def make() -> torch.Tensor:
        made.append(1)
        time.sleep(0.05)
        return torch.zeros(3)

    threads = [threading.Thread(target=memory.get_or_make, args=("a", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and not memory._making


def test_a_maker_that_fails_leaves_room_for_the_next() -> None:
    memory = BoundedMemory(1000)
    with pytest.raises(ZeroDivisionError):
        memory.get_or_make("a", lambda: 1 / 0)
    assert memory.get_or_make("a", lambda: torch.zeros(1)).numel() == 1 and not memory._making


def test_disk_outlives_the_process_and_is_bounded(tmp_path: Path) -> None:
    def cache() -> EmbeddingStore:
        return EmbeddingStore(memory=0, disk=5 * (SIZE + 500), folder=tmp_path)

    for number in range(12):
        cache().get_or_make(str(number), lambda number=number: embedding(float(number)))
    files = list(tmp_path.glob("*.safetensors"))
    assert 0 < sum(file.stat().st_size for file in files) <= 5 * (SIZE + 500)
    kept = cache().get_or_make("11", None)  # type: ignore[arg-type]
    assert kept.size == (32, 30) and kept.features.unique().tolist() == [11]
    assert torch.equal(kept.high_res[0], embedding(11).high_res[0])


@pytest.mark.parametrize("content", [b"", b"half of a file"])
def test_a_damaged_file_costs_an_encoding_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    cache = EmbeddingStore(memory=0, disk=10**6, folder=tmp_path)
    cache.get_or_make("a", embedding)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(content)
    (tmp_path / ".torn.safetensors").write_bytes(b"half")
    assert (
        EmbeddingStore(memory=0, disk=10**6, folder=tmp_path)
        .get_or_make("a", lambda: embedding(2.0))
        .features[0, 0, 0, 0]
        == 2
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("monai_ext.label.embeddings.save_file", full)
    cache = EmbeddingStore(memory=10**6, disk=10**6, folder=tmp_path)
    cache.get_or_make("a", embedding)
    assert cache.get_or_make("a", None).size == (32, 30)  # type: ignore[arg-type]
