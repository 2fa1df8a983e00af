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
"""The command `python -m monai_ext publish`."""

from __future__ import annotations

import argparse

from monai_ext.share.hub import push_bundle
from monai_ext.share.pack_cli import add_evaluation
from monai_ext.share.zoo import copy_to_zoo, zoo_steps


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``publish`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "publish",
        help="check a bundle and put it on the Hugging Face hub, or into a checkout of MONAI's model zoo",
        description="Check a BUNDLE and upload it to the Hugging Face hub with its model card, or copy it into a "
        "checkout of MONAI's model zoo for a pull request.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="its folder")
    places = parser.add_mutually_exclusive_group(required=True)
    places.add_argument("--hf", metavar="OWNER/NAME", help="a repository on the hub; made, private, if there is none")
    places.add_argument("--zoo", metavar="CHECKOUT", help="the folder of a clone of Project-MONAI/model-zoo")
    add_evaluation(parser)
    parser.set_defaults(run=_publish)


def _publish(args: argparse.Namespace) -> int:
    if args.hf is not None:
        print(f"{push_bundle(args.bundle, args.hf, evaluation=args.evaluation)} holds the bundle.")
        return 0
    if args.evaluation is not None:
        raise ValueError("--evaluation is for the model card, which the zoo does not have: leave it out with --zoo.")
    print(f"{copy_to_zoo(args.bundle, args.zoo)} holds the bundle. Next, in {args.zoo}:")
    print(*(f"{number}. {step}" for number, step in enumerate(zoo_steps(args.bundle), 1)), sep="\n")
    return 0
