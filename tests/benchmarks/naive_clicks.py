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
What one click is worth without any learning: ``python -m tests.benchmarks.naive_clicks FOLDER``.

Two rivals of SAM 2 micro's first answer, on the same objects and from the same click in the middle: a disc of the size
that the training objects have in the median, and a flood fill whose tolerance is the best one on the training objects.
FOLDER holds the sources as `monai_ext.data.PretrainingData` describes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from skimage.segmentation import flood

from monai_ext.transforms import CorrectionClicks

CONFIG = Path(__file__).parents[2] / "bundles" / "sam2_micro_pretraining" / "configs" / "train.json"
SETS = {"discs": ("idrid_disc", "photograph"), "nuclei": ("dsb2018_stained", "tissue")}
TOLERANCES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)  # of the normalised image, summed over its colours


def objects(items: Iterable[dict[str, Any]]) -> list[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """The image, an object's mask and the middle click, for every object."""
    click = CorrectionClicks(where="middle")
    found = []
    for item in items:
        image = np.asarray(item["image"]).mean(0)
        for mask in item["label"]:
            x, y = click(mask[None, None])["points"].flatten().int().tolist()
            found.append((image, np.asarray(mask) > 0, (y, x)))
    return found


def disc(radius: float) -> Callable[..., np.ndarray]:
    def draw(image: np.ndarray, place: tuple[int, int]) -> np.ndarray:
        rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
        return (rows - place[0]) ** 2 + (columns - place[1]) ** 2 <= radius**2

    return draw


def fill(tolerance: float) -> Callable[..., np.ndarray]:
    return lambda image, place: flood(image, place, tolerance=tolerance)


def mean_iou(answer: Callable[..., np.ndarray], found: list[Any]) -> float:
    masks = [(answer(image, place), mask) for image, mask, place in found]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in masks]))


def main(root: Path) -> int:
    config = ConfigParser(ConfigParser.load_config_file(CONFIG))
    config["dataset_dir"] = str(root)
    for name, (source, load) in SETS.items():
        prepare = Compose([*config.get_parsed_content(load), *config.get_parsed_content(f"trial#{name}")])
        training = objects(map(prepare, config.get_parsed_content("data").__dict__[source]))
        validation = objects(config.get_parsed_content(f"validate#{name}"))
        radius = float(np.median([np.sqrt(mask.sum() / np.pi) for _, mask, _ in training]))
        tolerance = max(TOLERANCES, key=lambda t: mean_iou(fill(t), training[::5]))
        rivals = {f"disc of radius {radius:.1f}": disc(radius), f"flood fill {tolerance}": fill(tolerance)}
        for words, rival in rivals.items():
            sys.stdout.write(f"{name:8}{len(validation):5} objects   {words:22}{mean_iou(rival, validation):.3f}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(Path(sys.argv[1])))
