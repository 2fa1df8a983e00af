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

HEAD = """\
# Clicks before and after tuning

A simulated annotator marks every object by itself: the first click in the middle of the object, each further one in the
middle of the largest error, 20 at most. It does so with the base `micro`, and again after the base was tuned on the
images that were saved first.

`python -m tests.benchmarks.annotator DATA --results docs/benchmarks/annotator.json`; {machine}, torch {torch}, {date},
seed 0, one run. Each object's IoU after each click is in `annotator.json`. Intervals are 95 % bootstrap intervals over
images; an object that never reaches the goal counts as 20 clicks.

![Mean IoU after each click](annotator.png)

"""
TAIL = """
How to read it:

- Tuned is the mask decoder, by the recipe of `sam2_micro_pretraining`: its crops, augmentation, loss and rounds of
  clicks, {rounds} of them where the base was trained with three. All settings were fixed beforehand; the network after
  the last step is tested.
- The base was trained on the saved images, too. Tuning shows it nothing new: it leaves the other sources out and adds
  a round. The test images of discs and nuclei were never trained on, but chose the base's epoch.
- CT is one volume twice, tuned on the lower slices with a spleen and tested on the upper ones, without the one in the
  middle; it says nothing about other patients. The first (`msd_spleen`) is one that the base has seen whole, test
  slices included; its file holds 8 different slices, each four times, and the spleen is on 5 of them. The second
  (`totalsegmentator_ct`, DICOM) it has not been trained on; its spleen was found by TotalSegmentator, so that the goal
  is agreement with a model.
- Four objects at most of an image, drawn with a fixed seed; the sizes are those of the base's own evaluation.
"""
GOALS = (0.8, 0.9)
TITLES = {
    "nuclei": "nuclei, the last images of DSB 2018's stained tissue",
    "spleen": "spleen, the upper slices of a CT volume that the base has seen",
    "unseen spleen": "spleen, the upper slices of a CT volume that it has not seen",
    "discs": "optic discs, IDRiD 09-12",
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
        steps = f"{result['steps']} of {result['batch']} images"
        cells = [name, result["saved"], steps, result["seconds"], f"{result['trained']:,}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    facts = next(iter(results.values()), {"machine": "", "torch": "", "date": "", "rounds": ""})
    page = HEAD.format(**facts) + "\n".join(lines) + "\n" + TAIL.format(**facts)
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

    figure = Figure(figsize=(3.5 * len(results), 3.4), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for part, style in (("before", "--"), ("after", "-")):
            curve = np.mean([scores for image in result[part] for scores in image], axis=0)
            axes.plot(range(1, len(curve) + 1), curve, style, marker=".", label=f"{part} tuning")
        for goal in GOALS:
            axes.axhline(goal, color="0.8", zorder=0)
        axes.set(title=name, xlabel="clicks", ylabel="mean IoU", ylim=(0.4, 1), xticks=range(0, len(curve) + 1, 4))
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
