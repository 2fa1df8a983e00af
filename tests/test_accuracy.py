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
What the shipped weights can do, on fixed images: a change that makes them worse fails here.

The expected figures were measured with these weights. Each tolerance is four times the deviation that the figure had
over images with a little noise added (``python -m tests.test_accuracy`` measures both anew), but at least 0.005.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.metrics import compute_iou
from monai.transforms import LoadImage, NormalizeIntensity
from monai.utils import convert_to_tensor

from monai_ext.data import PhotographReader
from monai_ext.handlers.report import label_scores
from monai_ext.inferers import ClickTrialInferer
from monai_ext.networks import SAM2Segmenter
from monai_ext.networks.weights import read_state_dict
from monai_ext.transforms import DrawScene

ROOT = Path(__file__).parents[1]
BASE, VESSELS = (ROOT / "bundles" / name for name in ("sam2_micro_pretraining", "fundus_vessel_segmentation"))
NOISE = 0.01  # of normalised intensity: less than one grey value of 255

ANSWERS = ("one click", "three clicks", "box")
# set: mean IoU after one click, after three, and from a box, with their tolerances
CLICKS: dict[str, dict[str, tuple[float, float]]] = {
    "drawn": {"one click": (0.365, 0.005), "three clicks": (0.531, 0.0071), "box": (0.659, 0.005)},
    "discs": {"one click": (0.936, 0.005), "three clicks": (0.948, 0.005), "box": (0.937, 0.005)},
    "nuclei": {"one click": (0.664, 0.005), "three clicks": (0.77, 0.005), "box": (0.785, 0.005)},
}
# photograph of CHASE_DB1's test part: Dice of the vessel bundle's shipped model, without flips, with its tolerance
PHOTOGRAPHS: dict[str, tuple[float, float]] = {"Image_11L": (0.757, 0.005), "Image_14R": (0.748, 0.005)}


def prepared(image: torch.Tensor) -> torch.Tensor:
    normalise = NormalizeIntensity([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], channel_wise=True)
    return torch.as_tensor(normalise(image))


def drawn(_: Path | None) -> list[dict[str, Any]]:
    """Twenty drawn scenes with up to four objects each that are neither tiny nor nearly all."""
    items = []
    for seed in range(20):
        scene = DrawScene(size=224, seed=1000 + seed)(None)
        numbers, counts = scene["label"].unique(return_counts=True)
        kept = [n for n, count in zip(numbers, counts, strict=True) if n > 0 and 400 <= count <= 20000][:4]
        if kept:
            masks = torch.stack([(scene["label"][0] == n).float() for n in kept])
            items.append({"image": prepared(scene["image"]), "label": masks})
    return items


def held_out(name: str, count: int) -> Callable[[Path | None], list[dict[str, Any]]]:
    """The first images of a set that the base was never trained on, as its bundle prepares them."""

    def load(shared: Path | None) -> list[dict[str, Any]]:
        config = ConfigParser(ConfigParser.load_config_file(BASE / "configs" / "train.json"))
        config["dataset_dir"] = str(shared)
        transform = config.get_parsed_content(f"validate#{name}").transform
        source = {"discs": "idrid_disc_validation", "nuclei": "dsb2018_stained_validation"}[name]
        return [transform(record) for record in getattr(config.get_parsed_content("data"), source)[:count]]

    return load


SETS = {"drawn": drawn, "discs": held_out("discs", 4), "nuclei": held_out("nuclei", 3)}


def click_scores(items: list[dict[str, Any]], noise: int | None = None) -> dict[str, float]:
    """Mean IoU over all objects, from the shipped base."""
    network, rng = base(), torch.Generator().manual_seed(noise or 0)
    scores: dict[str, list[torch.Tensor]] = {answer: [] for answer in ANSWERS}
    for item in items:
        image, label = convert_to_tensor(item["image"], track_meta=False), item["label"]
        if noise is not None:
            image = image + NOISE * torch.randn(image.shape, generator=rng)
        with torch.no_grad():
            clicks = ClickTrialInferer(clicks=3, window=224)(image[None], network, label=label[None])[0]
            boxed = ClickTrialInferer(clicks=1, box=True, window=224)(image[None], network, label=label[None])[0]
        for name, masks in zip(scores, (clicks[0], clicks[2], boxed[0]), strict=True):
            scores[name].append(compute_iou(masks.unsqueeze(1), label.unsqueeze(1)).flatten())
    return {name: float(torch.cat(values).mean()) for name, values in scores.items()}


@functools.cache
def base() -> SAM2Segmenter:
    return SAM2Segmenter(size="micro", weights="micro").eval()


@functools.cache
def vessel_config() -> ConfigParser:
    config = ConfigParser(ConfigParser.load_config_file(VESSELS / "configs" / "inference.json"))
    config["device"] = torch.device("cpu")
    network = config.get_parsed_content("network").eval()
    network.load_state_dict(read_state_dict(VESSELS / "models" / "model.pt"))
    return config


def vessel_dice(shared: Path, name: str, noise: int | None = None) -> float:
    """Dice of a whole test photograph inside its field of view, from the shipped model of the vessel bundle."""
    config, folder = vessel_config(), shared / "chase_db1" / "test"
    item = config.get_parsed_content("preprocessing")({"image": str(folder / "images" / f"{name}.jpg")})
    image = item["image"].as_tensor()
    if noise is not None:
        image = image + NOISE * torch.randn(image.shape, generator=torch.Generator().manual_seed(noise))
    with torch.no_grad():
        logits = config.get_parsed_content("inferer")(image[None], config.get_parsed_content("network"))
    mask = LoadImage(reader=PhotographReader(channels=1), ensure_channel_first=True)
    truth = mask(folder / "mask" / f"{name}_1stHO.png")[0].as_tensor().T
    return label_scores(logits[0, 0] > 0, truth > 0, fov=torch.as_tensor(item["fov"])[0] > 0.5)["dice"]


@pytest.mark.parametrize("name", SETS)
def test_clicks(name: str, request: pytest.FixtureRequest) -> None:
    items = SETS[name](None if name == "drawn" else request.getfixturevalue("shared_data"))
    scores = click_scores(items)
    for answer, (expected, tolerance) in CLICKS[name].items():
        assert scores[answer] == pytest.approx(expected, abs=tolerance), f"{name}, {answer}"


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_vessels(name: str, shared_data: Path) -> None:
    expected, tolerance = PHOTOGRAPHS[name]
    assert vessel_dice(shared_data, name) == pytest.approx(expected, abs=tolerance)


def measure(words: str, score: Callable[[int | None], float]) -> None:
    spread = np.std([score(noise) for noise in range(6)], ddof=1)
    sys.stdout.write(f"{words:28}{score(None):.3f}   4 x deviation {4 * spread:.4f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    shared = ROOT.parent / "shared" / "data"
    for name, load in SETS.items():
        items = load(shared)
        results = functools.cache(functools.partial(click_scores, items))
        for answer in ANSWERS:
            measure(f"{name}, {answer}", lambda noise, a=answer, r=results: r(noise)[a])  # type: ignore[misc]
    for name in PHOTOGRAPHS:
        measure(name, functools.partial(vessel_dice, shared, name))
