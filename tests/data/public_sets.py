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

"""Small copies of public sets in the arrangement they are distributed in, each with shapes at known places."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from PIL import Image

W, H, D = 80, 64, 3
# The larger square x 10..49, y 8..39; the smaller one in it, x 20..29, y 16..25; both with their last pixels.
OUTER, INNER = (10, 8, 49, 39), (20, 16, 29, 25)


def square(box: tuple[int, int, int, int]) -> np.ndarray:
    """``(H, W)`` booleans."""
    mask = np.zeros((H, W), bool)
    mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
    return mask


def corners(box: tuple[int, int, int, int]) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def picture(path: Path) -> None:
    seed = sum(str(path).encode()) + 257 * len(path.name)
    save(np.random.default_rng([seed, *str(path).encode()]).integers(0, 255, (H, W, 3), dtype=np.uint8), path)


def save(pixels: np.ndarray, path: Path, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def text(content: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")


def values(outer: int, inner: int, ground: int = 0) -> np.ndarray:
    return np.where(square(INNER), inner, np.where(square(OUTER), outer, ground)).astype(np.uint8)


def volume(plane: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.repeat(plane.T[..., None], D, axis=-1)
    nibabel.save(nibabel.Nifti1Image(stack, np.diag([-1.0, -1.0, 3.0, 1.0])), path)


def scan(path: Path) -> None:
    rng = np.random.default_rng(list(str(path).encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(-1000, 1000, (W, H, D)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(pixels, np.diag([-1.0, -1.0, 3.0, 1.0])), path)


def drishti(root: Path) -> None:
    for split, truth, folder, numbers in (
        ("Training", "GT", "Images", (2, 4)),
        ("Test", "Test_GT", "Images/GLAUCOMA", (1, 3, 5)),
    ):
        for n in numbers:
            base = root / "Drishti-GS1_files" / split
            picture(base / folder / f"drishtiGS_{n:03}.png")
            maps = base / truth / f"drishtiGS_{n:03}/SoftMap/drishtiGS_{n:03}"
            # Two of the four experts mark a frame more, three the square.
            frame = np.where(square((5, 5, 60, 50)), 128, 0)
            save(np.maximum(frame, 191 * square(OUTER)).astype(np.uint8), Path(f"{maps}_ODsegSoftmap.png"))
            save(np.maximum(frame, 255 * square(INNER)).astype(np.uint8), Path(f"{maps}_cupsegSoftmap.png"))
            text("1 2", base / truth / f"drishtiGS_{n:03}/AvgBoundary/drishtiGS_{n:03}_diskCenter.txt")


def labelme(shapes: dict[str, list[list[float]]], **more: object) -> str:
    return json.dumps({"shapes": [{"label": name, "points": points} for name, points in shapes.items()], **more})


def g1020(root: Path) -> None:
    for n in (0, 10, 11):
        shapes = {"disc": corners(OUTER), "cup": corners(INNER), "discLoc": corners((0, 0, 60, 50))}
        picture(root / "G1020/Images" / f"image_{n}.jpg")
        text(labelme(shapes, imageData=None), root / "G1020/Images" / f"image_{n}.json")
        picture(root / "G1020/Images_Square" / f"image_{n}.jpg")
    text("imageID,binaryLabels\nimage_0.jpg,0\n", root / "G1020/G1020.csv")


def grape(root: Path) -> None:
    for name in ("1_OD_1", "1_OS_2", "2_OD_1", "109_OD_1", "144_OS_3"):
        picture(root / "CFPs" / f"{name}.jpg")
        picture(root / "ROI images" / f"{name}.jpg")
        shapes = {"OC": corners(INNER), "OD": corners(OUTER)}
        text(labelme(shapes, imageWidth=W, imageHeight=H), root / "json" / f"{name}.json")


def idrid(root: Path) -> None:
    for split, numbers in (("a. Training Set", (1, 54)), ("b. Testing Set", (55,))):
        for n in numbers:
            picture(root / "A. Segmentation/1. Original Images" / split / f"IDRiD_{n:02}.jpg")
            truth = root / "A. Segmentation/2. All Segmentation Groundtruths" / split
            save(square(OUTER), truth / "5. Optic Disc" / f"IDRiD_{n:02}_OD.tif")
            save(square(INNER), truth / "1. Microaneurysms" / f"IDRiD_{n:02}_MA.tif")


def origa(root: Path) -> None:
    from scipy.io import savemat

    for n in (1, 2, 3):
        picture(root / "ORIGA/Images" / f"{n:03}.jpg")
        picture(root / "ORIGA/Images_Square" / f"{n:03}.jpg")
        save(values(1, 2), root / "ORIGA/Masks" / f"{n:03}.png")
        file = root / "ORIGA/Semi-automatic-annotations" / f"{n:03}.mat"
        file.parent.mkdir(exist_ok=True)
        savemat(file, {"mask": values(1, 2)})
    text(
        "Eye,Filename,ExpCDR,Set,Glaucoma\nOD,001.jpg,.7,A,0\nOS,002.jpg,.6,B,0\nOD,003.jpg,.5,A,1\n",
        root / "ORIGA/OrigaList.csv",
    )


def papila(root: Path) -> None:
    base = root / "PapilaDB-PAPILA-17f8fa7746adb20275b5b6a0d99dc9dfe3007e9f"
    for name in ("RET002OD", "RET002OS", "RET004OD", "RET010OD", "RET010OS"):
        picture(base / "FundusImages" / f"{name}.jpg")
        for label, box in (("disc", OUTER), ("cup", INNER)):
            for expert in (1, 2):
                moved = tuple(np.array(box) + 5 * (expert - 1))
                lines = "".join(f"   {x:.7e}   {y:.7e}\n" for x, y in corners(moved))
                text(lines, base / "ExpertsSegmentations/Contours" / f"{name}_{label}_exp{expert}.txt")
        text("0 0\n", base / "ExpertsSegmentations/Contours" / f"{name}_cup_exp1 2.txt")
        picture(base / "ExpertsSegmentations/ImagesWithContours" / f"Opht_cont_{name}.jpg")


def refuge(root: Path) -> None:
    mask = values(128, 0, 255)
    for name, images, masks in (
        ("g0001", "Training400/Glaucoma", "Annotation-Training400/Annotation-Training400/Disc_Cup_Masks/Glaucoma"),
        (
            "n0001",
            "Training400/Non-Glaucoma",
            "Annotation-Training400/Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma",
        ),
        ("V0001", "REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks"),
        ("T0001", "Test400", "REFUGE-Test-GT/Disc_Cup_Masks/G"),
    ):
        picture(root / images / f"{name}.jpg")
        save(mask, root / masks / f"{name}.bmp")


def refuge_again(root: Path) -> None:
    for split, name in (("train", "g0001"), ("train", "n0002"), ("val", "V0001"), ("test", "T0001")):
        picture(root / split / "images" / f"{name}.jpg")
        save(values(128, 0, 255), root / split / "mask" / f"{name}.bmp")


def msd(root: Path) -> None:
    for n in (2, 10):
        scan(root / "Task03_Liver/imagesTr" / f"liver_{n}.nii.gz")
        volume(values(1, 2), root / "Task03_Liver/labelsTr" / f"liver_{n}.nii.gz")
        text("junk", root / "Task03_Liver/imagesTr" / f"._liver_{n}.nii.gz")
    scan(root / "Task03_Liver/imagesTs/liver_3.nii.gz")
    content = {"labels": {"0": "background", "1": "liver", "2": "cancer"}, "relase": "1.0"}
    text(json.dumps(content), root / "Task03_Liver/dataset.json")


def lits(root: Path) -> None:
    for batch, n in ((1, 0), (1, 27), (2, 130)):
        scan(root / f"Training Batch {batch}" / f"volume-{n}.nii")
        volume(values(1, 2), root / f"Training Batch {batch}" / f"segmentation-{n}.nii")
    scan(root / "test-volume-0.nii")


def btcv(root: Path) -> None:
    for n in (1, 5, 40):
        scan(root / f"Abdomen/RawData/Training/img/img{n:04}.nii.gz")
        volume(values(6, 13), root / f"Abdomen/RawData/Training/label/label{n:04}.nii.gz")
    scan(root / "Abdomen/RawData/Testing/img/img0061.nii.gz")


def totalsegmentator(root: Path) -> None:
    for n in (0, 11, 287):
        scan(root / f"s{n:04}/ct.nii.gz")
        for organ, mask in (("liver", square(OUTER)), ("spleen", square(INNER)), ("aorta", np.zeros((H, W)))):
            volume(mask.astype(np.uint8), root / f"s{n:04}/segmentations/{organ}.nii.gz")
    rows = "s0000;54;train\r\ns0011;30;val\r\ns0287;;test\r\n"
    text(f"\ufeffimage_id;age;split\r\n{rows}", root / "meta.csv")


def glas(root: Path) -> None:
    names = ["train_1", "train_2", "train_3", "testA_1", "testB_1"]
    for name in names:
        picture(root / f"Warwick QU Dataset (Released 2016_07_08)/{name}.bmp")
        save(values(1, 2), root / f"Warwick QU Dataset (Released 2016_07_08)/{name}_anno.bmp")
    patients = zip(names, (1, 1, 4, 4, 1), strict=True)
    rows = "".join(f"{name},{patient}, benign, adenomatous\r" for name, patient in patients)
    text(f"name,patient ID, grade (GlaS)\r{rows}", root / "Warwick QU Dataset (Released 2016_07_08)/Grade.csv")


def dsb2018(root: Path) -> None:
    for n in range(3):
        name = f"{n:064x}"
        picture(root / "stage1_train" / name / "images" / f"{name}.png")
        for at, box in enumerate((INNER, (10, 8, 15, 39), OUTER)):
            save(255 * square(box).astype(np.uint8), root / "stage1_train" / name / "masks" / f"{at + 7:064x}.png")


def monuseg(root: Path) -> None:
    train = root / "MoNuSeg 2018 Training Data/MoNuSeg 2018 Training Data"
    test = root / "MoNuSegTestData"
    for images, outlines, name in (
        (train / "Tissue Images", train / "Annotations", "TCGA-A7-A13E-01Z-00-DX1"),
        (train / "Tissue Images", train / "Annotations", "TCGA-AR-A1AK-01Z-00-DX1"),
        (test, test, "TCGA-2Z-A9J9-01A-01-TS1"),
    ):
        picture(images / f"{name}.tif")
        text(imagescope([corners(INNER), corners(OUTER), [[1, 1], [2, 2]]]), outlines / f"{name}.xml")


def imagescope(regions: list[list[list[float]]]) -> str:
    written = "".join(
        f'<Region Id="{n}"><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in region)
        + "</Vertices></Region>"
        for n, region in enumerate(regions, start=1)
    )
    return f'<Annotations MicronsPerPixel="0.25"><Annotation><Regions>{written}</Regions></Annotation></Annotations>'


def cholecseg8k(root: Path) -> None:
    for video in (1, 48, 12, 52):
        for frame in (80, 81):
            base = root / f"video{video:02}/video{video:02}_00080/frame_{frame}_endo"
            picture(Path(f"{base}.png"))
            mask = values(21, 22, 50)
            mask[0], mask[:, -1] = 255, 0
            save(mask, Path(f"{base}_watershed_mask.png"), "RGBA")
            picture(Path(f"{base}_mask.png"))
            picture(Path(f"{base}_color_mask.png"))


def ultrasound(root: Path) -> None:
    for split, name in (("train", "ct1-1"), ("train", "ct1-2"), ("test", "ct16-1")):
        picture(root / f"abdominal_US/AUS/images/{split}/{name}.png")
        mask = np.full((H, W, 3), 10, np.uint8)
        mask[square(OUTER)], mask[square(INNER)], mask[16, 20:30] = (100, 0, 100), (0, 255, 0), (4, 250, 7)
        save(mask, root / f"abdominal_US/AUS/annotations/{split}/{name}.png", "RGBA")
    for name in ("a", "b"):
        picture(root / f"abdominal_US/RUS/images/train/{name}.jpg")


def real_ultrasound(root: Path) -> None:
    for name in ("a", "b", "c"):
        picture(root / f"RUS/images/test/{name}.jpg")
        picture(root / f"RUS/images/train/{name}.jpg")
    mask = np.zeros((H, W, 3), np.uint8)
    mask[square(OUTER)], mask[square(INNER)] = (100, 0, 100), (0, 255, 0)
    save(mask, root / "RUS/annotations/test/b.png")


def chestxdet(root: Path) -> None:
    for split, names in (("train", (36346, 36347)), ("test", (36302,))):
        entries = [{"file_name": f"{split}.png", "syms": [], "boxes": [], "polygons": []}]
        for n in names:
            picture(root / f"{split}_data/{split}/{n}.png")
            polygons = [corners(INNER), corners((20, 16, 24, 20)), corners(OUTER)]
            entries.append({"file_name": f"{n}.png", "syms": ["Mass", "Mass", "Effusion"], "polygons": polygons})
        text(json.dumps(entries), root / f"ChestX_Det_{split}.json")


class Copy(NamedTuple):
    layout: str
    write: Callable[[Path], None]
    counts: tuple[int, int, int]  # training, validation, test
    subjects: set[str]
    outer: str  # the label that holds the larger square, with the smaller one in it where `whole`
    inner: str | None
    whole: bool = True


DISCS = ("optic disc", "optic cup")
COPIES = {
    "Drishti-GS": Copy("drishti_gs", drishti, (2, 0, 3), {f"drishtiGS_00{n}" for n in range(1, 6)}, *DISCS),
    "G1020": Copy("g1020", g1020, (3, 0, 0), {"image_0", "image_10", "image_11"}, *DISCS),
    "GRAPE": Copy("grape", grape, (3, 0, 2), {"1", "2", "109", "144"}, *DISCS),
    "IDRiD": Copy("idrid", idrid, (2, 0, 1), {"IDRiD_01", "IDRiD_54", "IDRiD_55"}, "optic disc", None),
    "ORIGA": Copy("origa", origa, (2, 0, 1), {"001", "002", "003"}, *DISCS),
    "PAPILA": Copy("papila", papila, (3, 0, 2), {"002", "004", "010"}, *DISCS),
    "REFUGE": Copy("refuge", refuge, (2, 1, 1), {"g0001", "n0001", "V0001", "T0001"}, *DISCS),
    "REFUGE, packed again": Copy("refuge", refuge_again, (2, 1, 1), {"g0001", "n0002", "V0001", "T0001"}, *DISCS),
    "MSD": Copy("msd", msd, (2, 0, 0), {"liver_2", "liver_10"}, "liver", "cancer", False),
    "LiTS": Copy("lits", lits, (3, 0, 0), {"0", "27", "130"}, "liver", "tumour"),
    "BTCV": Copy("btcv", btcv, (2, 0, 1), {"0001", "0005", "0040"}, "liver", "left adrenal gland", False),
    "TotalSegmentator": Copy(
        "totalsegmentator", totalsegmentator, (1, 1, 1), {"s0000", "s0011", "s0287"}, "liver", "spleen"
    ),
    "GlaS": Copy("glas", glas, (3, 0, 2), {"training-1", "training-4", "test-4", "test-1"}, "gland", None),
    "DSB2018": Copy("dsb2018", dsb2018, (3, 0, 0), {f"{n:064x}" for n in range(3)}, "nucleus", None),
    "MoNuSeg": Copy("monuseg", monuseg, (2, 0, 1), {"TCGA-A7-A13E", "TCGA-AR-A1AK", "TCGA-2Z-A9J9"}, "nucleus", None),
    "CholecSeg8k": Copy("cholecseg8k", cholecseg8k, (4, 2, 2), {"01", "48", "12", "52"}, "liver", "gallbladder", False),
    "AUS": Copy("aus", ultrasound, (2, 0, 1), {"ct1", "ct16"}, "liver", "gallbladder", False),
    "RUS": Copy("rus", real_ultrasound, (0, 0, 1), {"b"}, "liver", "gallbladder", False),
    "ChestXDet": Copy("chestxdet", chestxdet, (2, 0, 1), {"36346", "36347", "36302"}, "Effusion", "Mass"),
}
