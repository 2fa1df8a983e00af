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

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ext.handlers import overlay
from monai_ext.handlers.overlay import OverlayHandler, draw_overlay

GREY = np.full((3, 6, 9), 100, np.uint8)


def mask(*pixels: tuple[int, int]) -> np.ndarray:
    made = np.zeros((1, 6, 9))
    for row, column in pixels:
        made[0, row, column] = 1
    return made


def test_with_truth_each_error_has_its_colour():
    picture = draw_overlay(GREY, mask((0, 0), (1, 1)), mask((0, 0), (2, 2))).astype(int)
    assert picture.shape == (6, 9, 3)
    assert [picture[i, i].argmax() for i in range(3)] == [1, 0, 2]  # both green, false red, missed blue
    assert picture[4, 4].tolist() == [100, 100, 100]


def test_without_truth_the_outline_is_stronger_than_the_tint_and_labels_differ():
    square = np.zeros((2, 6, 9))
    square[0, :5, :5] = 1
    square[1, 5, 8] = 1
    picture = draw_overlay(GREY, square).astype(int)
    change = np.abs(picture - 100).sum(-1)
    assert change[0, 0] > change[2, 2] > 0 == change[0, 7]
    assert picture[5, 8].tolist() != picture[0, 0].tolist()


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_photograph_looks_the_same_in_every_form(depth):
    photograph = np.random.default_rng(0).random((3, 6, 9))
    photograph[:, 0, 0] = 0
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = np.moveaxis(photograph * 255, 0, -1)
    stored = (photograph * np.iinfo(depth).max).round().astype(depth)
    normalised = ((photograph - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
    for image in (photograph, stored, normalised, np.concatenate([photograph, photograph[:1]])):
        assert np.abs(draw_overlay(image, mask()) - expected).max() <= 1


def test_grey_images_and_missing_values():
    grey = np.full((1, 6, 9), np.nan)
    assert draw_overlay(grey, mask()).max() == 0


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"as large as its image \(6, 9\), not \(9, 6\)"):
        draw_overlay(GREY, mask().swapaxes(1, 2))


def cases(count: int) -> list[dict]:
    made = []
    for number in range(count):
        chances, label = np.zeros((2, 1, 16, 40))
        chances[:, :, :16] = label[:, 8:] = 1  # left part predicted, lower part true
        made.append({"name": f"{number}.png", "chances": chances, "label": label})
    return made


def test_handler_draws_upright_pictures_of_the_first_images(tmp_path, make_evaluator):
    make_evaluator(cases(3), [OverlayHandler(output_dir=tmp_path / "overlays", max_images=2)]).run()
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["0.jpg", "1.jpg"]
    with Image.open(tmp_path / "overlays" / "0.jpg") as file:
        picture = np.asarray(file).astype(int)
    assert picture.shape == (16, 40, 3)
    assert [picture[y, x].argmax() for y, x in ((12, 4), (3, 4), (12, 30))] == [1, 0, 2]
    assert picture[3, 30].max() < 20


def test_handler_draws_every_so_many_epochs_and_same_names_do_not_overwrite(tmp_path, make_evaluator):
    data = cases(2)
    data[0]["name"], data[1]["name"] = "a/x.png", "b/x.png"
    evaluator = make_evaluator(data, [OverlayHandler(output_dir=tmp_path / "overlays", interval=2)], batch_size=2)
    evaluator.run(1)
    assert not (tmp_path / "overlays").exists()
    evaluator.run(2)
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["x-2.jpg", "x.jpg"]


def test_a_full_disk_costs_only_the_picture(tmp_path, make_evaluator, monkeypatch, caplog):
    def fail(path: Path, pixels: np.ndarray) -> None:
        raise OSError(f"{path} could not be saved")

    monkeypatch.setattr(overlay, "write_picture", fail)
    with caplog.at_level(logging.WARNING):
        make_evaluator(cases(1), [OverlayHandler(output_dir=tmp_path)]).run()
    assert "0.jpg could not be saved" in caplog.text


def test_bad_arguments(tmp_path, make_evaluator):
    with pytest.raises(ValueError, match="max_images must be 1 or more, not 0"):
        OverlayHandler(output_dir=tmp_path, max_images=0)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        make_evaluator(cases(1), [OverlayHandler(output_dir=tmp_path / "file")])
