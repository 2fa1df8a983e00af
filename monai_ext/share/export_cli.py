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

from monai_ext.share.export import export_bundle
from monai_ext.share.formats import FORMATS


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``export`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "export",
        help="write a bundle's network, adapters merged, as weights, TorchScript, torch.export or ONNX",
        description="Write the network of BUNDLE, its adapters merged, in formats that other programs run. Each file "
        "is compared with the network on a real image; one that differs is not left behind.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument(
        "--format", nargs="+", default=list(FORMATS), metavar="F", help=f"of {', '.join(FORMATS)} (default: all)"
    )
    parser.add_argument("--output", metavar="FOLDER", help="where to put the files (default: export in the bundle)")
    parser.add_argument("--checkpoint", metavar="M", help="the model (default: models/model.pt in the bundle)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="height and width it takes (default: the bundle's window)"
    )
    parser.add_argument("--image", metavar="I", help="what is compared on (default: a photograph of a retina)")
    parser.set_defaults(run=_export_all)


def _export_all(args: argparse.Namespace) -> int:
    export_bundle(
        args.bundle,
        args.output,
        formats=args.format,
        checkpoint=args.checkpoint,
        size=None if args.size is None else (args.size[0], args.size[1]),
        image=args.image,
        tell=print,
    )
    return 0
