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

"""Where public sets of tissue and cells, as they are distributed, keep their images and masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_ext.data.dataset_layout import Record
from monai_ext.data.masks import FileMask, ImageScopeMask
from monai_ext.data.path_layout import PathLayout
from monai_ext.data.tables import read_column


@dataclass(frozen=True, kw_only=True)
class GradedLayout(PathLayout):
    """GlaS: ``Grade.csv`` tells the patients, who cross the official split and count as others in each part of it."""

    def records(self, root: Path, paths: Sequence[str]) -> Iterator[tuple[str | None, Record]]:
        found = list(super().records(root, paths))
        file = next((path for path in paths if re.fullmatch(r"(?:.*/)?Grade\.csv", path)), None)
        patients = read_column(root / file, "name", "patient ID") if found and file else {}
        for split, record in found:
            patient = patients.get(Path(record.get("image", "")).stem)
            yield split, {**record, "subject": f"{split}-{patient}"} if patient else record


GLAS = GradedLayout(
    image=r"(?:.*/)?((?:train|testA|testB)_\d+)\.bmp",
    labels=(r"(?:.*/)?((?:train|testA|testB)_\d+)_anno\.bmp",),
    masks=FileMask(patterns={"gland": ""}),
    looks_for="train_1.bmp with train_1_anno.bmp, testA_1.bmp, testB_1.bmp, and Grade.csv",
    subject=r"((?:train|testA|testB)_\d+)\.",
    splits={"training": r"(^|/)train_\d+\.", "test": r"(^|/)test[AB]_\d+\."},
    split="official, A and B test; patients who train are in the test, too, but none is in training and validation",
    source="Sirinukunwattana et al., Medical Image Analysis 35, 2017",
    page="https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
    licence="non-commercial research",
)

MONUSEG = PathLayout(
    image=r"(?:.*/)?(TCGA-[^/]+)\.tif",
    labels=(r"(?:.*/)?(TCGA-[^/]+)\.xml",),
    masks=ImageScopeMask(label="nucleus"),
    looks_for="Tissue Images/TCGA-A7-A13E-01Z-00-DX1.tif with Annotations/ (.xml), or .tif and .xml in one folder",
    subject=r"(TCGA-\w\w-\w{4})",
    training=(
        r"TCGA-(?!2Z-A9J9|44-2665|69-7764|A6-6782|AC-A2FO|AO-A0J2|CU-A0YN|EJ-A46H|FG-A4MU|GL-6846|HC-7209|HT-8564"
        r"|IZ-8196|ZF-A9R5).+"
    ),
    split="official, by the 14 patients of the challenge's test; the first fields of a name are the patient",
    source="Kumar et al., IEEE Transactions on Medical Imaging 39(5), 2020",
    page="https://monuseg.grand-challenge.org/Data/",
    licence="CC BY-NC-SA 4.0",
)

DSB2018 = PathLayout(
    image=r"(?:.*/)?([0-9a-f]{64})/images/[0-9a-f]{64}\.png",
    # A corrected copy has masks of other names.
    labels=(r"(?:.*/)?([0-9a-f]{64})/masks/[^/]+\.png",),
    masks=FileMask(patterns={"nucleus": ""}),
    looks_for="a folder for each image, named by 64 letters and digits, with images/ and a mask per nucleus in masks/",
    subject=r"([0-9a-f]{64})\.png",
    split="none official with masks, so nothing is held out to test; which images show one tissue is not told",
    source="Caicedo et al., Nature Methods 16, 2019",
    page="https://bbbc.broadinstitute.org/BBBC038",
    licence="CC0",
)
