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


"""Tables (``methods.md`` and the terminal) and figures (PNG) of ``methods.py``, beside its results."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

SCORES = {"dice": "Dice", "cldice": "clDice", "hd95": "HD95, pixels"}
TITLES = {
    "vessels": "Vessels: CHASE_DB1, eight test photographs",
    "hrf": "Tuned on CHASE_DB1, tested on HRF: six photographs, which the base `micro` has been trained on",
    "discs": "Optic discs: IDRiD 09-12",
    "nuclei": "Nuclei: the last 19 images of DSB 2018's stained tissue",
}
HEAD = (
    "# The table of methods\n\n"
    "Written by `python -m tests.benchmarks.methods DATA --results docs/benchmarks/methods.jsonl` from `methods.jsonl` "
    "beside it, which has each image's score of every run. {budget} training steps of four patches for all, automatic, "
    "native resolution; mean over images (each averaged over the seeds) and its 95 % bootstrap interval; between seeds "
    "is the standard deviation of the seeds' means. What it says is in [Speed and memory](../benchmarks.md).\n"
)
Runs = list[dict[str, Any]]


def report(runs: Runs, folder: Path) -> None:
    """Write and print one table for each task, and draw one figure for each, into the folder."""
    pages = [HEAD.format(budget=runs[0]["budget"] if runs else 0)]
    for task in sorted({scored for run in runs for scored in run["scores"]}):
        rows: dict[str, Runs] = defaultdict(list)
        for run in runs:
            if task in run["scores"]:
                rows[run["method"]].append(run)
        pages.append(table(task, rows))
        draw(task, rows, folder / f"{task}.png")
    (folder / "methods.md").write_text("\n".join(pages))
    sys.stdout.write("\n".join(pages))


def per_image(runs: Runs, task: str, score: str) -> np.ndarray:
    """Each image's score, averaged over the seeds."""
    return np.array([[image[score] for image in run["scores"][task]] for run in runs]).mean(0)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over images."""
    from monai_ext.handlers.report import score_summary

    values = values[np.isfinite(values)]
    if not values.size:
        return (np.nan, np.nan, np.nan)
    summary = score_summary(values)
    low, high = (summary[key] if summary[key] is not None else np.nan for key in ("low", "high"))
    return float(summary["mean"] or 0.0), float(low or 0.0), float(high or 0.0)


def between_seeds(runs: Runs, task: str) -> float:
    means = [np.mean([image["dice"] for image in run["scores"][task]]) for run in runs]
    return float(np.std(means, ddof=1)) if len(means) > 1 else np.nan


def table(task: str, rows: dict[str, Runs]) -> str:
    lines = [f"## {TITLES[task]}", "", f"![Dice of every method]({task}.png)", ""]
    heads = ["method", "seeds", *SCORES.values(), "between seeds", "trained", "file, MB", "CPU s a step", "peak MiB"]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, runs in rows.items():
        cells = [name, str(len(runs))]
        for score in SCORES:
            mean, low, high = interval(per_image(runs, task, score))
            digits = 1 if score == "hd95" else 3
            values = per_image(runs, task, score)
            empty = "" if np.isfinite(values).all() else f", {np.isfinite(values).sum()} of {len(values)} images"
            cells.append(f"{mean:.{digits}f} ({low:.{digits}f} .. {high:.{digits}f}){empty}")
        first = runs[0]
        seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
        cells += [
            f"{between_seeds(runs, task):.3f}" if len(runs) > 1 else "",
            f"{first['trained']:,} ({first['trained'] / first['of']:.1%})",
            f"{first['MB']:.1f}",
            f"{np.median(seconds):.2f}" if seconds else "",
            f"{np.median([run['MiB'] for run in runs]):.0f}" if seconds else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def draw(task: str, rows: dict[str, Runs], path: Path) -> None:
    """Dice of every method with its interval, the best on top."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = sorted((interval(per_image(runs, task, "dice")), name) for name, runs in rows.items())
    figure, axes = plt.subplots(figsize=(7, 1 + 0.28 * len(found)), layout="constrained")
    for place, ((mean, low, high), _) in enumerate(found):
        axes.plot([low, high], [place, place], color="0.6")
        axes.plot(mean, place, "o", color="C0")
    axes.set_yticks(range(len(found)), labels_of(name for _, name in found))
    axes.set_xlabel(f"Dice, {task}: mean and 95 % interval over images")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def labels_of(names: Iterable[str]) -> list[str]:
    return [name.replace("loss: ", "loss ").replace("steps: ", "") for name in names]
