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

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from toy_training import ToyNetwork

from monai_ext.handlers.files import save_tensors
from monai_ext.handlers.loading import TrainedPartLoader


def load(network: torch.nn.Module, path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    TrainedPartLoader(network=network, path=path).attach(engine)
    engine.run([0])


@pytest.mark.parametrize("wrap", [lambda network: network, torch.nn.DataParallel])
def test_the_trained_part_is_there_when_the_run_starts(wrap, tmp_path: Path) -> None:
    network, other = ToyNetwork(), ToyNetwork()
    save_tensors(network.trained_state_dict(), tmp_path / "model.pt")
    load(wrap(other), tmp_path / "model.pt")
    for key, value in other.trained_state_dict().items():
        assert torch.equal(value, network.state_dict()[key])


@pytest.mark.parametrize("content", [None, b"", b"nonsense", {"a": torch.zeros(1)}, {"a": 1}])
def test_what_is_wrong_is_said_with_the_files_name(content: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_tensors(content, path)
    network = ToyNetwork()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(FileNotFoundError if content is None else ValueError) as error:
        load(network, path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
