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
Variants side by side, each in a process of its own, of which one works at a time: A B A B.

A ratio is taken within a turn, seconds apart, so that a machine that is slower for a while slows both. Nothing heavy
is imported here: on Linux a child's peak memory starts at its parent's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

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
    """Between what limits a variant's figure must lie, alone or compared with another variant's of the same turn."""

    figure: str
    of: str
    most: float
    least: float | None = None
    against: str | None = None
    difference: bool = False

    def compare(self, turn: dict[str, Figures]) -> float:
        value = turn[self.of][self.figure]
        if self.against is None:
            return value
        other = turn[self.against][self.figure]
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
    """
    One row of the design's numbers.

    ``prepare`` is called in a variant's own process and gives a function that measures once.
    """

    title: str
    variants: tuple[str, ...]
    prepare: Callable[[str, Settings], Callable[[], Figures]]
    bounds: tuple[Bound, ...]
    processes: int = 3
    turns: int = 8


def run_turns(name: str, benchmark: Benchmark, settings: Settings) -> list[dict[str, Figures]]:
    """Figures of all variants, turn by turn; shows each turn on the terminal as it comes."""
    results: list[dict[str, Figures]] = []
    processes, turns = (1, 1) if settings.quick else (benchmark.processes, benchmark.turns)
    for _ in range(processes):
        with ExitStack() as stack:
            children = {v: stack.enter_context(_Child(name, v, settings)) for v in benchmark.variants}
            for _ in range(turns):
                results.append({variant: child.measure() for variant, child in children.items()})
                shown = ", ".join(f"{v} {next(iter(figures.values())):.4g}" for v, figures in results[-1].items())
                sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name} {len(results)}/{processes * turns}: {shown}\n")
    return results


class _Child:
    """A process that has prepared one variant and measures it when told."""

    def __init__(self, name: str, variant: str, settings: Settings) -> None:
        command = [sys.executable, "-m", "tests.benchmarks", name, "--child", variant]
        command += ["--threads", str(settings.threads), *(["--quick"] if settings.quick else [])]
        command += ["--model", settings.model] if settings.model else []
        # Threads that wait must not spin: the next variant's turn has begun.
        threads = {"OMP_NUM_THREADS": str(settings.threads), "OMP_WAIT_POLICY": "passive"}
        self.what = f"{name}, {variant}"
        self.errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | threads, text=True, **pipes)
        self._read()

    def measure(self) -> Figures:
        self.process.stdin.write("\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self._read()

    def _read(self) -> Figures:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{self.what} failed:\n{self.errors.read()}")
        return json.loads(line)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its input, which ends it
        self.errors.close()


def serve(benchmark: Benchmark, variant: str, settings: Settings) -> None:
    """The child's side."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    measure = benchmark.prepare(variant, settings)
    answers.write("{}\n")
    answers.flush()
    for _ in sys.stdin:
        answers.write(json.dumps(measure()) + "\n")
        answers.flush()


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


def seconds_of(call: Callable[[], object]) -> float:
    """Wall-clock time."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
