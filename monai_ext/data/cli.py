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

"""The commands `python -m monai_ext data check | sheet | list | phantoms`."""

from __future__ import annotations

import argparse

from monai_ext.data.check import examine_data
from monai_ext.data.layouts import LAYOUTS
from monai_ext.data.splits import SegmentationData, write_datalist


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``data``; the parsed arguments' ``run`` takes them and returns the exit code."""
    data = subparsers.add_parser("data", help="check images and masks, list them, make synthetic ones")
    commands = data.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="say in sentences what is wrong with a data set")
    _add_source(check)
    _add_labels(check)
    check.set_defaults(run=_check)

    sheet = commands.add_parser("sheet", help="draw images with their masks on one sheet")
    _add_source(sheet)
    sheet.add_argument("out", metavar="OUT.png", help="the picture to write")
    _add_labels(sheet)
    sheet.add_argument("--count", type=int, default=24, help="images to draw, spread over all (default: 24)")
    sheet.set_defaults(run=_sheet)

    listing = commands.add_parser("list", help="write a MONAI datalist with training, validation and test")
    _add_source(listing)
    listing.add_argument("out", metavar="OUT.json", help="the datalist to write; its paths are relative to its folder")
    listing.add_argument(
        "--validation", type=float, default=0.2, help="share of the training subjects to hold out (default: 0.2)"
    )
    listing.set_defaults(run=_list)

    phantoms = commands.add_parser("phantoms", help="draw synthetic fundus images with exact vessel masks")
    phantoms.add_argument("folder", metavar="FOLDER", help="the folder to make")
    phantoms.add_argument("--count", type=int, default=20, help="number of images (default: 20)")
    phantoms.add_argument("--size", type=int, default=512, help="pixels on a side (default: 512)")
    phantoms.add_argument("--seed", type=int, default=0, help="another seed draws other images (default: 0)")
    phantoms.set_defaults(run=_phantoms)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a folder of images and masks, or a MONAI datalist (JSON)")
    parser.add_argument("--layout", choices=LAYOUTS, help="how the folder is arranged (default: recognised)")
    parser.add_argument(
        "--subject", metavar="REGEX", help="finds the person in an image's path below FOLDER (default: the layout's)"
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="NAME", help="names of one's own labels; the public sets know theirs"
    )


def _check(args: argparse.Namespace) -> int:
    problems, shown = examine_data(args.folder, layout=args.layout, subject=args.subject, labels=args.labels)
    if problems:
        print(*problems, sep="\n")
        return 1
    data = SegmentationData(root=args.folder, layout=args.layout, validation=0, subject=args.subject)
    print(f"{args.folder} is in order: {_counts(data)}.")
    if shown:
        print(f"Images that show it: {', '.join(f'{name} {count}' for name, count in shown.items())}.")
    return 0


def _sheet(args: argparse.Namespace) -> int:
    from monai_ext.data.sheet import write_sheet

    problems = write_sheet(
        args.folder, args.out, layout=args.layout, subject=args.subject, labels=args.labels, count=args.count
    )
    print(f"{args.out} shows images of {args.folder}.", *problems, sep="\n")
    return 1 if problems else 0


def _list(args: argparse.Namespace) -> int:
    data = SegmentationData(root=args.folder, layout=args.layout, validation=args.validation, subject=args.subject)
    write_datalist(data, args.out)
    print(f"{args.out} lists {_counts(data)}.")
    return 0


def _phantoms(args: argparse.Namespace) -> int:
    from monai_ext.data.phantom import write_phantoms

    write_phantoms(args.folder, count=args.count, size=args.size, seed=args.seed)
    print(f"{args.folder} holds {args.count} synthetic images with masks.")
    return 0


def _counts(data: SegmentationData) -> str:
    splits = (("training", data.training), ("validation", data.validation), ("test", data.test))
    counts = ", ".join(f"{len(records)} for {name}" for name, records in splits)
    return f"{sum(len(records) for _, records in splits)} images with masks ({data.layout}), {counts}"
