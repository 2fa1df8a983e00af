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
"""The command `python -m monai_ext check`."""

from __future__ import annotations

import argparse

from monai_ext.share.checks import check_bundle
from monai_ext.share.problem import problem_table


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``check`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "check",
        help="say all that is wrong with a bundle by the rules of MONAI's model zoo",
        description="Check files, metadata, configs and model of a BUNDLE by the rules of MONAI's model zoo. The code "
        "that its configs name is run: check only bundles that you trust.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="its folder")
    parser.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    problems = check_bundle(args.bundle)
    if problems:
        print(problem_table(problems))
        return 1
    print(f"{args.bundle} is in order.")
    return 0
