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
Clicks that an annotator needs before and after tuning on the first saved images: ``tests.benchmarks.annotator DATA``.

A simulated annotator marks every object by itself: the first click in the middle of the object, each further one in the
middle of the largest error, 20 at most (`ClickTrialInferer`). It does so with the base `micro` and again after the base
was tuned on the images that were saved first. Images for tuning and for testing share no photograph; of the one CT
volume the lower slices are tuned on and the upper ones tested, which says nothing about other patients.
DATA holds the sources of ``sam2_micro_pretraining``, as `monai_ext.data.PretrainingData` describes them, whose recipe
the tuning is: its crops, augmentation, clicks and loss. Nothing is chosen by the test images: the settings are fixed
beforehand, and the network after the last step is the one that is tested. Each task is added to ``--results`` when it
is done, and the table and the figure are written beside it; ``--report`` does only that.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.utils import convert_to_tensor

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "runs" / "benchmarks" / "annotator.json"
CONFIG = ROOT / "bundles" / "sam2_micro_pretraining" / "configs" / "train.json"
TRAINED = ["sam_mask_decoder.*"]  # a laptop does it while the annotator works on: the encoder needs no gradient
CLICKS = 20
ROUNDS = 4  # the base has trained with three: it does not know what a fourth click is
WINDOW = 224
BATCH = 3
LR = 3e-4  # of the bundle's second part
OBJECTS = 4  # of an image, drawn with a fixed seed
SMALLEST = 100  # pixels of the spleen in a slice
VOLUMES = ("spleen", "unseen spleen")
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """A source of `PretrainingData`, the transforms that load it, and how many of its images are saved first."""

    source: str
    load: str
    steps: int
    saved: int | None = None


TASKS = {
    "nuclei": Task("dsb2018_stained", "tissue", steps=120, saved=16),
    "spleen": Task("msd_spleen", "ct_slice", steps=40),
    "unseen spleen": Task("msd_spleen", "ct_slice", steps=40),
    "discs": Task("idrid_disc", "photograph", steps=40),
}


def recipe(root: Path) -> Any:
    """The bundle's config, of which only parts are made."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(ConfigParser.load_config_file(CONFIG))
    parser.update({"dataset_dir": str(root), "image_size": WINDOW, "rounds": ROUNDS})
    return parser


def load(name: str, parser: Any) -> tuple[Items, Items]:
    """In memory: the images saved first with maps of their objects, and the test images, some objects' masks each."""
    from monai.transforms import Compose

    task, data = TASKS[name], parser.get_parsed_content("data")
    records, reading = getattr(data, task.source), parser.get_parsed_content(task.load)
    trial = parser.get_parsed_content("trial#nuclei" if name == "nuclei" else "trial#discs")
    if name in VOLUMES:
        read, scale = reading[:2]
        volume = read(records[0]) if name == "spleen" else unseen_spleen(parser["dataset_dir"])
        saved, test = halves(scale(volume))
        return saved, choose(map(Compose(trial[1:]), test))  # slices keep their size
    shrink = [parser.get_parsed_content("shrink#idrid_disc")] if name == "discs" else []
    validation = getattr(data, f"{task.source}_validation")
    saved = list(map(Compose([*reading, *shrink]), records[: task.saved]))
    return saved, choose(map(Compose([*reading, *trial]), validation))


def unseen_spleen(root: str) -> dict[str, Any]:
    """TotalSegmentator's example, whose organs were found by a model; the base has not been trained on it."""
    from monai.transforms import Compose, LoadImaged, Orientationd

    from monai_ext.data import VolumeReader

    folder, keys = Path(root) / "totalsegmentator_ct", ["image", "label"]
    load = LoadImaged(keys, reader=VolumeReader(), ensure_channel_first=True)
    files = {"image": folder / "example_ct_dicom", "label": folder / "example_seg_dicom.nii.gz"}
    volume = Compose([load, Orientationd(keys, "LPS", labels=None)])(files)
    return volume | {"label": volume["label"] == 1}


def halves(volume: dict[str, Any]) -> tuple[Items, Items]:
    """The different slices that show the organ, the lower and the upper half of them, without the one in the middle."""
    image, label = (convert_to_tensor(volume[key], track_meta=False) for key in ("image", "label"))
    items = [
        {"image": image[..., z].repeat(3, 1, 1), "label": label[..., z].int(), "source": "ct"}
        for z in range(label.shape[-1])
        # Both files hold slices several times.
        if label[..., z].sum() >= SMALLEST and not (z and torch.equal(image[..., z], image[..., z - 1]))
    ]
    middle = len(items) // 2
    return items[:middle], items[middle + 1 :]


def choose(items: Iterable[dict[str, Any]]) -> Items:
    """Of each image a few objects, always the same."""
    found = []
    for number, item in enumerate(items):
        order = torch.randperm(len(item["label"]), generator=torch.Generator().manual_seed(number))
        found.append({key: torch.as_tensor(item[key]) for key in ("image", "label")})
        found[-1]["label"] = found[-1]["label"][order[:OBJECTS]]
    return found


def annotate(network: torch.nn.Module, items: Items) -> list[list[list[float]]]:
    """IoU of every object of every image after each click."""
    from monai.metrics import compute_iou

    from monai_ext.inferers import ClickTrialInferer

    network.eval()
    inferer, found = ClickTrialInferer(clicks=CLICKS, window=WINDOW, chunk=OBJECTS), []
    for item in items:
        truth = item["label"].unsqueeze(1)
        with torch.no_grad():
            answers = inferer(item["image"].unsqueeze(0).float(), network, label=item["label"].unsqueeze(0))[0]
        scores = [compute_iou(answer.unsqueeze(1), truth, ignore_empty=False).flatten() for answer in answers]
        found.append([[round(float(value), 4) for value in one] for one in torch.stack(scores, 1)])
    return found


def tune(network: Any, items: Items, source: str, parser: Any, steps: int) -> float:
    """Train on rounds of clicks by the bundle's recipe; the processor's seconds that it took."""
    from monai.data import CacheDataset, DataLoader
    from monai.engines import SupervisedTrainer
    from monai.handlers import LrScheduleHandler
    from monai.optimizers import WarmupCosineSchedule
    from monai.transforms import Compose
    from monai.utils import set_determinism
    from torch.utils.data import RandomSampler

    from monai_ext.handlers import GradientClipping

    set_determinism(seed=0)
    crop = parser.get_parsed_content(f"crops#{source}")
    augment = Compose([crop, *parser.get_parsed_content("augmentation")])
    dataset = CacheDataset(items, augment, num_workers=0, progress=False)
    sampler = RandomSampler(dataset, replacement=True, num_samples=BATCH * steps)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=LR, weight_decay=0.01)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=max(1, steps // 10), t_total=steps)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(dataset, batch_size=BATCH, sampler=sampler),
        network=network,
        optimizer=optimizer,
        loss_function=parser.get_parsed_content("loss"),
        inferer=parser.get_parsed_content("train#inferer"),
        prepare_batch=parser.get_parsed_content("train#trainer#prepare_batch"),
        decollate=False,
        train_handlers=[LrScheduleHandler(schedule, print_lr=False, epoch_level=False), GradientClipping(max_norm=1.0)],
    )
    start = time.process_time()
    trainer.run()
    return time.process_time() - start


def run(name: str, root: Path, steps: int | None) -> dict[str, Any]:
    """One task: before, tuning, after."""
    from monai_ext.networks import SAM2Segmenter

    parser, task = recipe(root), TASKS[name]
    steps = steps or task.steps
    saved, items = load(name, parser)
    network = SAM2Segmenter(size="micro", weights="micro", train=TRAINED)
    before = annotate(network, items)
    seconds = tune(network, saved, task.source, parser, steps)
    return {
        "task": name,
        "saved": len(saved),
        "steps": steps,
        "batch": BATCH,
        "rounds": ROUNDS,
        "seconds": round(seconds),
        "trained": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "before": before,
        "after": annotate(network, items),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text()) if path.is_file() else {}


def add_result(path: Path, record: dict[str, Any]) -> None:
    from monai_ext.data import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(read_results(path) | {record["task"]: record}, separators=(",", ":")) + "\n")


def main(words: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.annotator", description=__doc__.splitlines()[1])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--steps", type=int, help=f"steps of {BATCH} images (default: as the task has it)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument(
        "--machine", default=platform.processor() or platform.machine(), help="what the page says of it"
    )
    parser.add_argument("--report", action="store_true", help="only write the table and the figure of what is there")
    arguments = parser.parse_args(None if words is None else list(words))
    from .annotator_report import report

    for name in () if arguments.report else arguments.only:
        record = run(name, arguments.data.resolve(), arguments.steps)
        add_result(arguments.results, record | {"machine": arguments.machine})
    report(read_results(arguments.results), arguments.results)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
