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

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from bundle_runs import VESSELS, run_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import dense_patch_slices
from monai.inferers.utils import _get_scan_interval
from PIL import Image

from monai_ext.data import PhotographReader
from monai_ext.data.phantom import write_phantoms
from monai_ext.inferers import ForegroundSlidingWindowInferer, LongestSideInferer
from monai_ext.share import OnnxClicks, OnnxSegmenter, onnx_runner
from monai_ext.share.trained_bundle import open_trained_bundle
from monai_ext.transforms import field_of_view

BLOCKED = ("torch", "monai", "monai_ext", "scipy", "skimage", "onnx")


def segment_alone(folder: Path, image: Path, model: Path) -> np.ndarray:
    """Run the copied file as a program that can import nothing but numpy, onnxruntime and Pillow."""
    alone = folder / "alone"
    alone.mkdir()
    shutil.copy(onnx_runner.__file__, alone / "onnx_runner.py")
    for name in BLOCKED:
        (alone / f"{name}.py").write_text("raise ImportError(f'{__name__} must not be imported')\n")
    command = [sys.executable, "onnx_runner.py", str(model), str(image), "mask.png"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=alone, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(alone / "mask.png"))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape and other.any()
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def segment_by_bundle(bundle: Path, image: Path, folder: Path, **overrides: object) -> np.ndarray:
    """What the bundle's own inference writes."""
    run_bundle(bundle, "inference", dataset_dir=image, output_dir=folder, **overrides)
    return np.asarray(Image.open(folder / f"{image.stem}_mask.png"))


def normalised(image: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((torch.from_numpy(image) - mean) / std)[None]


class TestAlone:
    def test_a_phantom_is_segmented_as_by_the_bundle(self, exported: Path, tmp_path: Path) -> None:
        """Lower than a window and wider, so that it is padded and gone through in steps."""
        image = tmp_path / "image.png"
        Image.open(write_phantoms(tmp_path / "eyes", count=1, size=150)[0]).crop((0, 50, 150, 100)).save(image)
        expected = segment_by_bundle(VESSELS, image, tmp_path / "bundle")
        assert dice(segment_alone(tmp_path, image, exported / "model.onnx"), expected) >= 0.999

    def test_a_real_photograph_is_segmented_as_by_the_bundle(
        self, exported: Path, shared_data: Path, tmp_path: Path
    ) -> None:
        """A part with the edge of the field of view."""
        image = tmp_path / "image.png"
        Image.open(shared_data / "chase_db1/test/images/Image_11L.jpg").crop((330, 0, 530, 200)).save(image)
        expected = segment_by_bundle(VESSELS, image, tmp_path / "bundle")
        assert dice(segment_alone(tmp_path, image, exported / "model.onnx"), expected) >= 0.999

    def test_what_it_says_of_a_wrong_file(self, exported: Path, tmp_path: Path) -> None:
        (tmp_path / "no.onnx").write_bytes(b"nothing")
        model = onnx.load(exported / "model.onnx")
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "other.onnx")
        for path, told in (
            (tmp_path / "missing.onnx", "does not exist"),
            (tmp_path / "no.onnx", "no whole ONNX file"),
            (tmp_path / "other.onnx", "must be the model that"),
            (exported / "encoder.onnx", "must be the model that"),
        ):
            with pytest.raises((ValueError, FileNotFoundError), match=told):
                OnnxSegmenter(path)

    @pytest.mark.parametrize(
        "image", [np.zeros((8, 8, 3), np.float32), np.full((3, 8, 8), 2.0), np.zeros((3, 8, 8), int)]
    )
    def test_what_it_says_of_a_wrong_image(self, image: np.ndarray, exported: Path) -> None:
        with pytest.raises(ValueError, match="image must"):
            OnnxSegmenter(exported / "model.onnx")(image)


@pytest.mark.parametrize("size", [(64, 64), (50, 150), (100, 130)])
@pytest.mark.parametrize("longest_side", [None, 90])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_logits_are_those_of_the_inferer(
    size: tuple[int, int], longest_side: int | None, overlap: float, exported: Path
) -> None:
    image = np.random.default_rng(0).random((3, *size), np.float32)
    segmenter = OnnxSegmenter(exported / "model.onnx")
    changes = {"longest_side": longest_side, "overlap": [overlap] * 2, "field_of_view": False}
    segmenter.settings = {**segmenter.settings, **changes}
    inferer: Any = ForegroundSlidingWindowInferer(roi_size=segmenter.settings["window"], overlap=overlap)
    if longest_side is not None:
        inferer = LongestSideInferer(longest_side=longest_side, inferer=inferer)
    with torch.no_grad():
        expected = inferer(normalised(image), open_trained_bundle(VESSELS).network)[0]
    np.testing.assert_allclose(segmenter.logits(image), expected, atol=1e-3, rtol=1e-3)


class TestClicks:
    @pytest.mark.parametrize("side", [64, 70, 150])
    def test_they_are_answered_as_by_the_network(self, side: int, exported: Path, tmp_path: Path) -> None:
        """Of an image of another size the places must be scaled with it."""
        network = open_trained_bundle(VESSELS).network
        image = onnx_runner.read_picture(write_phantoms(tmp_path, count=1, size=side)[0])
        clicks = OnnxClicks(exported)
        with pytest.raises(ValueError, match="no picture is open"):
            clicks.click([[1, 1]], [1])
        clicks.open(image)
        with pytest.raises(ValueError, match="give clicks with a label each"):
            clicks.click([[1, 1]], [])
        scaled = F.interpolate(normalised(image), size=(64, 64), mode="bilinear", antialias=True)
        points, kinds = [[side / 2, side / 3], [side / 4, side / 2]], [1, 0]
        with torch.no_grad():
            embedding = network.encode(scaled)
            for given, box in ((2, None), (1, [side / 5, side / 5, side / 1.5, side / 2])):
                logits = network.decode(
                    embedding,
                    torch.tensor(points[:given])[None] * 64 / side,
                    torch.tensor(kinds[:given])[None],
                    boxes=None if box is None else torch.tensor(box)[None] * 64 / side,
                )[0]
                expected = F.interpolate(logits, size=(side, side), mode="bilinear")[0].sigmoid() >= 0.5
                answer = clicks.click(points[:given], kinds[:given], box)
                assert (answer == expected.numpy()).mean() > 0.999

    def test_the_encoder_runs_once(self, exported: Path) -> None:
        clicks = OnnxClicks(exported)
        clicks.open(np.full((3, 64, 50), 0.4, np.float32))
        del clicks.encoder
        assert clicks.click([[40, 40]], [1]).shape == (1, 64, 50)


# One pixel wide is left out: there torch repeats the first row where it should enlarge with antialiasing (2.13.0).
@given(st.tuples(*[st.integers(2, 40)] * 4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_resizing_is_that_of_torch(sides: tuple[int, int, int, int], antialias: bool) -> None:
    old, new = sides[:2], sides[2:]
    if not antialias:  # only ever used to enlarge
        new = tuple(max(pair) for pair in zip(old, new, strict=True))
    pixels = np.random.default_rng(0).random((2, *old), np.float32)
    expected = F.interpolate(torch.from_numpy(pixels)[None], size=new, mode="bilinear", antialias=antialias)[0]
    np.testing.assert_allclose(onnx_runner._resize(pixels, new, antialias), expected, atol=2e-5)


@given(
    st.tuples(*[st.integers(1, 300)] * 2), st.tuples(*[st.integers(16, 120)] * 2), st.sampled_from([0, 0.25, 0.5, 0.9])
)
@settings(max_examples=30, deadline=None)
def test_windows_are_those_of_monai(size: tuple[int, int], window: tuple[int, int], overlap: float) -> None:
    size = tuple(max(pair) for pair in zip(size, window, strict=True))
    step = _get_scan_interval(size, window, 2, (overlap, overlap))
    assert list(onnx_runner._windows(size, window, (overlap, overlap))) == dense_patch_slices(size, window, step)


@pytest.mark.parametrize("side", [64, 300, 700])
def test_the_field_of_view_is_that_of_the_transform(side: int, tmp_path: Path) -> None:
    for path in write_phantoms(tmp_path, count=2, size=side):
        check_field_of_view(path)


def test_the_field_of_view_of_real_photographs(shared_data: Path) -> None:
    for pattern in ("chase_db1/test/images/Image_11L.jpg", "idrid_disc/images/IDRiD_09.jpg"):
        check_field_of_view(shared_data / pattern)


def check_field_of_view(path: Path) -> None:
    image = onnx_runner.read_picture(path)
    expected = field_of_view(torch.from_numpy(image))[0].numpy()
    assert not expected.all() and dice(onnx_runner.field_of_view(image), expected) > 0.9999


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_parts_that_hang_together(seed: int) -> None:
    from skimage.measure import label

    mask = np.random.default_rng(seed).random((23, 17)) < 0.45
    mine, theirs = onnx_runner._components(mask), label(mask, connectivity=2)
    pairs = {(int(a), int(b)) for a, b in zip(mine.ravel(), theirs.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) and (0, 0) in pairs


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_are_read_as_by_the_reader(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65535, (9, 14), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 255, (9, 14, 4), dtype=np.uint8), "RGBA").convert("RGB").convert(mode)
    image.save(tmp_path / "picture.png")
    expected, _ = PhotographReader().get_data(tmp_path / "picture.png")
    np.testing.assert_allclose(onnx_runner.read_picture(tmp_path / "picture.png"), expected.T, atol=1e-6)


def test_pictures_are_read_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 14, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    expected, _ = PhotographReader().get_data(tmp_path / "turned.png")
    np.testing.assert_allclose(
        onnx_runner.read_picture(tmp_path / "turned.png"), np.moveaxis(expected, -1, 0).swapaxes(1, 2)
    )


def test_several_labels_are_numbers(tmp_path: Path) -> None:
    masks = np.zeros((2, 3, 4), bool)
    masks[0, 0], masks[1, 0, 2:] = True, True
    onnx_runner.write_mask(tmp_path / "mask.png", masks)
    assert np.asarray(Image.open(tmp_path / "mask.png"))[0].tolist() == [1, 1, 2, 2]
    onnx_runner.write_mask(tmp_path / "mask.png", masks[:1])
    assert np.asarray(Image.open(tmp_path / "mask.png"))[0].tolist() == [255] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
