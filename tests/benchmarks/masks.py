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

"""
Masks of exported networks on real images, of the bundles with a model: ``python -m tests.benchmarks.masks DATA``.

Each image goes whole through the bundle's own inferer, with the network as the bundle runs it and with each file in its
place; then through ``onnx_runner.py``. The files take turns. Seconds are those of the processor, with one thread, so
that other work on the machine counts little. DATA holds ``chase_db1``, ``idrid_disc`` and ``dsb2018_stained``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from monai_ext.share import OnnxSegmenter, merged_network
from monai_ext.share.formats import FORMATS
from monai_ext.share.onnx_runner import field_of_view, read_picture
from monai_ext.share.part_export import PartExport
from monai_ext.share.parts import network_parts
from monai_ext.share.trained_bundle import TrainedBundle, open_trained_bundle

from .compare import ROOT, spread

TURNS = 3
# The photograph of vessels is cut at the edge of the field of view: 289 windows would take minutes.
IMAGES: dict[str, tuple[str, tuple[int, int, int, int] | None]] = {
    "fundus_vessel_segmentation": ("chase_db1/test/images/Image_11L.jpg", (330, 0, 730, 400)),
    "fundus_disc_cup_segmentation": ("idrid_disc/images/IDRiD_09.jpg", None),
    "histology_nuclei_segmentation": ("dsb2018_stained/*/images/*.png", None),
}
Segment = Callable[[], Tensor]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.masks", description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    torch.set_num_threads(1)
    sys.stdout.write(
        "| bundle | network | pixels | that differ | Dice | seconds | of PyTorch's |\n" + "|---" * 7 + "|\n"
    )
    for name, (pattern, part) in IMAGES.items():
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            image = Path(folder) / "image.png"
            with Image.open(sorted(data.glob(pattern))[-1]) as picture:
                (picture if part is None else picture.crop(part)).save(image)
            compare(name, ways(open_trained_bundle(ROOT / "bundles" / name), image, Path(folder)))
    return 0


def ways(opened: TrainedBundle, image: Path, folder: Path) -> dict[str, Segment]:
    """Ways to the mask of an image, the bundle's own first."""
    merged, side = merged_network(opened.network), opened.settings["window"]
    settings = {**opened.settings, "size": list(side), "part": "model"}
    source = PartExport(network_parts(merged, tuple(side))["model"], {"image": torch.randn(2, 3, *side)})
    inferer, pixels = opened.parser.get_parsed_content("inferer"), opened.read_image(image)[None]
    picture, threshold = read_picture(image), settings["threshold"]
    seen = torch.from_numpy(field_of_view(picture)) if settings["field_of_view"] else torch.tensor(True)

    def by(network: Callable[[Tensor], Tensor]) -> Segment:
        return lambda: (inferer(pixels, network)[0].sigmoid() >= threshold) & seen

    found = {"PyTorch": by(opened.network), "PyTorch, merged": by(merged)}
    for name in ("torchscript", "pt2", "onnx"):
        path = folder / FORMATS[name].files["model"]
        FORMATS[name].write(source, settings, path)
        if name != "onnx":
            asked = FORMATS[name].read(path, merged)
            found[name] = by(lambda windows, asked=asked: asked({"image": windows})[0])
    segmenter = OnnxSegmenter(path)
    segmenter.session = session = one_thread(path)
    found["onnx"] = by(lambda windows: torch.from_numpy(session.run(None, {"image": windows.numpy()})[0]))
    return {**found, "onnx_runner.py": lambda: torch.from_numpy(segmenter(picture))}


def one_thread(path: Path) -> Any:
    """A file for ONNX Runtime, which takes all cores otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def compare(name: str, found: dict[str, Segment]) -> None:
    """Print a row for each way."""
    masks, seconds = {}, {way: [] for way in found}
    for _ in range(TURNS + 1):  # the first is slower: TorchScript optimises, memory is found
        for way, segment in found.items():
            start = time.process_time()
            masks[way] = segment()
            seconds[way].append(time.process_time() - start)
    truth = masks["PyTorch"]
    for way, mask in masks.items():
        shared, total = int((mask & truth).sum()), int(mask.sum() + truth.sum())
        ratios = [mine / theirs for mine, theirs in zip(seconds[way][1:], seconds["PyTorch"][1:], strict=True)]
        figures = f"{int(mask.sum())} | {int((mask != truth).sum())} | {2 * shared / total:.5f}"
        sys.stdout.write(f"| {name} | {way} | {figures} | {median(seconds[way][1:]):.2f} | {spread(ratios)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
