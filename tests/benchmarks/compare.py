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
Variants side by side, each in a process of its own, one after the other, in rounds: A B A B.

A ratio is taken within a round, so that a machine that is slower for a while slows both. Nothing heavy is imported
here: on Linux a child's peak memory starts at its parent's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
Figures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """What holds for all measurements of a run; ``quick`` only tries out that they work."""

    quick: bool = False
    model: str | None = None
    threads: int = 2


@dataclass(frozen=True)
class Bound:
    """Between what limits a variant's figure must lie, alone or compared with another variant's of the same round."""

    figure: str
    of: str
    most: float
    least: float | None = None
    against: str | None = None
    difference: bool = False

    def compare(self, one_round: dict[str, Figures]) -> float:
        value = one_round[self.of][self.figure]
        if self.against is None:
            return value
        other = one_round[self.against][self.figure]
        return abs(value - other) if self.difference else value / other

    def holds(self, value: float) -> bool:
        return value <= self.most and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        sign = "-" if self.difference else "/"
        subject = self.of if self.against is None else f"{self.of} {sign} {self.against}"
        limits = f"≤ {self.most:g}" if self.least is None else f"{self.least:g} … {self.most:g}"
        return f"{self.figure}, {subject} | {limits}"


@dataclass(frozen=True)
class Benchmark:
    """One row of the design's numbers: ``measure`` gives a variant's figures, called in the variant's own process."""

    title: str
    variants: tuple[str, ...]
    measure: Callable[[str, Settings], Figures]
    bounds: tuple[Bound, ...]
    rounds: int = 5


def run_rounds(name: str, benchmark: Benchmark, settings: Settings, rounds: int) -> list[dict[str, Figures]]:
    """All variants in turn, ``rounds`` times; shows each result on the terminal as it comes."""
    results: list[dict[str, Figures]] = []
    for number in range(rounds):
        results.append({})
        for variant in benchmark.variants:
            figures = results[-1][variant] = _run_child(name, variant, settings)
            shown = ", ".join(f"{value:.4g} {figure}" for figure, value in figures.items())
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name} {number + 1}/{rounds} {variant}: {shown}\n")
    return results


def _run_child(name: str, variant: str, settings: Settings) -> Figures:
    command = [sys.executable, "-m", "tests.benchmarks", "--child", variant, "--threads", str(settings.threads), name]
    command += ["--quick"] * settings.quick + (["--model", settings.model] if settings.model else [])
    threads = {key: str(settings.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{name}, {variant} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def as_markdown(benchmark: Benchmark, results: list[dict[str, Figures]]) -> str:
    """Two tables: the figures of the variants, and what was asked of them."""
    lines = [f"### {benchmark.title}", "", "| variant | " + " | ".join(results[0][benchmark.variants[0]]) + " |"]
    lines.append("|---" * (lines[-1].count("|") - 1) + "|")
    for variant in benchmark.variants:
        cells = [spread([one[variant][figure] for one in results]) for figure in results[0][variant]]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    lines += ["", "| asked | bound | measured | |", "|---|---|---|---|"]
    for bound in benchmark.bounds:
        values = [bound.compare(one) for one in results]
        lines.append(f"| {bound} | {spread(values)} | {'held' if bound.holds(median(values)) else '**missed**'} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Median, and from where to where the values lie."""
    if min(values) == max(values):
        return f"{values[0]:.4g}"
    return f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def save(path: Path, content: object) -> None:
    # Not `monai_ext.data.atomic_path`: it would bring torch into this process.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def median_seconds(call: Callable[[], object], *, calls: int, warm_up: int = 2) -> float:
    """Wall-clock time of one call."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)
