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
The design's numbers to hold, measured: ``python -m tests.benchmarks [name ...]``.

Prints Markdown tables and writes the single results to ``runs/benchmarks/<name>.json``.
"""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

from . import adapters, clicks, export, inference, lora, start
from .compare import ROOT, Settings, as_markdown, run_turns, save, serve

BENCHMARKS = lora.BENCHMARKS | adapters.BENCHMARKS | inference.BENCHMARKS | clicks.BENCHMARKS
BENCHMARKS |= export.BENCHMARKS | start.BENCHMARKS


def main() -> int:
    arguments = _arguments()
    settings = Settings(quick=arguments.quick, model=arguments.model, threads=arguments.threads)
    if arguments.child:
        serve(BENCHMARKS[arguments.names[0]], arguments.child, settings)
        return 0
    print(", ".join(f"{key}: {value}" for key, value in _machine().items()) + f", threads: {settings.threads}\n")
    for name in arguments.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        results = run_turns(name, benchmark, settings)
        record = {"title": benchmark.title, "machine": _machine(), "settings": asdict(settings), "turns": results}
        save(ROOT / "runs" / "benchmarks" / f"{name}.json", record)
        print(as_markdown(benchmark, results), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[1])
    parser.add_argument("names", nargs="*", metavar="name", help=f"default: all of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="only try out that everything works; figures mean nothing")
    parser.add_argument("--model", help="a trained micro network's model.pt, for the whole-image rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", metavar="VARIANT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"name must be one of {', '.join(BENCHMARKS)}, not {', '.join(sorted(unknown))}")
    return arguments


def _machine() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    packages = {name: version(name) for name in ("torch", "monai", "peft")}
    return {"date": str(date.today()), "processor": processor or platform.processor(), **packages}


if __name__ == "__main__":
    sys.exit(main())
