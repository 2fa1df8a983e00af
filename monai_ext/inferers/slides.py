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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import numpy as np
from torch import Tensor, nn

from monai_ext.data.polygons import PolygonWriter
from monai_ext.data.processes import gather_values
from monai_ext.data.pyramid import PyramidWriter
from monai_ext.data.slide import Slide
from monai_ext.handlers.files import require_writable
from monai_ext.handlers.overlay import LABEL_COLOURS, draw_overlay
from monai_ext.handlers.shared_table import SharedTable
from monai_ext.handlers.utils import unique_stem, write_picture
from monai_ext.inferers.slide import SlideInferer, SlideTile

SLIDE_COLUMNS = (
    *("image", "width", "height", "mpp", "label", "pixels", "tissue", "objects", "cut"),
    *("mask", "probability", "polygons", "overlay"),
)


class SlideSource(Protocol):
    """Slides to do, and whatever collects those that could not be done."""

    datalist: Sequence[Mapping[str, Any]]
    paths: Sequence[str]

    def add_failure(self, path: str, reason: str) -> None:
        """Remember that the slide at ``path`` failed, and why."""


class SlideSegmentation:
    """
    Segment whole slides and write what was found, tile by tile: nothing of the size of a slide is ever in memory.

    - ``<name>_mask.tif``, tiled pyramidal BigTIFF, 8 bit: one label is 0 and 255; several are 0 and 1, 2, ... in the
      order of ``labels``, a later label over an earlier one.
    - ``<name>_probability.tif``, the same with 255 = certain; one for each label.
    - ``<name>.geojson``, the objects as polygons in pixels of the full resolution, see
      :class:`monai_ext.data.PolygonWriter`. An object is written by the tile that holds its first pixel, so it must not
      reach further than the inferer's ``margin`` out of it; the number of those that do is ``cut`` in the table.
    - ``<name>_overlay.jpg``, outline and tint on a thumbnail.
    - ``slides.csv``, one row per slide and label: size, micrometres in a pixel, pixels of the label, share of tissue,
      objects, and the files. It is rewritten after each slide.

    Every file appears when it is whole. Several processes divide the slides, as ``slides`` does, and write one table.
    Of fewer slides than processes they divide the tiles, and the first process writes the files.

    Args:
        slides: e.g. :class:`monai_ext.data.SlideList`; is told of slides that fail while the rest goes on.
        inferer: segments one slide.
        network: the network, loaded; it is put into evaluation mode.
        output_dir: folder of all files; made if missing.
        labels: names of the network's channels.
        separate: makes objects (1, h, w) of a probability (1, h, w), e.g.
            :class:`monai_ext.transforms.SeparateInstances`; None writes no polygons.
        kind: what QuPath makes of the objects, ``detection`` or ``annotation``.
        threshold: probability from which a pixel belongs to a label.
        level: pyramid level that is segmented, 0 for the full resolution.
        mpp: micrometres in a pixel instead.
        backend: what reads the slides, see :class:`monai_ext.data.Slide`.
        progress: whether to show a progress bar, in the first process.

    Raises:
        ValueError: the tile is not made of whole tiles of the mask, 256 pixels.
        OSError: ``output_dir`` cannot be written.

    Example:
        >>> import tempfile, tifffile
        >>> from monai_ext.data import SlideList
        >>> folder, pixels = Path(tempfile.mkdtemp()), np.full((300, 400, 3), 200, np.uint8)
        >>> tifffile.imwrite(folder / "a.tif", pixels, tile=(256, 256), photometric="rgb")
        >>> inferer = SlideInferer(roi_size=64, tile=256)
        >>> network = nn.Conv2d(3, 1, 1)
        >>> output = folder / "out"
        >>> SlideSegmentation(slides=SlideList(source=folder), inferer=inferer, network=network, output_dir=output,
        ...     labels=["nucleus"], progress=False).run()
        >>> sorted(path.name for path in output.iterdir())
        ['a_mask.tif', 'a_overlay.jpg', 'a_probability.tif', 'slides.csv']
    """

    def __init__(
        self,
        *,
        slides: SlideSource,
        inferer: SlideInferer,
        network: nn.Module,
        output_dir: str | os.PathLike[str],
        labels: Sequence[str],
        separate: Callable[[Tensor], Tensor] | None = None,
        kind: str = "detection",
        threshold: float = 0.5,
        level: int = 0,
        mpp: float | None = None,
        backend: str = "openslide",
        progress: bool = True,
    ) -> None:
        if inferer.tile % PyramidWriter.step:
            raise ValueError(f"The inferer's tile must be a multiple of {PyramidWriter.step}, not {inferer.tile}.")
        self.slides, self.inferer, self.network = slides, inferer, network
        self.output_dir = Path(output_dir)
        self.table_path = self.output_dir / "slides.csv"
        self.labels, self.separate, self.kind, self.threshold = list(labels), separate, kind, threshold
        self.level, self.mpp, self.backend, self.progress = level, mpp, backend, progress
        require_writable(self.table_path)

    def run(self) -> None:
        """Segment all slides; those that fail are handed to ``slides``."""
        self.network.eval()
        table = SharedTable(self.table_path, SLIDE_COLUMNS)
        names: dict[str, str] = {}
        for path in self.slides.paths:  # the same names in every process
            unique_stem(str(path), names)
        together = len(self.slides.paths) < idist.get_world_size()
        for path in self.slides.paths if together else [item["image"] for item in self.slides.datalist]:
            try:
                table.add(self._segment(str(path), unique_stem(str(path), names), together))
            except (ValueError, OSError) as error:
                self.slides.add_failure(str(path), str(error))
        table.finish(self.slides.paths)

    def _segment(self, path: str, name: str, together: bool) -> list[dict[str, Any]]:
        slide = Slide(path, level=self.level, mpp=self.mpp, backend=self.backend)
        tissue = self.inferer.find_tissue(slide)
        if not together:
            return self._write(path, name, slide, tissue, self.inferer(slide, self.network, tissue=tissue))
        tiles = self._tiles_of_all(slide, tissue)
        try:
            return self._write(path, name, slide, tissue, tiles) if idist.get_rank() == 0 else []
        finally:
            deque(tiles, maxlen=0)  # all processes go on to the last tile, even if the first could not write it

    def _tiles_of_all(self, slide: Slide, tissue: np.ndarray) -> Iterator[SlideTile]:
        """All tiles in their order, each made by one of the processes and handed to all."""
        rank, processes = idist.get_rank(), idist.get_world_size()
        cores = self.inferer.tiles(slide, tissue)
        for start in range(0, len(cores), processes):
            own = cores[start : start + processes][rank : rank + 1]
            made: list[SlideTile] | Exception
            try:
                made = list(self.inferer(slide, self.network, tissue=tissue, cores=own))
            except (ValueError, OSError) as error:
                made = error
            for part in gather_values(made):
                if isinstance(part, Exception):
                    raise part
                yield from part

    def _write(
        self, path: str, name: str, slide: Slide, tissue: np.ndarray, tiles: Iterable[SlideTile]
    ) -> list[dict[str, Any]]:
        thumbnail = slide.thumbnail(self.inferer.thumbnail)
        files = self._files(name)
        small = _Thumbnail(thumbnail.shape[1:], slide.size)
        pixels, objects, cut = (np.zeros(len(self.labels), int) for _ in range(3))
        with ExitStack() as stack:
            mask, *chances = (
                stack.enter_context(PyramidWriter(self.output_dir / file, size=slide.size, mpp=slide.mpp))
                for file in (files["mask"], *files["probability"])
            )
            polygons = None
            if self.separate:
                polygons = stack.enter_context(PolygonWriter(self.output_dir / files["polygons"], kind=self.kind))
            for tile in self._with_progress(tiles, len(self.inferer.tiles(slide, tissue)), name):
                probability = tile.logits.sigmoid().cpu()
                core = probability[(slice(None), *tile.inner)].numpy()
                found = core > self.threshold
                picture = _index_tile(found)
                mask.write(tile.core[0].start, tile.core[1].start, picture)
                small.add(tile.core, picture)
                pixels += found.sum((1, 2))
                for chance, channel in zip(chances, core, strict=True):
                    chance.write(tile.core[0].start, tile.core[1].start, (channel * 255 + 0.5).astype(np.uint8))
                for number in range(len(self.labels) if polygons else 0):
                    counts = self._add_objects(polygons, slide, tile, probability, number)  # type: ignore[arg-type]
                    objects[number] += counts[0]
                    cut[number] += counts[1]
            masks = np.stack([small.picture == value for value in _values(len(self.labels))])
            write_picture(self.output_dir / files["overlay"], draw_overlay(thumbnail, masks))
        return [
            {
                "image": path,
                "width": slide.size[1],
                "height": slide.size[0],
                "mpp": slide.mpp,
                "label": label,
                "pixels": int(pixels[number]),
                "tissue": float(tissue.mean()),
                "objects": int(objects[number]) if self.separate else None,
                "cut": int(cut[number]) if self.separate else None,
                **files,
                "probability": files["probability"][number],
            }
            for number, label in enumerate(self.labels)
        ]

    def _files(self, name: str) -> dict[str, Any]:
        alone = len(self.labels) == 1
        return {
            "mask": f"{name}_mask.tif",
            "probability": [f"{name}_probability{'' if alone else '_' + label}.tif" for label in self.labels],
            "polygons": f"{name}.geojson" if self.separate else None,
            "overlay": f"{name}_overlay.jpg",
        }

    def _with_progress(self, tiles: Iterable[SlideTile], total: int, name: str) -> Iterable[SlideTile]:
        from tqdm.auto import tqdm

        return tqdm(tiles, total=total, desc=name, unit="tile", disable=not self.progress or idist.get_rank() > 0)

    def _add_objects(
        self, polygons: PolygonWriter, slide: Slide, tile: SlideTile, probability: Tensor, number: int
    ) -> tuple[int, int]:
        """Write the objects that begin in the tile; how many, and how many of them are cut off by the margin's end."""
        from scipy.ndimage import find_objects

        numbers = self.separate(probability[number : number + 1])[0].numpy()  # type: ignore[misc]
        rows, columns = tile.inner
        count = cut = 0
        colour = LABEL_COLOURS[number % len(LABEL_COLOURS)]
        # Where what was looked at ends, but the slide does not.
        open_ends = [
            (start > 0, start + size < side)
            for start, size, side in zip((tile.top, tile.left), numbers.shape, slide.size, strict=True)
        ]
        for value, box in enumerate(find_objects(numbers), start=1):
            if box is None:
                continue
            here = numbers[box] == value
            first = box[0].start, box[1].start + int(here[0].argmax())
            if not (rows.start <= first[0] < rows.stop and columns.start <= first[1] < columns.stop):
                continue
            polygons.add(
                here,
                label=self.labels[number],
                colour=colour,
                corner=(tile.left + box[1].start, tile.top + box[0].start),
                scale=slide.downsample,
            )
            count += 1
            cut += any(
                (before and part.start == 0) or (behind and part.stop == size)
                for part, size, (before, behind) in zip(box, numbers.shape, open_ends, strict=True)
            )
        return count, cut


class _Thumbnail:
    """The mask as small as the thumbnail, filled while tiles are done."""

    def __init__(self, shape: Sequence[int], size: Sequence[int]) -> None:
        self.picture = np.zeros(shape, np.uint8)
        self.places = [(np.arange(small) + 0.5) * side / small for small, side in zip(shape, size, strict=True)]

    def add(self, core: tuple[slice, slice], pixels: np.ndarray) -> None:
        inside = [
            np.flatnonzero((place >= part.start) & (place < part.stop))
            for place, part in zip(self.places, core, strict=True)
        ]
        rows, columns = (
            np.floor(place[where]).astype(int) - part.start
            for place, where, part in zip(self.places, inside, core, strict=True)
        )
        self.picture[np.ix_(*inside)] = pixels[np.ix_(rows, columns)]


def _values(count: int) -> list[int]:
    return [255] if count == 1 else list(range(1, count + 1))


def _index_tile(masks: np.ndarray) -> np.ndarray:
    picture = np.zeros(masks.shape[1:], np.uint8)
    for value, mask in zip(_values(len(masks)), masks, strict=True):
        picture[mask] = value
    return picture
