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
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_ext.data.atomic import atomic_path
from monai_ext.handlers.files import require_writable
from monai_ext.networks.segmenter import SAM2Segmenter
from monai_ext.share import onnx_runner
from monai_ext.share.comparison import SAME, compare_logits, real_photograph, windows_of
from monai_ext.share.formats import FORMATS, require_packages
from monai_ext.share.merged import merged_network, plain_settings
from monai_ext.share.part_export import PartExport
from monai_ext.share.parts import network_parts, part_inputs
from monai_ext.share.trained_bundle import TrainedBundle, open_trained_bundle

_RUNNER = Path(onnx_runner.__file__)
_SMALLEST = 16  # pixels: below, nothing of an image is left at the stride of the encoder


def export_bundle(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    checkpoint: str | os.PathLike[str] | None = None,
    size: tuple[int, int] | None = None,
    image: str | os.PathLike[str] | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """
    Write a bundle's network, its adapters merged, in formats that other programs run, and prove each file.

    Every file is asked for the logits of four windows of a real image and compared with the network as the bundle runs
    it. A file whose masks differ is not left behind. ``export.json`` says of each file how it compares, and of the
    bundle what stands around its network: window, normalisation, labels, threshold.

    Args:
        bundle: folder of the bundle.
        output: folder of the files; by default ``export`` in the bundle.
        formats: of ``safetensors``, ``pt``, ``torchscript``, ``pt2`` and ``onnx``.
        checkpoint: ``model.pt``; by default that in the bundle's ``models``.
        size: height and width that the exported network takes; by default the bundle's window.
        image: what is compared on; by default the photograph of a retina that scikit-image brings along.
        tell: is called with a line for each file.

    Returns:
        The content of ``export.json``.

    Raises:
        ValueError: a format or a size is none, the checkpoint does not fit, or the adapters cannot be merged; nothing
            was written then. Or, at the end, exported files differ from the network: these were not left behind.
        FileNotFoundError: there is no such bundle, checkpoint or base.
        ImportError: a format needs a package that is not installed.
        OSError: the folder cannot be written.
    """
    chosen = _checked_formats(formats)
    require_packages(chosen)
    folder = Path(bundle) / "export" if output is None else Path(output)
    opened = open_trained_bundle(bundle, checkpoint)
    sides = _checked_size(size, opened)
    for file in ("export.json", *(file for name in chosen for file in FORMATS[name].files.values())):
        require_writable(folder / file)
    try:
        merged = merged_network(opened.network)
    except TypeError as error:
        raise ValueError(f"{opened.checkpoint} cannot become one network: {error}") from error
    windows = _windows(opened, image, sides)
    examples = part_inputs(merged, windows[:2])
    sources = {part: PartExport(module, examples[part]) for part, module in network_parts(merged, sides).items()}
    settings = {**opened.settings, "size": list(sides), "window": list(sides)}
    record = _description(opened, settings)
    failed = []
    for name in chosen:
        for part, file in FORMATS[name].files.items():
            try:
                record["files"][file] = _write(
                    name, part, folder / file, sources[part], opened.network, windows, settings
                )
            except DifferentExportError as error:
                failed.append(str(error))
                continue
            tell("{file}: greatest difference {max_difference:.1e}, Dice {dice:.5f}".format(**record["files"][file]))
    if "onnx" in chosen:
        with atomic_path(folder / _RUNNER.name) as temporary:
            shutil.copyfile(_RUNNER, temporary)
    with atomic_path(folder / "export.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if failed:
        raise DifferentExportError(" ".join(failed))
    return record


class DifferentExportError(ValueError):
    """An exported file does not answer as the network does."""


def _write(
    name: str,
    part: str,
    path: Path,
    source: PartExport,
    network: SAM2Segmenter,
    windows: Tensor,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one file and compare it, with another number of images than it was made with."""
    size = (windows.shape[-2], windows.shape[-1])
    original, inputs = network_parts(network, size), part_inputs(network, windows)
    with atomic_path(path) as temporary, torch.no_grad():
        FORMATS[name].write(source, {**settings, "part": part}, temporary)
        answer = FORMATS[name].read(temporary, source.part.network)(inputs[part])
        truth = original[part](**inputs[part])
        if part == "encoder":  # what the decoder makes of it
            embedded = dict(zip(source.part.outputs, answer, strict=True))
            answer, truth = (original["decoder"](**{**inputs["decoder"], **given}) for given in (embedded, {}))
        logits, expected = (found[0] if isinstance(found, tuple) else found for found in (answer, truth))
        difference, dice = compare_logits(logits, expected, settings["threshold"])
        if not dice >= SAME:
            raise DifferentExportError(
                f"{path} differs from the network (Dice {dice:.4f}, greatest difference {difference:.2g}) and was not "
                "kept; please report it with the versions of torch and of the format's packages."
            )
        return {
            "file": path.name,
            "format": name,
            "part": part,
            "inputs": {key: _shape(key, value) for key, value in source.inputs.items()},
            "outputs": list(source.part.outputs),
            "max_difference": difference,
            "dice": dice,
            "bytes": temporary.stat().st_size,
            "sha256": hashlib.sha256(temporary.read_bytes()).hexdigest(),
        }


def _shape(name: str, value: Tensor) -> list[int | str]:
    """The sizes of an input, in words where they are free."""
    return ["images", "clicks" if name.startswith("point") else value.shape[1], *value.shape[2:]]


def _windows(opened: TrainedBundle, image: str | os.PathLike[str] | None, size: tuple[int, int]) -> Tensor:
    settings = opened.settings
    pixels = real_photograph(settings["mean"], settings["std"]) if image is None else opened.read_image(image)
    return windows_of(pixels, size, settings["longest_side"])


def _checked_formats(formats: Sequence[str]) -> list[str]:
    names = [formats] if isinstance(formats, str) else list(dict.fromkeys(formats))
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {name!r}.")
    return names


def _checked_size(size: tuple[int, int] | None, opened: TrainedBundle) -> tuple[int, int]:
    sides = (
        size
        or opened.settings["window"]
        or opened.parser["_meta_"]["network_data_format"]["inputs"]["image"]["spatial_shape"]
    )
    if len(sides) != 2 or not all(isinstance(side, int) and side >= _SMALLEST for side in sides):
        raise ValueError(f"size must be height and width of at least {_SMALLEST} pixels each, not {sides!r}.")
    return sides[0], sides[1]


def _description(opened: TrainedBundle, settings: Mapping[str, Any]) -> dict[str, Any]:
    packages = ("monai_ext", "monai", "numpy", "onnx", "onnxruntime", "onnxscript", "torch")
    return {
        "bundle": opened.root.resolve().name,
        "checkpoint": None if opened.checkpoint is None else hashlib.sha256(opened.checkpoint.read_bytes()).hexdigest(),
        "date": str(date.today()),
        "versions": {name: version(name) for name in packages if find_spec(name)},
        "network": plain_settings(opened.network),
        "inference": dict(settings),
        "files": {},
    }
