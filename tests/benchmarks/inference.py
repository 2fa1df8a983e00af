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


"""What inference costs: merged adapters against the plain network, and a whole image with and without its surround."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .compare import ROOT, Benchmark, Bound, Figures, Settings, seconds_of
from .lora import RANK, TARGETS

DATA = ROOT.parent / "shared" / "data"
PHOTOGRAPHS = {
    "chase_db1": ("chase_db1/test/images/Image_11L.jpg", "chase_db1/test/mask/Image_11L_1stHO.png"),
    "hrf": ("hrf/images/01_h.jpg", "hrf/mask/01_h.tif"),
}


def one_image(variant: str, settings: Settings) -> Callable[[], Figures]:
    """Encode and decode one image with the network as SAM 2.1 is, or with LoRA merged into it."""
    import torch

    from monai_ext.adapters import LoRA
    from monai_ext.networks import SAM2Segmenter

    torch.set_num_threads(settings.threads)
    adapters = [LoRA(targets=TARGETS, rank=RANK)] if variant == "merged" else []
    network = SAM2Segmenter(size="micro" if settings.quick else "tiny", adapters=adapters).eval()
    if adapters:
        network.merge()
    side = 64 if settings.quick else 512
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    network.requires_grad_(False)
    network(image)
    return lambda: {"seconds": seconds_of(lambda: network(image))}


def whole_image(variant: str, settings: Settings, *, source: str) -> Callable[[], Figures]:
    """Sliding window with the shipped bundle's settings, from the normalised image to logits at its own size."""
    import torch
    from monai.inferers import SlidingWindowInferer
    from monai.metrics import compute_dice

    from monai_ext.adapters import LoRA
    from monai_ext.inferers import ForegroundSlidingWindowInferer
    from monai_ext.networks import SAM2Segmenter
    from monai_ext.transforms import FundusForeground

    torch.set_num_threads(settings.threads)
    # The published model was trained whole, without adapters; merged, they cost nothing either.
    adapters = [] if settings.model else [LoRA(targets=TARGETS, rank=RANK)]
    network = SAM2Segmenter(size="micro", labels=["vessel"], train=["*"], adapters=adapters, enlarge=2).eval()
    if settings.model:
        network.load_state_dict(torch.load(settings.model, weights_only=True))
    network.merge()
    network.requires_grad_(False)
    windows: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: windows.append(len(inputs[0])))
    window: dict[str, Any] = {"roi_size": [64 if settings.quick else 192] * 2, "sw_batch_size": 8, "overlap": 0.25}
    if variant == "monai":
        inferer: Any = SlidingWindowInferer(**window, mode="constant")
    else:
        inferer = ForegroundSlidingWindowInferer(**window, foreground=FundusForeground())
    image, mask = _photograph(source, settings.quick)
    inferer(image[..., :192, :192], network)  # to warm up

    def measure() -> Figures:
        windows.clear()
        results: list[Any] = []
        seconds = seconds_of(lambda: results.append(inferer(image, network)))
        dice = compute_dice((results[0] > 0).float(), mask).item()
        return {"seconds": seconds, "windows": sum(windows), "Dice": dice}

    return measure


def _photograph(source: str, quick: bool) -> tuple[Any, Any]:
    """A fundus image as the network sees it, ``(1, 3, H, W)``, and its true vessels."""
    from monai.transforms import Compose, EnsureType, LoadImage, NormalizeIntensity, Transpose

    from monai_ext.data import PhotographReader
    from monai_ext.data.phantom import write_phantoms

    def load(path: Path, channels: int) -> Any:
        reader = LoadImage(reader=PhotographReader(channels=channels), ensure_channel_first=True)
        return Compose([reader, Transpose((0, 2, 1)), EnsureType(track_meta=False)])(path)

    with tempfile.TemporaryDirectory() as folder:
        if source == "phantom":
            image_path = write_phantoms(folder, count=1, size=256 if quick else 1024)[0]
            mask_path = Path(folder) / "masks" / image_path.name
        else:
            image_path, mask_path = (DATA / name for name in PHOTOGRAPHS[source])
        image, mask = load(image_path, 3), load(mask_path, 1)
    image = NormalizeIntensity((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), channel_wise=True)(image)
    return image[None].contiguous(), (mask[None] > 0).float()


def _whole_image_benchmark(source: str) -> Benchmark:
    return Benchmark(
        title=f"Whole image with its black surround: {source}, micro enlarged twice, 192 px windows, overlap 0.25",
        variants=("monai", "skipping"),
        prepare=partial(whole_image, source=source),
        bounds=(
            Bound("seconds", "skipping", 0.7, against="monai"),
            Bound("Dice", "skipping", 1e-3, against="monai", difference=True),
        ),
        processes=1,
        turns=3,
    )


BENCHMARKS = {
    "merged": Benchmark(
        title="Merged inference against plain SAM 2.1: tiny, 512 px, batch 1",
        variants=("plain", "merged"),
        prepare=one_image,
        bounds=(Bound("seconds", "merged", 1.02, least=0.98, against="plain"),),
        processes=2,
        turns=20,
    )
} | {
    f"whole-{source}": _whole_image_benchmark(source)
    for source in ([name for name, (image, _) in PHOTOGRAPHS.items() if (DATA / image).is_file()] or ["phantom"])
}
