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

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter, label
from torch import nn

from monai_ext.data import Slide, SlideList
from monai_ext.data.polygons import polygon_mask, read_polygons
from monai_ext.inferers import SlideInferer, SlideSegmentation
from monai_ext.transforms import SeparateInstances, tissue_mask


class Redness(nn.Module):
    """Red is the first label, dark the second; a pixel by itself, so that what is right is known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([20 * (x[:, 0] - x[:, 1] - 0.2), 20 * (0.3 - x.amax(1))], 1)


class RednessAlone(Redness):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, :1]


def write_slide(path: Path, size: tuple[int, int] = (700, 900), *, levels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    blobs = gaussian_filter(rng.random(size), 5)
    red = blobs > np.quantile(blobs, 0.8)
    # On even pixels, so that every second one shows the same.
    red = red[::2, ::2].repeat(2, 0).repeat(2, 1)[: size[0], : size[1]]
    pixels = np.full((*size, 3), 230, np.uint8)
    pixels[red] = (200, 60, 120)
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            density = (20000 / 2**level,) * 2
            file.write(
                pixels[:: 2**level, :: 2**level],
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(level > 0),
                resolution=density,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return red


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def segment(folder: Path, *, network: nn.Module | None = None, **settings: Any) -> Path:
    inferer = SlideInferer(roi_size=64, sw_batch_size=8, tile=256, margin=settings.pop("margin", 96))
    SlideSegmentation(
        **{
            "slides": SlideList(source=folder),
            "inferer": inferer,
            "network": network or RednessAlone(),
            "output_dir": folder / "out",
            "labels": ["nucleus"],
            "separate": SeparateInstances(h=100, fill_holes=False),
            "progress": False,
            **settings,
        }
    ).run()
    return folder / "out"


def test_masks_objects_and_table_are_those_of_the_whole_slide(tmp_path: Path) -> None:
    red = write_slide(tmp_path / "one.tif")
    out = segment(tmp_path)
    assert sorted(path.name for path in out.iterdir()) == [
        *("one.geojson", "one_mask.tif", "one_overlay.jpg", "one_probability.tif", "slides.csv")
    ]
    assert ((tifffile.imread(out / "one_mask.tif", key=0) == 255) == red).all()
    chance = tifffile.imread(out / "one_probability.tif", key=0)
    assert ((chance > 127) == red).all() and chance.max() > 200
    polygons = read_polygons(out / "one.geojson")
    parts, count = label(red)
    sizes = np.bincount(parts.ravel())[1:]
    assert sorted(int(polygon.area) for _, polygon in polygons) == sorted(sizes.tolist())
    again = np.zeros_like(red)
    for name, polygon in polygons:
        assert name == "nucleus"
        again |= polygon_mask(polygon, red.shape)
    assert (again == red).all()
    (row,) = rows(out / "slides.csv")
    assert (row["width"], row["height"], float(row["mpp"])) == ("900", "700", 0.5)
    assert (int(row["pixels"]), int(row["objects"]), row["cut"]) == (red.sum(), count, "0")
    assert Slide(out / row["mask"]).mpp == 0.5


def test_objects_larger_than_the_margin_are_counted(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif")
    (row,) = rows(segment(tmp_path, margin=2) / "slides.csv")
    assert int(row["cut"]) > 0


def test_a_lower_level_has_polygons_in_full_resolution(tmp_path: Path) -> None:
    red = write_slide(tmp_path / "one.tif")
    out = segment(tmp_path, mpp=1.0)
    assert ((tifffile.imread(out / "one_mask.tif", key=0) == 255) == red[::2, ::2]).all()
    assert sum(polygon.area for _, polygon in read_polygons(out / "one.geojson")) == red.sum()


def test_several_labels(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif")
    out = segment(tmp_path, network=Redness(), labels=["red", "dark"])
    assert set(np.unique(tifffile.imread(out / "one_mask.tif", key=0))) == {0, 1}
    assert [row["label"] for row in rows(out / "slides.csv")] == ["red", "dark"]
    assert (out / "one_probability_dark.tif").is_file()


def test_glass_is_skipped(tmp_path: Path) -> None:
    red = write_slide(tmp_path / "one.tif", (600, 800))
    pixels = np.full((1500, 2000, 3), 235, np.uint8)
    pixels[:600, :800] = (235, 190, 120)  # tissue between the red; spots on glass would be dust
    pixels[:600, :800][red] = (200, 60, 120)
    tifffile.imwrite(tmp_path / "one.tif", pixels, tile=(256, 256), photometric="rgb")
    runs: list[int] = []

    class Counting(RednessAlone):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            runs.append(len(x))
            return super().forward(x)

    inferer = SlideInferer(roi_size=64, sw_batch_size=8, tile=256, tissue=tissue_mask, thumbnail=1000)
    out = segment(tmp_path, network=Counting(), inferer=inferer, separate=None)
    mask = tifffile.imread(out / "one_mask.tif", key=0) == 255
    # The mask of tissue rounds the corners.
    assert (mask[:600, :800] == red).mean() > 0.999 and not mask[700:].any()
    everything = len(range(0, 1500, 48)) * len(range(0, 2000, 48))
    assert sum(runs) < 0.5 * everything
    assert 0.05 < float(rows(out / "slides.csv")[0]["tissue"]) < 0.3


def test_bad_slides_do_not_stop_the_others(tmp_path: Path) -> None:
    write_slide(tmp_path / "good.tif")
    content = (tmp_path / "good.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.svs").touch()
    damaged = bytearray(content)
    middle = len(content) // 3
    damaged[middle : middle + 400] = b"\xff" * 400
    (tmp_path / "damaged.tif").write_bytes(damaged)
    slides = SlideList(source=tmp_path)
    out = segment(tmp_path, slides=slides)
    with pytest.raises(SystemExit) as end:
        slides.finish()
    first, *failed = str(end.value).splitlines()
    assert first == "3 of the images failed:"
    assert sorted(Path(line.split(" ")[0]).name for line in failed) == ["cut.tif", "damaged.tif", "empty.svs"]
    assert all("copy it again" in line for line in failed)
    assert {path.name.split("_")[0].split(".")[0] for path in out.iterdir()} == {"good", "slides"}
    assert len(rows(out / "slides.csv")) == 1


def test_a_level_that_is_not_there(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif")
    slides = SlideList(source=tmp_path)
    out = segment(tmp_path, slides=slides, level=5)
    assert "has 2 levels, so level must be 0 to 1, not 5" in slides.rejected[str(tmp_path / "one.tif")]
    assert not out.exists()


def test_tiles_must_fit_the_mask(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif")
    with pytest.raises(ValueError, match="multiple of 256, not 100"):
        segment(tmp_path, inferer=SlideInferer(roi_size=64, tile=100))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot be written"):
        segment(tmp_path, output_dir=tmp_path / "file" / "out")


def test_polygons_are_json_of_detections(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif")
    features = json.loads((segment(tmp_path, kind="annotation") / "one.geojson").read_text())["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"annotation"}
