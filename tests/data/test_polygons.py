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

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import shape

from monai_ext.data.polygons import PolygonWriter, mask_polygon, polygon_mask, read_polygons

MASKS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans())


@settings(max_examples=40, deadline=None)
@given(MASKS.filter(np.any))
def test_a_polygon_is_its_mask(mask: np.ndarray) -> None:
    polygon = mask_polygon(mask)
    assert polygon.is_valid and polygon.area == mask.sum()
    assert (polygon_mask(polygon, mask.shape) == mask).all()


def test_holes_and_islands_in_them() -> None:
    mask = np.zeros((9, 9), bool)
    mask[:] = True
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    polygon = mask_polygon(mask)
    assert polygon.geom_type == "MultiPolygon" and sum(len(piece.interiors) for piece in polygon.geoms) == 1
    assert (polygon_mask(polygon, mask.shape) == mask).all()


def test_straight_edges_have_no_corners_between() -> None:
    assert len(mask_polygon(np.ones((50, 70), bool)).exterior.coords) == 5


@pytest.mark.parametrize("kind", ["annotation", "detection"])
def test_a_file_is_what_qupath_wants(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((12, 10)) < 0.6 for _ in range(5)]
    path = tmp_path / "tile.geojson"
    with PolygonWriter(path, kind=kind) as polygons:
        for mask in masks:
            polygons.add(mask, label="nucleus", colour=(0, 255, 255), corner=(3, 4), scale=2.0)
        polygons.add(np.zeros((3, 3), bool), label="nucleus", colour=(0, 255, 255))
        assert not path.exists(), "half a file could be seen"
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection" and len(content["features"]) == polygons.count == 5
    for feature, mask in zip(content["features"], masks, strict=True):
        assert feature["type"] == "Feature" and feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        assert feature["properties"] == {
            "objectType": kind,
            "classification": {"name": "nucleus", "color": [0, 255, 255]},
        }
        polygon = shape(feature["geometry"])
        pieces = getattr(polygon, "geoms", [polygon])
        rings = [ring for piece in pieces for ring in (piece.exterior, *piece.interiors)]
        assert polygon.is_valid and all(ring.coords[0] == ring.coords[-1] for ring in rings)
        large = polygon_mask(polygon, (40, 40))[8:32, 6:26]
        assert (large == mask.repeat(2, 0).repeat(2, 1)).all()
    assert [name for name, _ in read_polygons(path)] == ["nucleus"] * 5


def test_no_objects_is_a_file_too(tmp_path: Path) -> None:
    with PolygonWriter(tmp_path / "none.geojson"):
        pass
    assert read_polygons(tmp_path / "none.geojson") == []


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PolygonWriter(tmp_path / "tile.geojson") as polygons:
        polygons.add(np.ones((2, 2), bool), label="gland", colour=(0, 0, 0))
        raise KeyError("a fault of the caller")
    assert not list(tmp_path.iterdir())


def test_a_kind_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="annotation or detection, not 'cell'"):
        PolygonWriter("a.geojson", kind="cell")
