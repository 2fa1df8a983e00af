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

"""Each format as a way to write a part of a network into a file and a way to ask the file again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_ext.networks.segmenter import SAM2Segmenter
from monai_ext.networks.weights import read_state_dict
from monai_ext.share.merged import plain_settings
from monai_ext.share.part_export import PartExport, quiet

# Under this name a file holds its settings.
SETTINGS = "monai_ext"
Settings = Mapping[str, Any]
# An exported file as a function: the inputs by name, the outputs in order.
Asked = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


class Format(NamedTuple):
    """How one format is written and read."""

    files: Mapping[str, str]  # file for each part of the network
    write: Callable[[PartExport, Settings, Path], None]
    read: Callable[[Path, SAM2Segmenter], Asked]
    needs: tuple[str, ...] = ()


def require_packages(names: list[str]) -> None:
    """
    Say which packages the formats need and are not there.

    Raises:
        ImportError: one is missing; says how to install it.
    """
    missing = sorted({need for name in names for need in FORMATS[name].needs if find_spec(need) is None})
    if missing:
        raise ImportError(f"{', '.join(missing)} must be installed for this export: pip install {' '.join(missing)}")


def _write_safetensors(source: PartExport, settings: Settings, path: Path) -> None:
    from safetensors.torch import save

    state = {key: value.contiguous() for key, value in source.part.network.state_dict().items()}
    path.write_bytes(save(state, metadata={SETTINGS: json.dumps(settings)}))


def _write_tensors(source: PartExport, settings: Settings, path: Path) -> None:
    torch.save(source.part.network.state_dict(), path)


def _read_tensors(path: Path, network: SAM2Segmenter) -> Asked:
    plain = SAM2Segmenter(**plain_settings(network)).eval().requires_grad_(False)
    plain.load_state_dict(read_state_dict(path))
    return lambda inputs: (plain(inputs["image"]),)


def _write_torchscript(source: PartExport, settings: Settings, path: Path) -> None:
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(source.part, tuple(source.inputs.values()), check_trace=False)
        torch.jit.save(traced, path, _extra_files={f"{SETTINGS}.json": json.dumps(settings)})


def _read_torchscript(path: Path, network: SAM2Segmenter) -> Asked:
    with quiet():
        traced = torch.jit.load(path)
    return lambda inputs: _as_tuple(traced(*inputs.values()))


def _write_pt2(source: PartExport, settings: Settings, path: Path) -> None:
    with quiet():
        torch.export.save(source.graph, path, extra_files={f"{SETTINGS}.json": json.dumps(settings)})


def _read_pt2(path: Path, network: SAM2Segmenter) -> Asked:
    program = torch.export.load(path).module()
    return lambda inputs: _as_tuple(program(**inputs))


def _write_onnx(source: PartExport, settings: Settings, path: Path) -> None:
    with quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            source.graph,
            input_names=list(source.inputs),
            output_names=list(source.part.outputs),
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props[SETTINGS] = json.dumps(settings)
    program.save(path, external_data=False)


def _read_onnx(path: Path, network: SAM2Segmenter) -> Asked:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def ask(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        given = {name: value.numpy() for name, value in inputs.items()}
        return tuple(torch.from_numpy(answer) for answer in session.run(None, given))

    return ask


def _as_tuple(answer: Any) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "safetensors": Format({"model": "model.safetensors"}, _write_safetensors, _read_tensors),
        "pt": Format({"model": "model.pt"}, _write_tensors, _read_tensors),
        "torchscript": Format({"model": "model.ts"}, _write_torchscript, _read_torchscript),
        "pt2": Format({"model": "model.pt2"}, _write_pt2, _read_pt2),
        "onnx": Format(
            {"model": "model.onnx", "encoder": "encoder.onnx", "decoder": "decoder.onnx"},
            _write_onnx,
            _read_onnx,
            ("onnx", "onnxscript", "onnxruntime"),
        ),
    }
)
