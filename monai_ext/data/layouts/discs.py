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

"""Where public sets of optic discs and cups, as they are distributed, keep their images and masks."""

from __future__ import annotations

from monai_ext.data.masks import ContourMask, FileMask, LabelmeMask, MatlabMask, ValueMask
from monai_ext.data.path_layout import PathLayout, SplitTable

DRISHTI_GS = PathLayout(
    # Newer copies sort the images into folders by diagnosis; some rename Test_GT to GT.
    image=r"(?:.*/)?Images/(?:[^/]+/)?(drishtiGS_\d+)\.png",
    labels=(
        r"(?:.*/)?(?:Test_)?GT/(drishtiGS_\d+)/SoftMap/drishtiGS_\d+_ODsegSoftmap\.png",
        r"(?:.*/)?(?:Test_)?GT/(drishtiGS_\d+)/SoftMap/drishtiGS_\d+_cupsegSoftmap\.png",
    ),
    # Four experts in steps of a quarter, 0 to 255: more than half are three. SAM2LoRA's code counts two.
    masks=FileMask(patterns={"optic disc": "_ODseg", "optic cup": "_cupseg"}, above=128),
    looks_for="Training/ and Test/ with Images/ and GT/ or Test_GT/drishtiGS_001/SoftMap/",
    subject=r"(drishtiGS_\d+)\.",
    splits={"training": "(^|/)Training", "test": "(^|/)Test"},
    split="official; the set does not tell persons, so each image counts as one",
    source="Sivaswamy et al., IEEE ISBI 2014; the truth is where three of the four experts agree",
    page="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
    licence="none stated",
)

G1020 = PathLayout(
    # Other copies add Images_Cropped/ and Images_Square/, in which the polygons do not fit.
    image=r"(?:(?:.*/)?(?:Images|G1020)/)?(image_\d+)\.jpg",
    labels=(r"(?:(?:.*/)?(?:Images|G1020)/)?(image_\d+)\.json",),
    # discLoc is a box around the disc.
    masks=LabelmeMask(shapes={"optic disc": "disc", "optic cup": "cup"}, ignored=("discLoc",)),
    looks_for="Images/image_0.jpg with image_0.json beside it",
    subject=r"(image_\d+)\.",
    split="none official; which of its 432 persons an image shows is not told, so nothing is held out to test",
    source="Bajwa et al., IJCNN 2020, arXiv 2006.09158; images without a polygon for the cup have none",
    page="https://arxiv.org/abs/2006.09158",
    licence="none stated",
)

GRAPE = PathLayout(
    # The polygons are in pixels of the cut-out, whose place in the full photograph is not published.
    image=r"(?:.*/)?ROI images/(\d+_O[DS]_\d+)\.jpg",
    labels=(r"(?:.*/)?json/(\d+_O[DS]_\d+)\.json",),
    masks=LabelmeMask(shapes={"optic disc": "OD", "optic cup": "OC"}),
    looks_for="ROI images/1_OD_1.jpg with json/1_OD_1.json, unpacked",
    subject=r"(\d+)_O[DS]_\d+\.",
    training=r"\d|\d\d|10[0-8]",
    split="none official; subjects 1-108 train and 109-144 test, a quarter as in SAM2LoRA, which divides by image",
    source="Huang et al., Scientific Data 10:520, 2023",
    page="https://doi.org/10.6084/m9.figshare.c.6406319",
    licence="CC BY 4.0 in the paper, CC0 beside the files",
)

IDRID = PathLayout(
    image=r"(?:.*/)?(?:[ab]\. (?:Training|Testing) Set|images)/(IDRiD_\d\d)\.jpg",
    labels=(r"(?:.*/)?(?:5\. Optic Disc|masks)/(IDRiD_\d\d)_OD\.tif",),
    masks=FileMask(patterns={"optic disc": "_OD"}),
    looks_for="A. Segmentation/ with its numbered folders, or images/IDRiD_01.jpg with masks/IDRiD_01_OD.tif",
    subject=r"(IDRiD_\d\d)\.",
    training=r"IDRiD_(?:0[1-9]|[1-4]\d|5[0-4])",
    split="official, 01-54 train and 55-81 test; the set does not tell persons, so each image counts as one",
    source="Porwal et al., Data 3(3):25, 2018",
    page="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    licence="CC BY 4.0",
)

ORIGA = PathLayout(
    image=r"(?:.*/)?[Ii]mages/(\d{3})\.jpg",
    labels=(r"(?:.*/)?(?:manual marking|Semi-automatic-annotations[^/]*)/(\d{3})\.mat",),
    masks=MatlabMask(variable="mask", values={"optic disc": [1, 2], "optic cup": [2]}),
    looks_for="Images/001.jpg with Semi-automatic-annotations/001.mat or manual marking/001.mat, and OrigaList.csv",
    subject=r"(\d{3})\.",
    split_table=SplitTable(r"(?:.*/)?OrigaList\.csv", "Filename", "Set", {"A": "training", "B": "test"}),
    split="official, set A trains and B tests by OrigaList.csv, without which all train; persons are not told",
    source="Zhang et al., IEEE EMBC 2010",
    page="https://doi.org/10.1109/IEMBS.2010.5626137",
    licence="research only, on request; no longer handed out",
)

PAPILA = PathLayout(
    image=r"(?:.*/)?FundusImages/(RET\d{3}O[DS])\.jpg",
    # Some contours lie there twice, as "... 2.txt", copies of the same.
    labels=(
        r"(?:.*/)?ExpertsSegmentations/Contours/(RET\d{3}O[DS])_disc_exp1\.txt",
        r"(?:.*/)?ExpertsSegmentations/Contours/(RET\d{3}O[DS])_cup_exp1\.txt",
    ),
    masks=ContourMask(patterns={"optic disc": "_disc_", "optic cup": "_cup_"}),
    looks_for="FundusImages/RET002OD.jpg with ExpertsSegmentations/Contours/RET002OD_disc_exp1.txt",
    subject=r"RET(\d{3})O[DS]\.",
    training=r"\d\d[1-46-9]",
    split="none official; patients whose number ends in 0 or 5 test, the others train, both eyes together",
    source="Kovalyk et al., Scientific Data 9:291, 2022; the first expert is the truth",
    page="https://doi.org/10.6084/m9.figshare.14798004",
    licence="GPL 3.0 or later",
)

REFUGE = PathLayout(
    image=(r"(?:.*/)?(?:(?:REFUGE-)?(?:Training|Validation|Test)400(?:/[^/]+)?|[Ii]mages)/([gnVT]\d{4})\.jpg"),
    # Masks/ of some copies have other values; gts/ beside it has the original ones.
    labels=(r"(?:.*/)?(?:Disc_Cup_Masks(?:/[^/]+)?|mask|gts)/([gnVT]\d{4})\.(?:bmp|png)",),
    masks=ValueMask(values={"optic disc": [0, 128], "optic cup": [0]}, others=[255]),
    looks_for="Training400/Glaucoma/g0001.jpg with Disc_Cup_Masks/Glaucoma/g0001.bmp, or train/images/ and mask/",
    subject=r"([gnVT]\d{4})\.",
    training=r"[gn].+",
    validation=r"V.+",
    split="official, 400 images each to train, validate and test; persons are not told, so each image counts as one",
    source="Orlando et al., Medical Image Analysis 59:101570, 2020",
    page="https://refuge.grand-challenge.org",
    licence="the challenge's terms",
)
