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

import io
import pickle
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ext.share import inspect_bundle
from monai_ext.share.pickles import inspect_pickle

CONTENTS = {
    "state": torch.nn.Linear(2, 2).state_dict(),
    "nested": {"model": OrderedDict(a=torch.zeros(2, dtype=torch.bfloat16)), "epoch": 3, "lr": 0.1, "best": None},
    "parameters": [torch.nn.Parameter(torch.zeros(1)), torch.zeros(2)[:1]],
    "types": [torch.zeros(1, dtype=t) for t in (torch.int8, torch.bool, torch.float16, torch.complex64)],
    "settings": {"dtype": torch.float32, "size": torch.Size([1]), "device": torch.device("cpu"), "text": "a" * 300},
    "sets": {"a": {1, 2}, "b": b"bytes", "c": Counter("aab"), "d": 2**80, "e": 1j},
    "sparse": torch.eye(2).to_sparse(),
    "module": torch.nn.Linear(2, 2),
    "function": torch.load,
    "class": Path,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", CONTENTS)
def test_refused_is_what_torch_refuses(name: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(CONTENTS[name], path, _use_new_zipfile_serialization=zipped)
    try:
        torch.load(path, weights_only=True)
        taken = True
    except pickle.UnpicklingError:
        taken = False
    assert taken == (name not in ("module", "function", "class"))
    assert taken == all(finding.level != "refused" for finding in inspect_bundle(tmp_path))


def globals_in(content: bytes) -> set[str]:
    return {f.what for f in inspect_pickle("a.pkl", io.BytesIO(content), weights=False) if f.level == "refused"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(protocol: int) -> None:
    assert "builtins.print" in {
        name.replace("__builtin__", "builtins") for name in globals_in(pickle.dumps([1, {"a": print}], protocol))
    }


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2**32))
def test_any_bytes_are_told_without_an_error(content: bytes, place: int) -> None:
    assert list(inspect_pickle("a.pkl", io.BytesIO(content), weights=True))
    sound = pickle.dumps({"a": [1, "b", print]}, 2)
    damaged = bytearray(sound)
    damaged[place % len(sound)] ^= 1 + place % 255
    assert any(f.level != "ok" for f in inspect_pickle("a.pkl", io.BytesIO(bytes(damaged)), weights=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([print, OrderedDict, Path, torch.load, "os", "system", 1, None]), max_size=8))
def test_what_unpickling_would_import_is_listed(content: list[object]) -> None:
    """Compared with what the real unpickler asks for; it is given harmless texts instead."""
    asked: set[str] = set()

    class Asking(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> str:
            asked.add(f"{module}.{name}")
            return "harmless"

    data = pickle.dumps(content)
    Asking(io.BytesIO(data)).load()
    found = {f.what for f in inspect_pickle("a.pkl", io.BytesIO(data), weights=False)}
    assert asked <= found
