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
The table of methods: the same base, patches and budget for all: ``python -m tests.benchmarks.methods DATA``.

Every run (task, method, seed) is a process of its own with one thread and adds one line to ``--results``; what is there
is not run again, so an interrupted table goes on, here or in another checkout. Seconds are those of the processor, so
that other work on the machine does not count. At the end the tables are printed and the figures drawn beside the
results; ``--report`` does only that.
DATA holds ``chase_db1`` and the six sources of ``sam2_micro_pretraining``. Nothing is tuned here: one learning rate for
each kind of method, fixed beforehand, and the network after the last step is the one that is scored.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "runs" / "benchmarks" / "methods.jsonl"
VESSELS, PRETRAINING = (
    ROOT / "bundles" / name / "configs" for name in ("fundus_vessel_segmentation", "sam2_micro_pretraining")
)
LINEAR = ["*trunk*attn.qkv", "*trunk*attn.proj", "*trunk*mlp.layers.*"]
DECODER = "sam_mask_decoder.transformer.*attn*_proj"
BLOCKS = ["image_encoder.trunk.blocks.?"]
FINE = ["sam_mask_decoder.output_upscaling.*", "sam_mask_decoder.conv_s0.*"]
SCORES = ("dice", "cldice", "hd95")
BATCH = 4
HRF_IMAGES = 6  # the first by name, two of each kind of eye


@dataclass(frozen=True)
class Task:
    """What is segmented: patches of so many pixels, enlarged before the encoder, on images resized to a height."""

    label: str
    patch: int
    enlarge: int
    height: int | None = None


TASKS = {
    "vessels": Task("vessel", patch=112, enlarge=2),
    "discs": Task("optic disc", patch=224, enlarge=1, height=800),
    "nuclei": Task("nucleus", patch=112, enlarge=2),
}


@dataclass(frozen=True)
class Method:
    """
    A row: how the network is made, its loss, its learning rate, and the perturbation of sharpness-aware steps.

    ``steps`` is the part of the budget that it gets: half for those that need two passes a step.
    """

    adapters: tuple[dict[str, Any], ...] = ()
    train: tuple[str, ...] = tuple(FINE)
    network: str = "sam2"
    lr: float = 3e-3
    loss: str = "composite"
    perturbation: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    steps: float = 1.0


def adapter(name: str, targets: list[str], **settings: Any) -> tuple[dict[str, Any], ...]:
    return ({"_target_": f"monai_ext.adapters.{name}", "targets": targets, **settings},)


METHODS = {
    "base as it is": Method(train=(), steps=0),
    "token only": Method(train=()),
    "fine decoder layers": Method(),
    "decoder": Method(train=("sam_mask_decoder.*",), lr=5e-4),
    "norms": Method(train=("image_encoder.trunk.*norm*", *FINE)),
    "biases (BitFit)": Method(train=("image_encoder.trunk.*bias", *FINE)),
    "last blocks": Method(train=("image_encoder.trunk.blocks.[789].*", *FINE), lr=5e-4),
    **{f"LoRA, rank {r}": Method(adapter("LoRA", [*LINEAR, DECODER], rank=r)) for r in (4, 16, 64)},
    "rsLoRA, rank 64": Method(adapter("LoRA", [*LINEAR, DECODER], rank=64, rank_stabilized=True)),
    "DoRA, rank 16": Method(adapter("DoRA", [*LINEAR, DECODER], rank=16)),
    "singular values (S-SAM)": Method(adapter("SingularValues", [*LINEAR, "*trunk.blocks.*.proj"])),
    "SALT": Method(adapter("SALT", LINEAR, rank=4, leading=0.25)),
    "bottleneck (SAM2-UNeXT)": Method(adapter("BottleneckMLP", BLOCKS)),
    "dilated (DD-SAM2)": Method(adapter("DilatedDepthwise", BLOCKS)),
    "separable (TopoLoRA)": Method(adapter("DepthwiseSeparable", ["image_encoder.neck.convs.[01].conv"])),
    "shared pair (SAMIHS)": Method(adapter("SharedRefactoring", ["*trunk.blocks.*.norm[12]"], rank=16)),
    "bridge (CAT-SAM)": Method(adapter("PromptBridge", BLOCKS)),
    "full": Method(train=("*",), lr=5e-4),
    "full, random start": Method(train=("*",), network="sam2 random", lr=5e-4),
    "U-Net": Method(network="unet", lr=1e-3),
    "SegResNet": Method(network="segresnet", lr=1e-3),
}
LOSSES = {
    f"loss: {name}": Method(METHODS["LoRA, rank 16"].adapters, loss=name)
    for name in ("BCE", "Dice", "DiceFocal", "FocalTversky", "composite + clDice")
}
PERTURBATIONS: dict[str, dict[str, Any]] = {
    "GlobalPerturbation": {},
    "LayerwisePerturbation": {},
    "RandomPerturbation": {},
    "SampledPerturbation": {},
    "SparsePerturbation": {"update_every": 5},  # its mask must be made some times in a short training
}
STEPS = {
    f"steps: {name}": Method(
        METHODS["LoRA, rank 16"].adapters, perturbation=name, settings=tuple(settings.items()), steps=0.5
    )
    for name, settings in PERTURBATIONS.items()
}
ROWS = METHODS | LOSSES | STEPS


Job = tuple[str, str, int]


def jobs(seeds: list[int]) -> list[Job]:
    """All runs, seed by seed, so that a table that was stopped early has all its rows."""
    rows = [(task, name) for name in METHODS for task in TASKS] + [("vessels", name) for name in LOSSES | STEPS]
    return [(task, name, seed) for seed in seeds for task, name in rows]


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def add_result(path: Path, record: dict[str, Any]) -> None:
    """The whole file is written anew and renamed, so that it never holds half a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r) for r in [*read_results(path), record]]
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n")
    part.replace(path)


def load(task: str, root: Path) -> dict[str, list[dict[str, Any]]]:
    """Images in 0..1, labels and fields of view of the training and the test part, in memory."""
    from monai.bundle import ConfigParser
    from monai.transforms import Resize
    from monai.utils import convert_to_tensor

    from monai_ext.data import PretrainingData, SegmentationData
    from monai_ext.transforms import FieldOfView

    parser = ConfigParser(ConfigParser.load_config_file(PRETRAINING / "train.json"))
    if task in ("vessels", "hrf"):
        data = SegmentationData(root=str(root / ("chase_db1" if task == "vessels" else "hrf")))
        parts = {"train": data.training, "test": data.test}
        if task == "hrf":  # no row is trained on it here, but the base was: only rows without it have never seen it
            records = sorted([*data.training, *data.validation, *data.test], key=lambda r: str(r["image"]))
            parts = {"train": [], "test": records[:HRF_IMAGES]}
    else:
        found, name = PretrainingData(root=root), {"discs": "idrid_disc", "nuclei": "dsb2018_stained"}[task]
        parts = {"train": getattr(found, name), "test": getattr(found, f"{name}_validation")}
    transforms = parser.get_parsed_content("tissue" if task == "nuclei" else "photograph")
    items: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    for part, records in parts.items():
        for record in records:
            item = dict(record)
            for transform in transforms:
                item = transform(item)
            image, label = item["image"], (item["label"] > 0).float()
            if height := TASKS.get(task, TASKS["vessels"]).height:
                size = [height, round(height * image.shape[2] / image.shape[1])]
                image, label = Resize(size, anti_aliasing=True)(image), (Resize(size)(label) > 0.5).float()
            fov = torch.ones_like(label) if task == "nuclei" else FieldOfView()(image)
            item = {"image": image, "label": label, "fov": fov}
            items[part].append({key: convert_to_tensor(value, dtype=torch.float32) for key, value in item.items()})
    return items


def make_network(method: Method, task: Task, seed: int) -> torch.nn.Module:
    from monai.bundle import ConfigParser
    from monai.networks.nets import SegResNet, UNet

    from monai_ext.networks import SAM2Segmenter

    torch.manual_seed(seed)
    if method.network == "unet":
        return UNet(2, 3, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    if method.network == "segresnet":
        return SegResNet(2, init_filters=16, in_channels=3, out_channels=1)
    adapters = [ConfigParser({"a": dict(a)}).get_parsed_content("a") for a in method.adapters]
    return SAM2Segmenter(
        size="micro",
        weights=None if method.network == "sam2 random" else "micro",
        labels=[task.label],
        adapters=adapters,
        train=list(method.train),
        enlarge=task.enlarge,
        seed=seed,
    )


def make_loss(name: str) -> torch.nn.Module:
    from monai.losses import DiceFocalLoss

    from monai_ext.losses import FocalTverskyLoss, TverskyCompositeLoss

    alone = {"alpha": 0.5, "beta": 0.5, "lambda_bce": 0.0, "lambda_dice": 0.0, "lambda_tversky": 0.0}
    return {
        "BCE": lambda: TverskyCompositeLoss(**alone | {"lambda_bce": 1.0}),
        "Dice": lambda: TverskyCompositeLoss(**alone | {"lambda_dice": 1.0}),
        "DiceFocal": lambda: DiceFocalLoss(sigmoid=True, batch=True),
        "FocalTversky": lambda: FocalTverskyLoss(sigmoid=True, batch=True),
        "composite": lambda: TverskyCompositeLoss(alpha=0.5, beta=0.5),
        "composite + clDice": lambda: TverskyCompositeLoss(alpha=0.5, beta=0.5, lambda_cldice=0.5),
    }[name]()


def train(
    network: torch.nn.Module, items: list[dict[str, Any]], method: Method, task: Task, steps: int, seed: int
) -> float:
    """Train with the bundle's own augmentation, by MONAI's trainer; the processor's seconds of a step."""
    from monai.bundle import ConfigParser
    from monai.data import CacheDataset, DataLoader
    from monai.engines import SupervisedTrainer
    from monai.handlers import LrScheduleHandler
    from monai.optimizers import WarmupCosineSchedule
    from monai.transforms import Compose
    from monai.utils import set_determinism
    from torch.utils.data import RandomSampler

    from monai_ext import optimizers
    from monai_ext.handlers import GradientClipping, SharpnessAware, TrainingProgressBar

    set_determinism(seed=seed)
    config = ConfigParser.load_config_file(VESSELS / "train.json")
    names = [t["_target_"] for t in config["train"]["preprocessing"]["transforms"]]
    augmentation = config["train"]["preprocessing"]["transforms"][names.index("FgBgToIndicesd") :]
    parser = ConfigParser({"image_size": task.patch, "augmentation": augmentation})
    dataset = CacheDataset(items, Compose(parser.get_parsed_content("augmentation")), num_workers=0, progress=False)
    sampler = RandomSampler(dataset, replacement=True, num_samples=BATCH * steps)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=method.lr, weight_decay=0.01)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=max(1, steps // 10), t_total=steps)
    handlers: list[Any] = [LrScheduleHandler(schedule, print_lr=False, epoch_level=False)]
    if method.perturbation is not None:
        perturbation = getattr(optimizers, method.perturbation)(**dict(method.settings))
        handlers.append(SharpnessAware(perturbation=perturbation))
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=make_loss(method.loss),
        train_handlers=[*handlers, GradientClipping(max_norm=1.0), TrainingProgressBar()],
    )
    start = time.process_time()
    trainer.run()
    return (time.process_time() - start) / steps


def score(network: torch.nn.Module, items: list[dict[str, Any]], patch: int) -> list[dict[str, float]]:
    """Automatic, whole images at native resolution, inside the field of view."""
    from monai.transforms import NormalizeIntensity

    from monai_ext.handlers.report import label_scores
    from monai_ext.inferers import ForegroundSlidingWindowInferer

    normalise = NormalizeIntensity([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], channel_wise=True)
    inferer = ForegroundSlidingWindowInferer(roi_size=[patch, patch], sw_batch_size=8, overlap=0.25, mode="constant")
    rows = []
    network.eval()
    for item in items:
        with torch.no_grad():
            logits = inferer(torch.as_tensor(normalise(item["image"]))[None], network)[0, 0]
        truth, view = (torch.as_tensor(item[key])[0] > 0.5 for key in ("label", "fov"))
        scores = label_scores(torch.as_tensor(logits) > 0, truth, fov=view)
        rows.append({name: round(float(scores[name]), 5) for name in SCORES})
    return rows


def run_job(task_name: str, name: str, seed: int, folder: Path, budget: int) -> dict[str, Any]:
    """One run, in this process, on the images of ``load`` that the folder holds."""
    torch.set_num_threads(1)
    task, method = TASKS[task_name], ROWS[name]
    data = torch.load(folder / f"{task_name}.pt", weights_only=True)
    network = make_network(method, task, seed)
    count, seconds, memory = round(budget * method.steps), None, None
    if count:
        before = peak_of_memory(forget=True)
        seconds = train(network, data["train"], method, task, count, seed)
        memory = (peak_of_memory() - before) / 1024
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    with tempfile.TemporaryDirectory() as saved:
        state = network.trained_state_dict() if hasattr(network, "trained_state_dict") else network.state_dict()
        torch.save(state, Path(saved) / "model.pt")
        size = (Path(saved) / "model.pt").stat().st_size / 1e6
    scores = {task_name: score(network, data["test"], task.patch)}
    if task_name == "vessels" and name in CROSSED:
        # HRF's photographs are 3.5 times as large as CHASE_DB1's: all networks see them at half that scale.
        scores["hrf"] = score(Halved(network), torch.load(folder / "hrf.pt", weights_only=True)["test"], 2 * task.patch)
    return {
        "task": task_name,
        "method": name,
        "seed": seed,
        "budget": budget,
        "steps": count,
        "seconds": seconds and round(seconds, 4),
        "MiB": memory and round(memory, 1),
        "trained": trained,
        "of": sum(p.numel() for p in network.parameters()),
        "MB": size,
        "scores": scores,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def peak_of_memory(*, forget: bool = False) -> float:
    """The process's peak in KiB, or with ``forget`` what it holds now, from where the peak then counts (Linux)."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


class Halved(torch.nn.Module):
    """A network that sees images at half their size and answers at all of it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
        return torch.nn.functional.interpolate(self.network(half), size=x.shape[-2:], mode="bilinear")


CROSSED = ("LoRA, rank 16", "singular values (S-SAM)", "full", "full, random start", "U-Net", "SegResNet")


def work(job: Job, folder: Path, budget: int, record: Path) -> None:
    """What a run's process does: its words go to a log, its result to the record."""
    with open(record.with_suffix(".log"), "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        record.write_text(json.dumps(run_job(*job, folder, budget)))


def run_all(pending: list[Job], root: Path, budget: int, processes: int, results: Path) -> int:
    """Run what is missing, each in a process of its own; what fails is named at the end and stops nothing."""
    from tqdm import tqdm

    failed: list[tuple[Job, str]] = []
    writing = Lock()
    context = multiprocessing.get_context("forkserver")  # a process with the libraries loaded, and nothing else
    context.set_forkserver_preload(["monai.bundle", "monai.engines", "monai_ext.handlers", "monai_ext.networks"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needed = {task for task, _, _ in pending}
        needed |= {"hrf" for task, row, _ in pending if task == "vessels" and row in CROSSED}
        for task in tqdm(sorted(needed), desc="reading", unit="task"):
            torch.save(load(task, root), folder / f"{task}.pt")

        def run(place: int) -> None:
            record = folder / f"{place}.json"
            process = context.Process(target=work, args=(pending[place], folder, budget, record))
            process.start()
            process.join()
            with writing:
                if process.exitcode:
                    failed.append((pending[place], record.with_suffix(".log").read_text()[-2000:]))
                else:
                    add_result(results, json.loads(record.read_text()))
                progress.update()

        with tqdm(total=len(pending), unit="run") as progress, ThreadPoolExecutor(processes) as pool:
            list(pool.map(run, range(len(pending))))
    for job, error in failed:
        sys.stderr.write(f"failed: {job}\n{error}\n")
    return int(bool(failed))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.methods", description=__doc__.splitlines()[1])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--steps", type=int, default=100, help=f"training steps of {BATCH} patches (default: 100)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="rows whose task and name hold this")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each (default: 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="one line for each run (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    data, budget, results = arguments.data.resolve(), arguments.steps, arguments.results.resolve()
    code = 0
    if not arguments.report:
        found = {(r["task"], r["method"], r["seed"]) for r in read_results(results) if r["budget"] == budget}
        chosen = [job for job in jobs(arguments.seeds) if arguments.only in f"{job[0]} {job[1]}"]
        code = run_all([job for job in chosen if job not in found], data, budget, arguments.processes, results)
    from .methods_report import report

    order = {name: place for place, name in enumerate(ROWS)}
    runs = [r for r in read_results(results) if r["budget"] == budget]
    report(sorted(runs, key=lambda r: (order[r["method"]], r["seed"])), results.parent)
    return code


if __name__ == "__main__":
    sys.exit(main())
