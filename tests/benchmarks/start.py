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


"""What it costs to begin and to share: importing the package, and the size of a trained adapter's file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from .compare import Benchmark, Bound, Figures, Settings, seconds_of
from .lora import RANK, TARGETS


def import_package(variant: str, settings: Settings) -> Callable[[], Figures]:
    """What ``import monai_ext`` takes where torch and monai are imported already."""
    import monai  # noqa: F401
    import torch  # noqa: F401

    return lambda: {"seconds": seconds_of(lambda: __import__(variant))}


def adapter_file(variant: str, settings: Settings) -> Callable[[], Figures]:
    """The size of ``model.pt`` for LoRA upon base weights read from a file in the official format."""
    import torch

    from monai_ext.adapters import LoRA
    from monai_ext.networks import SAM2Segmenter

    size = "micro" if settings.quick else variant
    with tempfile.TemporaryDirectory() as folder:
        base, trained = Path(folder) / "base.pt", Path(folder) / "model.pt"
        plain = SAM2Segmenter(size=size).state_dict()
        ours = ("class_tokens.weight", "fingerprint")
        torch.save({"model": {key: value for key, value in plain.items() if key not in ours}}, base)
        network = SAM2Segmenter(size=size, weights=base, adapters=[LoRA(targets=TARGETS, rank=RANK)])
        torch.save(network.trained_state_dict(), trained)
        megabytes = trained.stat().st_size / 1e6
    return lambda: {"MB": megabytes}


BENCHMARKS = {
    "import": Benchmark(
        title="`import monai_ext` beyond torch and monai",
        variants=("monai_ext",),
        prepare=import_package,
        bounds=(Bound("seconds", "monai_ext", 0.2),),
        processes=7,
        turns=1,
    ),
    "file": Benchmark(
        title="Adapter file: LoRA of rank 16 on encoder qkv and decoder attention",
        variants=("tiny", "large"),
        prepare=adapter_file,
        bounds=(Bound("MB", "tiny", 5), Bound("MB", "large", 25)),
        processes=1,
        turns=1,
    ),
}
