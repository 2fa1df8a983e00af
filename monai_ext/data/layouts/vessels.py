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

"""Where public fundus vessel sets, as they are distributed, keep their images, masks and fields of view."""

from __future__ import annotations

from monai_ext.data.picture_layout import PictureLayout, Place

CHASE_DB1 = PictureLayout(
    places=(
        Place("training", "training/images", ("training/mask",), "fov"),
        Place("test", "test/images", ("test/mask",), "fov"),
        Place(None, ".", (".",), "fov"),
    ),
    looks_for="Image_01L.jpg with Image_01L_1stHO.png beside it, or training/ and test/ with images/ and mask/",
    image=r"(Image_\d\d[LR])",
    label=r"(Image_\d\d[LR])_1stHO",
    fov=r"(Image_\d\d[LR])",
    subject=r"Image_(\d\d)[LR]",
    training=r"0\d|10",
    split="none official; children 01-10 train and 11-14 test, the 20 and 8 images of Li et al., IEEE TMI 35(1), 2016",
    source="Fraz et al., IEEE Transactions on Biomedical Engineering 59(9), 2012; the first observer is the truth",
    page="https://researchinnovation.kingston.ac.uk/en/datasets/chasedb1-retinal-vessel-reference-dataset-4/",
    licence="CC BY 4.0",
)

DRIVE = PictureLayout(
    places=(
        Place("training", "training/images", ("training/1st_manual",), "training/mask"),
        Place("test", "test/images", ("test/1st_manual",), "test/mask"),
    ),
    looks_for="training/ and test/ with images/21_training.tif, 1st_manual/21_manual1.gif and mask/",
    image=r"(\d\d)_(?:training|test)",
    label=r"(\d\d)_manual1",
    fov=r"(\d\d)_(?:training|test)_mask",
    subject=r"(\d\d)_(?:training|test)\.",
    split="official; every image is another person, and copies from the challenge's page have no masks for the test",
    source="Staal et al., IEEE Transactions on Medical Imaging 23(4), 2004; the first observer is the truth",
    page="https://drive.grand-challenge.org",
    licence="research and education only, no redistribution",
)

STARE = PictureLayout(
    places=(Place(None, "stare-images", ("labels-ah",)), Place(None, ".", (".",))),
    looks_for="stare-images/im0001.ppm with labels-ah/im0001.ah.ppm, or both in one folder, unpacked",
    image=r"(im\d{4})",
    label=r"(im\d{4})\.ah",
    subject=r"(im\d{4})\.",
    training=r"im(?:000[1-5]|0044|0077|0081|0082|0139)",
    split="none official; the first ten train and the other ten test, as Maninis et al., MICCAI 2016, halve it",
    source="Hoover et al., IEEE Transactions on Medical Imaging 19(3), 2000; the truth is Adam Hoover's",
    page="https://cecas.clemson.edu/~ahoover/stare/",
    licence="none stated",
)

HRF = PictureLayout(
    places=(Place(None, "images", ("manual1", "mask"), "mask"),),
    looks_for="images/01_h.jpg with manual1/01_h.tif and mask/01_h_mask.tif, or with its vessels as mask/01_h.tif",
    image=r"(\d\d_(?:h|dr|g))",
    label=r"(\d\d_(?:h|dr|g))",
    fov=r"(\d\d_(?:h|dr|g))_mask",
    subject=r"(\d\d_(?:h|dr|g))\.",
    training=r"0[1-5]_.+",
    split="none official; the first five of each class train, ten test: Orlando et al., IEEE TBME 64(1), 2017",
    source="Budai et al., International Journal of Biomedical Imaging 2013, 154860",
    page="https://www5.cs.fau.de/research/data/fundus-images/",
    licence="CC BY 4.0",
)

FIVES = PictureLayout(
    places=(
        Place("training", "train/Original", ("train/Ground truth",)),
        Place("test", "test/Original", ("test/Ground truth",)),
    ),
    looks_for="train/ and test/ with Original/1_A.png and Ground truth/1_A.png",
    image=r"(\d+_[ADGN])",
    label=r"(\d+_[ADGN])",
    # The numbers begin again in test/, where they are other people.
    subject=r"(train|test)/Original/(\d+_[ADGN])\.",
    split="official; the set does not say which images show the same person, so each counts as one",
    source="Jin et al., Scientific Data 9:475, 2022",
    page="https://doi.org/10.6084/m9.figshare.19688169",
    licence="CC BY 4.0",
)
