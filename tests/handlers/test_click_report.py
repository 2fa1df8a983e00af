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
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from monai_ext.handlers import ClickReport


def make_item(name: str, source: str, found: tuple[float, ...]) -> dict[str, Any]:
    """An image with two objects of 8 x 8 pixels, of which each answer finds the given part."""
    label = torch.zeros(2, 32, 24)
    label[0, 0:8, 0:8] = label[1, 16:24, 8:16] = 1
    pred = torch.zeros(len(found), 2, 32, 24)
    for answer, part in zip(pred, found, strict=True):
        answer[0, 0 : round(8 * part), 0:8] = answer[1, 16 : 16 + round(8 * part), 8:16] = 1
    image = MetaTensor(torch.rand(3, 32, 24), meta={"filename_or_obj": name})
    return {"image": image, "label": label, "pred": pred, "source": source}


def run(report: ClickReport, items: list[dict[str, Any]]) -> Engine:
    def step(engine: Engine, item: dict[str, Any]) -> Any:
        engine.state.batch = [{k: v for k, v in item.items() if k != "pred"}]
        return [{"pred": item["pred"]}]

    engine = Engine(step)
    report.attach(engine)
    engine.run(items)
    return engine


def test_every_object_after_every_answer(tmp_path: Path) -> None:
    items = [
        make_item("a/1.png", "cells", (0.25, 0.75)),
        make_item("b/1.png", "cells", (0.5, 1)),
        make_item("c.png", "discs", (0.5, 0.5)),
    ]
    engine = run(ClickReport(output_dir=tmp_path, mode="points"), items)
    with (tmp_path / "per_object_points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2 and {row["pixels"] for row in rows} == {"64"}
    summary = json.loads((tmp_path / "summary_points.json").read_text())
    assert {name: part["objects"] for name, part in summary["sources"].items()} == {"cells": 4, "discs": 2}
    cells = summary["sources"]["cells"]["answers"]
    assert [cells[n]["mean"] for n in "12"] == pytest.approx([0.375, 0.875])
    assert cells["1"]["low"] == pytest.approx(0.25) and cells["1"]["high"] == pytest.approx(0.5)
    assert engine.state.metrics == pytest.approx(
        {"iou_cells_1": 0.375, "iou_cells_2": 0.875, "iou_discs_1": 0.5, "iou_discs_2": 0.5}
    )
    assert np.mean([float(r["iou"]) for r in rows if (r["source"], r["answer"]) == ("cells", "2")]) == 0.875
    pictures = {path.name: Image.open(path).size for path in (tmp_path / "points").iterdir()}
    assert pictures == {name: (64, 24) for name in ("cells_1.jpg", "cells_1-2.jpg", "discs_c.jpg")}
    assert Image.open(tmp_path / "curve_points.png").size[0] > 400
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_modes_have_files_of_their_own(tmp_path: Path) -> None:
    for mode in ("points", "box"):
        run(ClickReport(output_dir=tmp_path, mode=mode), [make_item("1.png", "cells", (1,))])
    assert {path.name for path in tmp_path.glob("summary_*")} == {"summary_points.json", "summary_box.json"}


def test_sizes_must_agree(tmp_path: Path) -> None:
    item = make_item("a/1.png", "cells", (1,)) | {"label": torch.zeros(3, 32, 24)}
    with pytest.raises(ValueError, match=r"a/1.png: prediction and truth must have the same objects and size"):
        run(ClickReport(output_dir=tmp_path), [item])
    assert not list(tmp_path.glob("summary_*"))
