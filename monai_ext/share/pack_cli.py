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
"""The command `python -m monai_ext pack`."""

from __future__ import annotations

import argparse

from monai_ext.share.pack import pack_bundle


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``pack`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "pack",
        help="check a bundle and write it as one zip file with a model card",
        description="Check a BUNDLE and write NAME_vVERSION.zip, with a model card in it, and its sha256 beside it. "
        "The same bundle gives the same bytes.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="its folder")
    parser.add_argument("--output", metavar="FOLDER", default=".", help="where to write (default: here)")
    add_evaluation(parser)
    parser.set_defaults(run=_pack)


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--evaluation`` of all commands that write a model card."""
    parser.add_argument(
        "--evaluation",
        metavar="FILE",
        help="summary_automatic.json of an evaluation, for the model card (default: eval_metrics of metadata.json)",
    )


def _pack(args: argparse.Namespace) -> int:
    path = pack_bundle(args.bundle, args.output, evaluation=args.evaluation)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB) and {path.name}.sha256 are written.")
    return 0
