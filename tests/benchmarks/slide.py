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
A slide of 40,000 x 40,000 pixels: ``python -m tests.benchmarks.slide FOLDER``, time and memory beside MONAI's own.

The slide is drawn tile by tile into FOLDER, if it is not there: glass, and pieces of tissue with nuclei on it, with all
its pyramid levels. Each measurement is a process of its own with one thread, whose peak of memory is what the system
says. MONAI's inferers need the whole image or the whole result in memory, so they are compared on a small slide.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
TILE, POOL, WINDOW, OVERLAP, BATCH = 256, 8, 112, 0.25, 8
# Side in pixels, and the part of it that is tissue.
SLIDES = {"large": (40_000, 0.005), "small": (1536, 1.0)}
RUNS = [("large", "ours"), ("small", "ours"), ("small", "monai whole"), ("small", "monai splitter")]


def draw_tissue(seed: int) -> np.ndarray:
    """A tile of tissue with nuclei that may lie beside any other."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    tile = np.array([226, 170, 206.0]) + 12 * gaussian_filter(rng.standard_normal((TILE, TILE, 1)), (4, 4, 0))
    y, x = np.mgrid[:TILE, :TILE]
    for cy, cx in rng.uniform(14, TILE - 14, (36, 2)):
        a, b, turn = *rng.uniform(6, 11, 2), rng.uniform(0, np.pi)
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        tile[(u / a) ** 2 + (v / b) ** 2 < 1] = (104, 62, 140)
    return gaussian_filter(tile, (0.7, 0.7, 0)).clip(0, 255).astype(np.uint8)


def tissue_map(count: int, part: float) -> np.ndarray:
    """Which of the slide's tiles are which tissue, 0 for glass: a few round pieces of about the part asked for."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(1, POOL + 1, (count, count))
    if part >= 1:
        return kinds
    y, x = np.mgrid[:count, :count]
    radius = count * np.sqrt(part / 5 / np.pi)
    centres = (0.2, 0.25), (0.3, 0.7), (0.55, 0.45), (0.78, 0.2), (0.75, 0.8)
    inside = [(y - cy * count) ** 2 + (x - cx * count) ** 2 < radius**2 for cy, cx in centres]
    return np.where(np.any(inside, axis=0), kinds, 0)


def write_slide(path: Path, side: int, part: float) -> None:
    """One tile is in memory at a time."""
    import tifffile

    pool = [np.full((TILE, TILE, 3), 243, np.uint8), *(draw_tissue(seed) for seed in range(POOL))]
    kinds = tissue_map(-(-side // TILE), part)

    def tiles(level: int) -> Iterator[bytes]:
        shrink = 2**level
        small = [tile[shrink // 2 :: shrink, shrink // 2 :: shrink] for tile in pool]
        packed: dict[bytes, bytes] = {}
        count = -(-side // (shrink * TILE))
        for y, x in np.ndindex(count, count):
            block = kinds[y * shrink : (y + 1) * shrink, x * shrink : (x + 1) * shrink]
            if (key := block.tobytes()) not in packed or shrink > 1:
                tile = np.full((TILE, TILE, 3), 243, np.uint8)
                edge = TILE // shrink
                for row, column in np.argwhere(block):
                    place = np.s_[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
                    tile[place] = small[block[row, column]]
                packed[key] = zlib.compress(tile.tobytes(), 3)
            yield packed[key] if shrink == 1 else packed.pop(key)

    part_path = path.with_suffix(".part.tif")
    with tifffile.TiffWriter(part_path, bigtiff=True) as file:
        for level in range(0, 8 if side > 10_000 else 3):
            size = -(-side // 2**level)
            file.write(
                tiles(level),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="rgb",
                subfiletype=int(level > 0),
                resolution=(40000 / 2**level,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    part_path.replace(path)


def measure(path: Path, method: str) -> dict[str, float]:
    """One run in this process."""
    import torch
    from monai.bundle import ConfigParser
    from monai.inferers import AvgMerger, PatchInferer, SlidingWindowInferer, WSISlidingWindowSplitter
    from monai.transforms import NormalizeIntensity

    from monai_ext.data import Slide, SlideList
    from monai_ext.inferers import SlideInferer, SlideSegmentation
    from monai_ext.transforms import SeparateInstances, tissue_mask

    torch.set_num_threads(1)
    bundle = ROOT / "bundles" / "histology_nuclei_segmentation"
    config = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
    network = config.get_parsed_content("network_def").eval()
    normalise = NormalizeIntensity([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], channel_wise=True)
    windows = 0

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal windows
        windows += len(x)
        return network(x)

    counted = torch.nn.Module()
    counted.forward = counting  # type: ignore[method-assign]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    tiles = 0
    if method == "ours":
        inferer = SlideInferer(
            roi_size=WINDOW,
            overlap=OVERLAP,
            sw_batch_size=BATCH,
            tile=1024,
            margin=64,
            preprocessing=normalise,
            tissue=tissue_mask,
        )
        slide = Slide(path)
        tiles = len(inferer.tiles(slide, inferer.find_tissue(slide)))
        slides = SlideList(source=path)
        SlideSegmentation(
            slides=slides,
            inferer=inferer,
            network=counted,
            output_dir=path.parent / f"{path.stem}_out",
            labels=["nucleus"],
            separate=SeparateInstances(smallest=30),
        ).run()
        slides.finish()
    else:
        with torch.no_grad():
            if method == "monai whole":
                slide = Slide(path)
                image = torch.as_tensor(normalise(slide.read(0, 0, *slide.size)))[None]
                result = SlidingWindowInferer([WINDOW] * 2, BATCH, OVERLAP, mode="gaussian")(image, counted)
            else:
                splitter = WSISlidingWindowSplitter(WINDOW, OVERLAP, reader="openslide", dtype=np.float32)
                inferer = PatchInferer(
                    splitter, AvgMerger, BATCH, preprocessing=lambda x: torch.stack([normalise(i / 255) for i in x])
                )
                result = inferer(str(path), counted)
            assert result.shape[-2:] == Slide(path).size
    return {
        "seconds": time.perf_counter() - start,
        "tiles": tiles,
        "windows": windows,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mib": before / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", nargs=2, metavar=("SLIDE", "METHOD"), help="one run in this process, for the others")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.run:
        print(json.dumps(measure(args.folder / f"{args.run[0]}.tif", args.run[1])))  # noqa: T201
        return
    for name, (side, part) in SLIDES.items():
        if not (args.folder / f"{name}.tif").is_file():
            write_slide(args.folder / f"{name}.tif", side, part)
    for slide, method in RUNS:
        command = [sys.executable, "-m", "tests.benchmarks.slide", str(args.folder), "--run", slide, method]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        rate = result["windows"] / result["seconds"]
        print(  # noqa: T201
            f"| {slide} | {method} | {result['tiles'] or ''} | {result['windows']} | {result['seconds']:.0f} | "
            f"{rate:.1f} | {result['peak_mib']:.0f} | {result['before_mib']:.0f} |"
        )


if __name__ == "__main__":
    main()
