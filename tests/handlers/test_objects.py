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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image

from monai_ext.data.polygons import polygon_mask, read_polygons
from monai_ext.handlers import ObjectReport, ObjectWriter
from monai_ext.handlers.report import SCORES
from monai_ext.metrics.objects import OBJECT_SCORES, object_scores


def items(count: int = 3, labels: int = 1) -> list[dict[str, Any]]:
    """Maps of objects as MONAI gives pictures, (C, W, H), with the file they came from."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        truth, found = rng.integers(0, 4, (2, labels, 20, 12))
        meta = {"filename_or_obj": f"{number}.png"}
        made.append(
            {
                "image": MetaTensor(torch.rand(3, 20, 12), meta=meta),
                "label": torch.from_numpy(truth > 0),
                "pred": torch.from_numpy(found > 0),
                "objects": torch.from_numpy(truth),
                "instances": torch.from_numpy(found),
            }
        )
    return made


def run(handler: Any, data: list[dict[str, Any]]) -> Any:
    def step(engine: Any, batch: Any) -> Any:
        engine.state.batch = batch
        return [{} for _ in batch]

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda started: setattr(started.state, "metrics", {}))
    handler.attach(engine)
    engine.run([data[:2], data[2:]])
    return engine


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_objects_are_scored_beside_pixels(tmp_path: Path) -> None:
    data = items()
    engine = run(ObjectReport(output_dir=tmp_path, labels=["nucleus"], bootstrap=50), data)
    table = rows(tmp_path / "per_image_automatic.csv")
    assert list(table[0]) == ["image", "label", *SCORES, *OBJECT_SCORES]
    for row, item in zip(table, data, strict=True):
        expected = object_scores(item["instances"][0].numpy(), item["objects"][0].numpy())
        assert {name: float(row[name]) for name in OBJECT_SCORES} == pytest.approx(expected)
    summary = json.loads((tmp_path / "summary_automatic.json").read_text())["labels"]["nucleus"]
    assert summary["aji"]["mean"] == pytest.approx(np.mean([float(row["aji"]) for row in table]))
    assert summary["aji"]["low"] <= summary["aji"]["mean"] <= summary["aji"]["high"]
    assert engine.state.metrics["object_f1_nucleus"] == summary["object_f1"]["mean"]


def test_objects_of_another_size_are_refused(tmp_path: Path) -> None:
    data = items()
    data[1]["objects"] = data[1]["objects"][..., :5]
    with pytest.raises(ValueError, match=r"1\.png: 'instances' and 'objects' must be objects in maps of \(1, 20, 12\)"):
        run(ObjectReport(output_dir=tmp_path, labels=["nucleus"]), data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("labels", [["nucleus"], ["nucleus", "gland"]])
def test_maps_polygons_and_table(labels: list[str], tmp_path: Path) -> None:
    data = items(labels=len(labels))
    run(ObjectWriter(output_dir=tmp_path, labels=labels), data)
    table = rows(tmp_path / "objects.csv")
    assert [(row["image"], row["label"]) for row in table] == [
        (f"{n}.png", label) for n in range(3) for label in labels
    ]
    for row, (item, channel) in zip(table, [(i, c) for i in data for c in range(len(labels))], strict=True):
        numbers = item["instances"][channel].numpy().T
        written = np.asarray(Image.open(tmp_path / row["instances"]))
        assert written.dtype == np.uint16 and (written == numbers).all()
        assert int(row["objects"]) == len(np.unique(numbers[numbers > 0]))
        again = np.zeros_like(numbers)
        polygons = [polygon for name, polygon in read_polygons(tmp_path / row["polygons"]) if name == row["label"]]
        for value, polygon in enumerate(polygons, start=1):
            again[polygon_mask(polygon, numbers.shape)] = value
        assert (again == numbers).all()


def test_more_objects_than_16_bits(tmp_path: Path) -> None:
    data = items(1)
    numbers = torch.zeros(1, 300, 300, dtype=torch.int64)
    numbers[0, ::40, ::40] = torch.arange(70_000, 70_064).reshape(8, 8)
    data[0]["instances"] = numbers
    run(ObjectWriter(output_dir=tmp_path, labels=["nucleus"]), [*data, *items(2)[1:]])
    written = tifffile.imread(tmp_path / "0_instances.tif")
    assert written.dtype == np.uint32 and (written == numbers[0].numpy().T).all()


def test_a_file_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    class Failures:
        paths = ()

        def __init__(self) -> None:
            self.found: dict[str, str] = {}

        def at_end(self, action: Callable[[], None]) -> None:
            pass

        def add_failure(self, path: str, reason: str) -> None:
            self.found[path] = reason

    (tmp_path / "1.geojson").mkdir()
    failures = Failures()
    run(ObjectWriter(output_dir=tmp_path, labels=["nucleus"], images=failures), items())
    assert list(failures.found) == ["1.png"] and "1.geojson" in failures.found["1.png"]
    assert [row["image"] for row in rows(tmp_path / "objects.csv")] == ["0.png", "2.png"]
