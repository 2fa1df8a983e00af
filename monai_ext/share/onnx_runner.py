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

"""
Segment pictures with an exported network: this one file, numpy and onnxruntime (and Pillow to read pictures).

Copy it anywhere. Neither torch nor MONAI nor the rest of the package is needed::

    python onnx_runner.py model.onnx image.png mask.png
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# What the field of view is found by; the same numbers as in the bundles' own inference.
_LONGER_SIDE, _EDGE, _DARK = 512, 0.1, 0.2
_BACKGROUND = -20.0
_CORNERS = (2, 3)


class OnnxSegmenter:
    """
    Segment whole pictures with ``model.onnx`` as the bundle's own inference does.

    The picture is normalised, resized if the bundle does so, and segmented by a sliding window whose overlapping
    answers are averaged. Outside the field of view of a fundus photograph nothing is found.

    Args:
        path: ``model.onnx``; it holds its own settings.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the file was not written by ``python -m monai_ext export``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.session, self.settings = _open(path, "model")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """
        Segment a picture.

        Args:
            image: ``(3, H, W)`` floats, RGB in 0..1.

        Returns:
            One mask for each label, ``(C, H, W)`` bool.
        """
        mask = _sigmoid(self.logits(image)) >= np.float32(self.settings["threshold"])
        return mask & field_of_view(image) if self.settings["field_of_view"] else mask

    def logits(self, image: np.ndarray) -> np.ndarray:
        """
        Give the logits of a picture at its own size.

        Args:
            image: ``(3, H, W)`` floats, RGB in 0..1.

        Returns:
            ``(C, H, W)`` float32.
        """
        pixels, size = _normalised(image, self.settings), image.shape[1:]
        longest = self.settings["longest_side"]
        if longest is None:
            return self._slide(pixels)
        smaller = tuple(max(1, round(side * longest / max(size))) for side in size)
        return _resize(self._slide(_resize(pixels, smaller, antialias=True)), size)

    def _slide(self, pixels: np.ndarray) -> np.ndarray:
        size = pixels.shape[1:]
        window = tuple(self.settings["window"] or size)
        before = [max(0, small - side) // 2 for small, side in zip(window, size, strict=True)]
        behind = [max(0, small - side) - less for small, side, less in zip(window, size, before, strict=True)]
        margins = tuple(zip(before, behind, strict=True))
        # Windows without any of it are left out, as padding alone is.
        wanted = np.ones(size, bool)
        if self.settings["field_of_view"]:
            mean, std = _colours(self.settings)
            wanted = field_of_view(pixels * std + mean)
        pixels, wanted = np.pad(pixels, ((0, 0), *margins)), np.pad(wanted, margins)
        total: np.ndarray | None = None
        count = np.zeros(pixels.shape[1:], np.float32)
        for place in _windows(pixels.shape[1:], window, self.settings["overlap"]):
            if not wanted[place].any():
                continue
            answer = self.session.run(None, {"image": pixels[(slice(None), *place)][None]})[0][0]
            total = np.zeros((len(answer), *count.shape), np.float32) if total is None else total
            total[(slice(None), *place)] += answer
            count[place] += 1
        if total is None:
            total = np.zeros((len(self.settings["labels"]), *count.shape), np.float32)
        logits = np.where(count > 0, total / np.maximum(count, 1), np.float32(_BACKGROUND))
        return logits[:, before[0] : before[0] + size[0], before[1] : before[1] + size[1]]


class OnnxClicks:
    """
    Segment a picture from clicks and boxes: ``encoder.onnx`` runs once for each picture, ``decoder.onnx`` for a click.

    Args:
        folder: holds both files.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the files were not written by ``python -m monai_ext export``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.encoder, self.settings = _open(Path(folder) / "encoder.onnx", "encoder")
        self.decoder, _ = _open(Path(folder) / "decoder.onnx", "decoder")
        self._embedding: dict[str, np.ndarray] = {}
        self._size = self._shown = (0, 0)

    def open(self, image: np.ndarray) -> None:
        """
        Encode a picture, which all further clicks are on.

        Args:
            image: ``(3, H, W)`` floats, RGB in 0..1. It is made to fit the encoder's size, its sides in proportion.
        """
        size, self._size = self.settings["size"], (image.shape[1], image.shape[2])
        scale = min(full / side for full, side in zip(size, self._size, strict=True))
        self._shown = (max(1, round(self._size[0] * scale)), max(1, round(self._size[1] * scale)))
        pixels = _resize(_normalised(image, self.settings), self._shown, antialias=True)
        padding = [(0, full - side) for full, side in zip(size, self._shown, strict=True)]
        names = [output.name for output in self.encoder.get_outputs()]
        answers = self.encoder.run(None, {"image": np.pad(pixels, ((0, 0), *padding))[None]})
        self._embedding = dict(zip(names, answers, strict=True))

    def click(
        self,
        points: Sequence[Sequence[float]] = (),
        point_labels: Sequence[int] = (),
        box: Sequence[float] | None = None,
    ) -> np.ndarray:
        """
        Segment what is clicked.

        Args:
            points: x and y of each click, in pixels of the picture.
            point_labels: 1 for a click on the object, 0 for one off it.
            box: x0, y0, x1, y1, in pixels of the picture.

        Returns:
            One mask for each label, ``(C, H, W)`` bool.

        Raises:
            ValueError: no picture is open, nothing is clicked, or points and their labels differ in number.
        """
        if not self._embedding:
            raise ValueError("no picture is open: call open(image) first.")
        if len(points) != len(point_labels) or (not len(points) and box is None):
            raise ValueError(
                f"give clicks with a label each, or a box, not {len(points)} points and {len(point_labels)} labels."
            )
        corners = [] if box is None else [box[:2], box[2:]]
        places = np.array([*corners, *points], np.float32)
        kinds = np.array([*(_CORNERS if corners else ()), *point_labels], np.int64)
        places *= np.array([self._shown[1] / self._size[1], self._shown[0] / self._size[0]], np.float32)
        given = {**self._embedding, "points": places[None], "point_labels": kinds[None]}
        logits = self.decoder.run(None, given)[0][0][:, : self._shown[0], : self._shown[1]]
        return _sigmoid(_resize(logits, self._size)) >= np.float32(self.settings["threshold"])


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """
    Read a picture upright as RGB; this alone needs Pillow.

    Args:
        path: a picture of 8 or 16 bits.

    Returns:
        ``(3, H, W)`` float32 in 0..1.

    Raises:
        ValueError: the file is no picture, or one of other pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):
                pixels = np.repeat(np.asarray(image)[..., None], 3, -1) / np.float32(65535)
            elif image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
                pixels = np.asarray(image.convert("RGB")) / np.float32(255)
            else:
                raise ValueError(f"{path} must be grey, RGB or palette, not {image.mode}; convert it to RGB.")
    except OSError as error:
        raise ValueError(f"{path} must be a picture that Pillow can read: {error}.") from error
    return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32), -1, 0))


def field_of_view(image: np.ndarray) -> np.ndarray:
    """
    Find the part of a fundus photograph that shows the eye, as ``monai_ext.transforms.field_of_view``.

    Args:
        image: ``(3, H, W)``, RGB with black at 0.

    Returns:
        ``(H, W)`` bool.

    Example:
        >>> image = np.zeros((3, 64, 96))
        >>> image[:, 16:48, 32:64] = 0.5
        >>> mask = field_of_view(image)
        >>> bool(mask[32, 48]), bool(mask[0, 0])
        (True, False)
    """
    bright, size = image.max(0).astype(np.float32), image.shape[1:]
    shrink = _LONGER_SIDE / max(size)
    if shrink < 1:
        small = [max(1, round(side * shrink)) for side in size]
        bright = _area(small[0], size[0]) @ bright @ _area(small[1], size[1]).T
    rows, columns = (_neighbours(side) for side in bright.shape)
    bright = (rows @ bright @ columns.T).astype(np.float32)
    retina = np.quantile(bright, 0.95)
    surround = bright[:: len(bright) - 1 or 1, :: bright.shape[1] - 1 or 1].min()
    if not surround < _DARK * retina:
        return np.ones(size, bool)
    parts = _components(bright > surround + _EDGE * (retina - surround))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    # A hole is what the outside does not reach.
    outside = _components(np.pad(parts != sizes.argmax(), 1, constant_values=True))
    mask = (outside != outside[0, 0])[1:-1, 1:-1]
    return _resize(mask[None].astype(np.float32), size)[0] > 0.5


def _open(path: str | os.PathLike[str], part: str) -> tuple[Any, Mapping[str, Any]]:
    """Start an exported file, and read the settings that it holds."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("exported files need onnxruntime: pip install onnxruntime") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; python -m monai_ext export writes it.")
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime has an exception for every kind of damage, and no common one
        raise ValueError(f"{path} is no whole ONNX file: {str(error).splitlines()[0]}") from error
    settings = json.loads(session.get_modelmeta().custom_metadata_map.get("monai_ext", "{}"))
    if settings.get("part") != part:
        raise ValueError(f"{path} must be the {part} that python -m monai_ext export wrote, not another ONNX file.")
    if settings["mode"] != "constant":
        raise ValueError(f"{path} blends its windows by {settings['mode']!r}; this runner knows only 'constant'.")
    taken = session.get_inputs()[0].shape[2:]
    if part != "decoder" and taken != settings["size"]:
        raise ValueError(f"{path} takes images of {taken}, not of {settings['size']} as it says; export it again.")
    return session, settings


def _colours(settings: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.array(settings[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    return mean, std


def _normalised(image: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype.kind != "f" or 0 in image.shape:
        raise ValueError(f"image must be floats (3, H, W), not {image.dtype} {image.shape}.")
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise ValueError("image must hold finite values in 0..1.")
    mean, std = _colours(settings)
    return (image.astype(np.float32) - mean) / std


def _windows(size: Sequence[int], window: Sequence[int], overlap: Sequence[float]) -> Iterator[tuple[slice, slice]]:
    """Where windows are: as far apart as the overlap leaves, the last one pushed back to end with the picture."""
    starts = []
    for full, side, share in zip(size, window, overlap, strict=True):
        step = side if side == full else max(1, int(side * (1 - share)))
        count = -(-(full - side) // step) + 1
        starts.append([min(number * step, full - side) for number in range(count)])
    for y in starts[0]:
        for x in starts[1]:
            yield slice(y, y + window[0]), slice(x, x + window[1])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def _resize(pixels: np.ndarray, size: Sequence[int], antialias: bool = False) -> np.ndarray:
    """Resize ``(C, h, w)`` bilinearly, as torch does with ``align_corners=False``."""
    if tuple(size) == pixels.shape[1:]:
        return pixels
    rows, columns = (_bilinear(new, old, antialias) for new, old in zip(size, pixels.shape[1:], strict=True))
    return rows @ pixels @ columns.T


def _bilinear(new: int, old: int, antialias: bool) -> np.ndarray:
    scale = old / new
    places = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(old) - places[:, None]) / (max(scale, 1) if antialias else 1)
    return _shares(np.maximum(0, 1 - distance))


def _area(new: int, old: int) -> np.ndarray:
    first, last = (np.arange(new) * old) // new, -(-(np.arange(1, new + 1) * old) // new)
    return _shares((np.arange(old) >= first[:, None]) & (np.arange(old) < last[:, None]))


def _neighbours(side: int) -> np.ndarray:
    return _shares(np.abs(np.arange(side) - np.arange(side)[:, None]) <= 1)


def _shares(weights: np.ndarray) -> np.ndarray:
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _components(mask: np.ndarray) -> np.ndarray:
    """Number the parts of a mask that hang together, diagonally too; 0 off it."""
    parents = [0]

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    labels = np.zeros(mask.shape, np.int64)
    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        runs = []
        for start, stop in np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0)).reshape(-1, 2):
            number = len(parents)
            parents.append(number)
            for first, last, other in above:
                if first <= stop and start <= last:
                    parents[root(other)] = root(number)
            labels[y, start:stop] = number
            runs.append((start, stop, number))
        above = runs
    return np.array([root(number) for number in range(len(parents))])[labels]


def _main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Segment a picture with an exported network.")
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("mask", metavar="MASK.png")
    args = parser.parse_args(words)
    try:
        write_mask(args.mask, OnnxSegmenter(args.model)(read_picture(args.image)))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write_mask(path: str | os.PathLike[str], masks: np.ndarray) -> None:
    """
    Write masks as the bundles do: 0 and 255 for one label, else 0 and 1, 2, ..., a later label over an earlier one.

    Args:
        path: a PNG file; needs Pillow.
        masks: ``(C, H, W)`` bool.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "mask.png")
        >>> write_mask(path, np.eye(4, dtype=bool)[None])
        >>> read_picture(path)[0, 0].tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    from PIL import Image

    values = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in enumerate(masks, 1):
        values[mask] = 255 if len(masks) == 1 else number
    temporary = f"{os.fspath(path)}.part"
    Image.fromarray(values).save(temporary, format="png")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(_main())
