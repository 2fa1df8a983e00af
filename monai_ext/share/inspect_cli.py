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

"""The command `python -m monai_ext inspect`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from monai_ext.data.atomic import atomic_path
from monai_ext.share.finding import LOOK, OK, REFUSED, Finding, plain
from monai_ext.share.inspection import inspect_bundle

WIDEST = 200


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``inspect``; the parsed arguments' ``run`` takes them and returns the exit code."""
    parser = subparsers.add_parser(
        "inspect",
        help="list what somebody else's bundle would run, read and write",
        description="List what a bundle would import, run, read and write, without running anything of it. Exit code 0 "
        "only if all of it is on the allow-list.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the folder or .zip of a bundle")
    parser.add_argument("--json", metavar="FILE", help="write all findings, also those that are fine")
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    findings = inspect_bundle(args.bundle)
    if args.json is not None:
        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps([asdict(finding) for finding in findings], indent=1), encoding="utf-8")
    for file, found in groupby(_told(findings), key=lambda finding: finding.file):
        print(plain(file))
        for finding in found:
            what = _short(finding.what)
            place = f"{_short(finding.key)}: {what}" if finding.key else what
            print(f"  {finding.level:8} {place}\n{'':11}{_short(finding.why)}")
    counts = Counter(finding.level for finding in findings)
    print(f"{args.bundle}: {counts[REFUSED]} refused, {counts[LOOK]} to look at, {counts[OK]} ok.")
    return int(any(counts[level] for level in (LOOK, REFUSED)))


def _told(findings: Sequence[Finding]) -> list[Finding]:
    """What is not fine, file by file, the worst first."""
    order = {finding.file: number for number, finding in reversed(list(enumerate(findings)))}
    bad = [finding for finding in findings if finding.level != OK]
    return sorted(bad, key=lambda finding: (order[finding.file], finding.level != REFUSED))


def _short(text: str) -> str:
    text = plain(text)
    return text if len(text) <= WIDEST else f"{text[:WIDEST]} ... ({len(text):,} characters)"
