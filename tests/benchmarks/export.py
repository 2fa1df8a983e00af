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

"""What exported networks cost: eight windows of the vessel bundle, as its inference asks for them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .compare import ROOT, Benchmark, Bound, Figures, Settings, seconds_of

BUNDLE = ROOT / "bundles" / "fundus_vessel_segmentation"


def windows(variant: str, settings: Settings) -> Callable[[], Figures]:
    """Segment a batch of windows with the merged network in PyTorch, or with the file that was made of it."""
    import torch

    from monai_ext.share.formats import FORMATS
    from monai_ext.share.merged import merged_network
    from monai_ext.share.part_export import PartExport
    from monai_ext.share.parts import network_parts
    from monai_ext.share.trained_bundle import open_trained_bundle

    torch.set_num_threads(settings.threads)
    opened = open_trained_bundle(BUNDLE)
    network = merged_network(opened.network)
    side = opened.settings["window"][0]
    images = torch.randn(2 if settings.quick else 8, 3, side, side, generator=torch.Generator().manual_seed(0))
    ask: Callable[[], object] = partial(network, images)
    if variant != "PyTorch":
        made, part = FORMATS[variant], network_parts(network, (side, side))["model"]
        source = PartExport(part, {"image": images[:2]})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / made.files["model"]
            made.write(source, opened.settings, path)
            ask = (
                _onnx(path, images, settings)
                if variant == "onnx"
                else partial(made.read(path, network), {"image": images})
            )

    def measure() -> Figures:
        start = time.process_time()
        with torch.no_grad():
            seconds = seconds_of(ask)
        # What other programs on the machine change little.
        return {"seconds": seconds, "cpu_seconds": time.process_time() - start}

    for _ in range(2):  # TorchScript optimises in the second run
        measure()
    return measure


def _onnx(path: Path, images: Any, settings: Settings) -> Callable[[], object]:
    """A run of ONNX Runtime with as many threads as the others have."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the next variant's turn has begun
    session = onnxruntime.InferenceSession(path, options)
    return lambda: session.run(None, {"image": images.numpy()})


BENCHMARKS = {
    "export": Benchmark(
        title="Exported networks: eight windows of 112 px, micro enlarged twice",
        variants=("PyTorch", "torchscript", "pt2", "onnx"),
        prepare=windows,
        bounds=(
            Bound("cpu_seconds", "torchscript", 1.1, against="PyTorch"),
            Bound("cpu_seconds", "pt2", 1.1, against="PyTorch"),
            Bound("cpu_seconds", "onnx", 1, against="PyTorch"),
        ),
        processes=1,  # to export takes longer than to measure
        turns=10,
    )
}
