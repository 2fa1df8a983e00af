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

"""How public data sets are arranged as they are distributed: one file for each field, one table of all."""

from __future__ import annotations

from pathlib import Path

from monai_ext.data.dataset_layout import DatasetLayout, Splits, files_below
from monai_ext.data.layouts.discs import DRISHTI_GS, G1020, GRAPE, IDRID, ORIGA, PAPILA, REFUGE
from monai_ext.data.layouts.endoscopy import CHOLECSEG8K
from monai_ext.data.layouts.folders import FOLDERS
from monai_ext.data.layouts.histology import DSB2018, GLAS, MONUSEG
from monai_ext.data.layouts.ultrasound import AUS, RUS
from monai_ext.data.layouts.vessels import CHASE_DB1, DRIVE, FIVES, HRF, STARE
from monai_ext.data.layouts.volumes import BTCV, LITS, MSD, TOTALSEGMENTATOR
from monai_ext.data.layouts.xray import CHESTXDET

LAYOUTS: dict[str, DatasetLayout] = {
    "chase_db1": CHASE_DB1,
    "drive": DRIVE,
    "stare": STARE,
    "hrf": HRF,
    "fives": FIVES,
    "drishti_gs": DRISHTI_GS,
    "g1020": G1020,
    "grape": GRAPE,
    "idrid": IDRID,
    "origa": ORIGA,
    "papila": PAPILA,
    "refuge": REFUGE,
    "dsb2018": DSB2018,
    "glas": GLAS,
    "monuseg": MONUSEG,
    "btcv": BTCV,
    "lits": LITS,
    "msd": MSD,
    "totalsegmentator": TOTALSEGMENTATOR,
    "cholecseg8k": CHOLECSEG8K,
    "aus": AUS,
    "rus": RUS,
    "chestxdet": CHESTXDET,
    "folders": FOLDERS,
}


def find_records(root: Path, layout: str | None = None, subject: str | None = None) -> tuple[str, Splits]:
    """
    List the images and masks of a folder: by the named layout, or by the one that pairs the most of them.

    Args:
        root: the folder of the data set.
        layout: a key of ``LAYOUTS``, or None to recognise it.
        subject: regular expression for the person in an image's path, in place of the layout's own.

    Returns:
        The layout's name, and its records as ``training``, ``validation`` and ``test``.

    Raises:
        ValueError: no such layout, or nothing of it below ``root``.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}, not {layout!r}.")
    best: tuple[int, str, Splits] | None = None
    paths = files_below(root)
    refused: list[ValueError] = []
    for name in [layout] if layout else LAYOUTS:
        try:
            found = LAYOUTS[name].find(root, subject, paths)
        except ValueError as error:
            refused.append(error)
            continue
        records = [record for split in found.values() for record in split if "image" in record]
        pairs = sum("label" in record for record in records)
        if records and (best is None or pairs > best[0]):
            best = pairs, name, found
    # What one layout refuses says nothing about a set that another one knows.
    if refused and (best is None or not best[0]):
        raise refused[0]
    if best is None:
        tried = {layout: LAYOUTS[layout]} if layout else LAYOUTS
        looked = "".join(f"\n  {name}: {entry.looks_for}" for name, entry in tried.items())
        raise ValueError(f"{root} holds no images that we know how to find. Arrange it as one of:{looked}")
    return best[1], best[2]
