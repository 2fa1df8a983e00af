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


"""The table (``annotator.md`` and the terminal) and the figure (``annotator.png``) of ``annotator.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

GOALS = (0.8, 0.9)
TITLES = {
    "discs": "optic discs, IDRiD 09-12",
    "nuclei": "nuclei, the last images of DSB 2018's stained tissue",
    "spleen": "spleen, the upper slices of one CT volume",
}
Scores = list[list[list[float]]]


def report(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Write the table and the figure beside the results, and print the table."""
    lines = [
        "| objects | goal | clicks before | clicks after | fewer | not reached in 20, before and after |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        before, after = result["before"], result["after"]
        what = f"{TITLES[name]}: {sum(map(len, before))} in {len(before)} images"
        for goal in GOALS:
            pair = [clicks_to(goal, scores) for scores in (before, after)]
            cells = [what, f"IoU {goal}", *(interval(clicks) for clicks in pair)]
            fewer = [[a - b for a, b in zip(*image, strict=True)] for image in zip(*pair, strict=True)]
            lost = [np.mean([max(s) < goal for image in scores for s in image]) for scores in (before, after)]
            lines.append(f"| {' | '.join([*cells, interval(fewer), f'{lost[0]:.0%}, {lost[1]:.0%}'])} |")
    lines += [
        "",
        "| objects | saved images | steps | seconds of one core | trained parameters |",
        "|---|---|---|---|---|",
    ]
    for name, result in results.items():
        cells = [name, result["saved"], result["steps"], result["seconds"], f"{result['trained']:,}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    page = "\n".join(lines) + "\n"
    sys.stdout.write(page)
    path.with_suffix(".md").write_text(page)
    draw(results, path.with_suffix(".png"))


def clicks_to(goal: float, scores: Scores) -> list[list[int]]:
    """Clicks that each object needed until its IoU was the goal for the first time; all of them where it never was."""
    return [[next((n for n, s in enumerate(o, 1) if s >= goal), len(o)) for o in image] for image in scores]


def interval(values: list[list[Any]], seed: int = 0) -> str:
    """The mean over all objects and its 95 % bootstrap interval over images, whose objects are alike."""
    sums, counts = np.array([sum(image) for image in values]), np.array([len(image) for image in values])
    draws = np.random.default_rng(seed).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(sums[draws].sum(1) / counts[draws].sum(1), [2.5, 97.5])
    return f"{sums.sum() / counts.sum():.2f} ({low:.2f} .. {high:.2f})"


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Mean IoU after each click, before and after tuning."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(results), 3.6), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for part, style in (("before", "--"), ("after", "-")):
            curve = np.mean([scores for image in result[part] for scores in image], axis=0)
            axes.plot(range(1, len(curve) + 1), curve, style, marker=".", label=f"{part} tuning")
        for goal in GOALS:
            axes.axhline(goal, color="0.8", zorder=0)
        axes.set(title=name, xlabel="clicks", ylabel="mean IoU", ylim=(0.4, 1), xticks=range(0, len(curve) + 1, 4))
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
