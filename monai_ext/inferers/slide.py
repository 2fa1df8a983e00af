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

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_ext.data.slide import Slide
from monai_ext.inferers.foreground import ForegroundSlidingWindowInferer


class SlideTile(NamedTuple):
    """What was found in one tile of a slide and in the margin around it."""

    logits: Tensor  # (labels, h, w) of tile and margin
    top: int  # where these begin in the slide
    left: int
    core: tuple[slice, slice]  # the tile itself, in the slide
    inner: tuple[slice, slice]  # the same in the logits


class SlideInferer(Inferer):
    """
    Slide a window over a whole slide, tile by tile, in memory that does not grow with the slide.

    Each tile is read with what its windows need around it, segmented by :class:`ForegroundSlidingWindowInferer` and
    given out at once. Regions begin and end where windows of the whole slide do, so there are no seams: the tiles are
    what MONAI's ``SlidingWindowInferer`` would give for the whole slide in memory. Tiles without tissue are not read.

    Args:
        roi_size: the window, in pixels on a side.
        overlap: how much neighbouring windows overlap, as a part of the window, in [0, 1).
        sw_batch_size: how many windows go through the network at once.
        mode: ``"gaussian"`` or ``"constant"``, as in MONAI.
        tile: pixels of a tile on a side; memory grows with it, work at its edges shrinks.
        margin: pixels around a tile that are given out too, so that objects at its edge are seen whole.
        preprocessing: makes of a region (3, h, w), RGB from 0 to 1, what the network wants; pixel by pixel.
        tissue: makes the mask of what is worth running, (1, h, w), from a thumbnail of the slide (3, h, w), e.g.
            :func:`monai_ext.transforms.tissue_mask`; None runs every window.
        thumbnail: pixels of its longer side.
        background: the logit of windows left out.
        device: where windows are run.

    Raises:
        ValueError: the window or the tile is not positive, or the overlap is out of its range.

    Example:
        >>> import tempfile, tifffile
        >>> path = tempfile.mkdtemp() + "/slide.tif"
        >>> tifffile.imwrite(path, np.full((300, 400, 3), 200, np.uint8), tile=(256, 256), photometric="rgb")
        >>> inferer = SlideInferer(roi_size=64, tile=256)
        >>> [tile.core for tile in inferer(Slide(path), lambda windows: windows[:, :1])]
        [(slice(0, 256, None), slice(0, 256, None)), (slice(0, 256, None), slice(256, 400, None)), \
(slice(256, 300, None), slice(0, 256, None)), (slice(256, 300, None), slice(256, 400, None))]
    """

    def __init__(
        self,
        *,
        roi_size: int,
        overlap: float = 0.25,
        sw_batch_size: int = 1,
        mode: str = "constant",
        tile: int = 1024,
        margin: int = 0,
        preprocessing: Callable[[Tensor], Tensor] | None = None,
        tissue: Callable[[Tensor], Tensor] | None = None,
        thumbnail: int = 2048,
        background: float = -20.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if roi_size < 1 or tile < 1 or margin < 0 or not 0 <= overlap < 1:
            raise ValueError(
                "roi_size and tile must be positive, margin not negative and overlap in [0, 1), not "
                f"{roi_size}, {tile}, {margin} and {overlap}."
            )
        self.roi_size, self.overlap, self.sw_batch_size, self.mode = roi_size, overlap, sw_batch_size, mode
        self.tile, self.margin = tile, margin
        self.preprocessing, self.tissue, self.thumbnail = preprocessing, tissue, thumbnail
        self.background, self.device = background, device

    def __call__(  # type: ignore[override]
        self,
        inputs: Slide,
        network: Callable[..., Tensor],
        *,
        tissue: np.ndarray | None = None,
        cores: Sequence[tuple[slice, slice]] | None = None,
    ) -> Iterator[SlideTile]:
        """
        Segment a slide.

        Args:
            inputs: the slide.
            network: called with windows.
            tissue: the mask of :meth:`find_tissue`, if it was made already.
            cores: which of :meth:`tiles`; all by default.
        """
        tissue = self.find_tissue(inputs) if tissue is None else tissue
        for core in self.tiles(inputs, tissue) if cores is None else cores:
            yield self._segment(inputs, network, core, tissue)

    def find_tissue(self, slide: Slide) -> np.ndarray:
        """Return the mask of what is worth running, ``(h, w)`` bool over the whole slide."""
        if self.tissue is None:
            return np.ones((1, 1), bool)
        return self.tissue(torch.from_numpy(slide.thumbnail(self.thumbnail)))[0].cpu().numpy()

    def tiles(self, slide: Slide, tissue: np.ndarray) -> list[tuple[slice, slice]]:
        """Return the tiles that have tissue in them or within the margin."""
        rows, columns = (
            [slice(start, min(start + self.tile, side)) for start in range(0, side, self.tile)] for side in slide.size
        )
        cores = [(y, x) for y in rows for x in columns]
        return [core for core in cores if _part(tissue, slide.size, *self._extended(slide, core)).any()]

    def _extended(self, slide: Slide, core: tuple[slice, slice]) -> tuple[slice, slice]:
        y, x = (
            slice(max(0, part.start - self.margin), min(side, part.stop + self.margin))
            for part, side in zip(core, slide.size, strict=True)
        )
        return y, x

    def _segment(
        self, slide: Slide, network: Callable[..., Tensor], core: tuple[slice, slice], tissue: np.ndarray
    ) -> SlideTile:
        wanted = self._extended(slide, core)
        y, x = (self._region(part, side) for part, side in zip(wanted, slide.size, strict=True))
        image = torch.from_numpy(slide.read(y.start, x.start, y.stop - y.start, x.stop - x.start))
        image = image if self.preprocessing is None else self.preprocessing(image)
        mask = torch.from_numpy(_part(tissue, slide.size, y, x))[None, None]
        inferer = ForegroundSlidingWindowInferer(
            roi_size=[self.roi_size] * 2,
            overlap=self.overlap,
            sw_batch_size=self.sw_batch_size,
            mode=self.mode,
            foreground=lambda _: mask,
            background=self.background,
            sw_device=self.device,
            device="cpu",
        )
        with torch.no_grad():
            logits = inferer(torch.as_tensor(image)[None], network)[0]
        return SlideTile(
            logits[
                :,
                wanted[0].start - y.start : wanted[0].stop - y.start,
                wanted[1].start - x.start : wanted[1].stop - x.start,
            ],
            wanted[0].start,
            wanted[1].start,
            core,
            (_shifted(core[0], wanted[0].start), _shifted(core[1], wanted[1].start)),
        )

    def _region(self, wanted: slice, side: int) -> slice:
        """From the first to the last window of the whole slide that touches what is wanted."""
        size = self.roi_size
        if side <= size:
            return slice(0, side)
        step = max(1, int(size * (1 - self.overlap)))
        # The last window is pushed back to end with the slide.
        last = side - size
        first = max(0, math.floor((wanted.start - size) / step) + 1)
        start = min(first * step, last)
        stop = (math.ceil(wanted.stop / step) - 1) * step + size
        return slice(start, side if stop > side or last < wanted.stop else stop)


def _part(tissue: np.ndarray, size: Sequence[int], y: slice, x: slice) -> np.ndarray:
    """A part of the slide cut out of the thumbnail's mask, pixel by pixel."""
    rows, columns = (
        (np.arange(part.start, part.stop) * small) // side
        for part, small, side in zip((y, x), tissue.shape, size, strict=True)
    )
    return tissue[np.ix_(rows, columns)]


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)
