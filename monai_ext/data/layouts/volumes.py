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

"""Where public sets of CT volumes, as they are distributed, keep their images and masks."""

from __future__ import annotations

from monai_ext.data.masks import DecathlonMask, FileMask, ValueMask
from monai_ext.data.path_layout import PathLayout, SplitTable

MSD = PathLayout(
    image=r"((?:.*/)?)imagesTr/([^/]+)\.nii(?:\.gz)?",
    labels=(r"((?:.*/)?)labelsTr/([^/]+)\.nii(?:\.gz)?", r"((?:.*/)?)dataset\.json"),
    masks=DecathlonMask(),
    looks_for="imagesTr/ and labelsTr/ with volumes of the same names (.nii.gz), and dataset.json",
    subject=r"([^/]+)\.nii(?:\.gz)?$",
    split="the official test has no masks, so nothing is held out to test; every volume counts as one person",
    source="Antonelli et al., Nature Communications 13:4128, 2022",
    page="https://doi.org/10.1038/s41467-022-30695-9",
    licence="CC BY-SA 4.0",
)

LITS = PathLayout(
    image=r"(?:.*/)?volume-(\d+)\.nii(?:\.gz)?",
    labels=(r"(?:.*/)?segmentation-(\d+)\.nii(?:\.gz)?",),
    masks=ValueMask(values={"liver": [1, 2], "tumour": [2]}),
    looks_for="volume-0.nii with segmentation-0.nii, beside it or in another folder",
    subject=r"volume-(\d+)\.",
    split="the official test has no masks, so nothing is held out to test; the same volumes are MSD's Task03_Liver",
    source="Bilic et al., Medical Image Analysis 84:102680, 2023",
    page="https://competitions.codalab.org/competitions/17094",
    licence="CC BY-NC-ND 4.0 or CC BY-NC-SA 4.0, listings differ",
)

BTCV = PathLayout(
    image=r"(?:(?:.*/)?Training/)?img/img(\d{4})\.nii\.gz",
    labels=(r"(?:(?:.*/)?Training/)?label/label(\d{4})\.nii\.gz",),
    masks=ValueMask(
        values={
            "spleen": [1],
            "right kidney": [2],
            "left kidney": [3],
            "gallbladder": [4],
            "esophagus": [5],
            "liver": [6],
            "stomach": [7],
            "aorta": [8],
            "inferior vena cava": [9],
            "portal vein and splenic vein": [10],
            "pancreas": [11],
            "right adrenal gland": [12],
            "left adrenal gland": [13],
        }
    ),
    looks_for="Training/img/img0001.nii.gz with Training/label/label0001.nii.gz",
    subject=r"img(\d{4})\.",
    training=r"(?!000[12348]|002[259]|003[2568]).+",
    split="none official with masks; 18 train and 12 test as in TransUNet (Chen et al., arXiv 2102.04306)",
    source="Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015",
    page="https://www.synapse.org/Synapse:syn3193805",
    licence="the terms of Synapse, on registration",
)

TOTALSEGMENTATOR = PathLayout(
    image=r"(?:.*/)?(s\d{4})/ct\.nii\.gz",
    labels=(r"(?:.*/)?(s\d{4})/segmentations/[^/]+\.nii\.gz",),
    masks=FileMask(),
    looks_for="s0000/ct.nii.gz with s0000/segmentations/liver.nii.gz and so on, and meta.csv",
    subject=r"(s\d{4})/ct",
    split_table=SplitTable(
        r"(?:.*/)?meta\.csv", "image_id", "split", {"train": "training", "val": "validation", "test": "test"}
    ),
    split="official by meta.csv, without which all train; every volume counts as one person",
    source="Wasserthal et al., Radiology: Artificial Intelligence 5(5), 2023; made with a model, corrected by people",
    page="https://doi.org/10.5281/zenodo.6802613",
    licence="CC BY 4.0",
)
