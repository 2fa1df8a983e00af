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


from __future__ import annotations

import argparse

from monai_ext.networks.convert import convert_sam2lora
from monai_ext.networks.download import download_weights
from monai_ext.networks.embedded import EMBEDDED_WEIGHTS, embedded_weights
from monai_ext.networks.sam2 import SIZES
from monai_ext.networks.weights import OFFICIAL_WEIGHTS, find_weights


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``weights`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "weights",
        help="download official SAM 2.1 weights, or list them",
        description="Download official SAM 2.1 weights and check them; an interrupted download continues. "
        "Without NAME, list the names and where their files lie.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"one of {', '.join(OFFICIAL_WEIGHTS)}")
    parser.add_argument(
        "--folder",
        metavar="F",
        help="where to put the file (default: $MONAI_EXT_WEIGHTS if set, else the user's cache)",
    )
    parser.set_defaults(run=_weights)

    parser = subparsers.add_parser(
        "convert",
        help="turn a full SAM2LoRA checkpoint into a small model on an official base",
        description="Turn a full CHECKPOINT of the published SAM2LoRA code into FOLDER/model.pt, which holds what was "
        "trained, adapter.json, and network.json, an overlay for the configs of a bundle.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--size", required=True, choices=tuple(SIZES), help="size of the network")
    parser.add_argument("--weights", required=True, metavar="W", help="the official base: a name or a path")
    parser.add_argument("--label", default="object", metavar="L", help="name of the label (default: object)")
    parser.add_argument("--alpha", type=float, metavar="A", help="of LoRA (default: twice the rank)")
    parser.set_defaults(run=_convert)


def _weights(args: argparse.Namespace) -> int:
    if args.name in EMBEDDED_WEIGHTS:
        print(f"{args.name} comes with the package: {embedded_weights(args.name)}")
        return 0
    if args.name is not None:
        print(download_weights(args.name, args.folder))
        return 0
    if args.folder is not None:
        raise ValueError(f"--folder {args.folder} needs the NAME of the weights to download.")
    for name in EMBEDDED_WEIGHTS:
        path = embedded_weights(name)
        print(f"{name:24}{f'{path.stat().st_size / 1e6:.0f} MB':14}{path}")
    for name, weights in OFFICIAL_WEIGHTS.items():
        try:
            place = str(find_weights(name))
        except FileNotFoundError:
            place = "not downloaded"
        print(f"{name:24}{weights.size:14}{place}")
    return 0


def _convert(args: argparse.Namespace) -> int:
    settings = convert_sam2lora(
        args.checkpoint, args.folder, size=args.size, weights=args.weights, label=args.label, alpha=args.alpha
    )
    rank, others = settings["adapters"][0]["rank"], settings["unfrozen"]
    print(f"{args.folder}/model.pt: LoRA of rank {rank} on {len(settings['adapters'][0]['targets'])} layers.")
    print(f"Other parameters that differ from {args.weights} and were kept: {', '.join(others) or 'none'}.")
    return 0
