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

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Affine, MapTransform, Randomizable
from monai.utils import convert_to_tensor
from scipy.ndimage import find_objects
from torch import Tensor


class RandObjectCropd(Randomizable, MapTransform):
    """
    Cut a turned, enlarged or reduced square around a random object, and list objects in it, a mask for each.

    The object is chosen first and the scale after it, so that small objects are seen large as often as large ones:
    the object takes a part of the square that is drawn from ``extent``, as far as ``zoom`` allows. Further objects
    of the square are added up to ``objects``; where there are fewer, some are repeated, or, with ``decoys``, take the
    place of an object that is not there: a small disc of plain ground, which an annotator would click in vain.

    Args:
        keys: the image and the map of objects, in this order.
        size: width and height of the square that comes out, in pixels.
        objects: number of masks K.
        extent: least and largest part of the square's side that the object's longer side takes.
        zoom: least and largest number of pixels that come out for one that goes in.
        decoys: part of the free places that show plain ground; only for maps in which no object is left out.
        smallest: objects of fewer pixels in the square are no objects.
        seed: start of the random numbers; ``set_random_state`` starts them anew.

    Shape:
        image (3, H, W), map (1, H, W) of whole numbers, 0 for the ground. They become (3, size, size) and (K, size,
        size) masks: 1 on an object, -1 on a decoy, 0 elsewhere.

    Raises:
        ValueError: a range does not fit, or the map shows no object.

    Example:
        >>> item = {"image": torch.rand(3, 40, 50), "label": torch.zeros(1, 40, 50, dtype=torch.int32)}
        >>> item["label"][0, 10:20, 10:30] = 7
        >>> out = RandObjectCropd(keys=["image", "label"], size=64, objects=2)(item)
        >>> out["image"].shape, out["label"].shape, out["label"].unique().tolist()
        (torch.Size([3, 64, 64]), torch.Size([2, 64, 64]), [0.0, 1.0])
    """

    def __init__(
        self,
        *,
        keys: KeysCollection,
        size: int,
        objects: int = 4,
        extent: Sequence[float] = (0.15, 0.7),
        zoom: Sequence[float] = (0.25, 4.0),
        decoys: float = 0.0,
        smallest: int = 16,
        seed: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        if len(self.keys) != 2:
            raise ValueError(f"keys must be two, image and map of objects, not {self.keys}.")
        for name, pair in (("extent", extent), ("zoom", zoom)):
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name} must be the least and the largest value, above 0, not {pair!r}.")
        if not 0 <= decoys <= 1:
            raise ValueError(f"decoys must be a part between 0 and 1, not {decoys}.")
        self.size, self.objects, self.extent, self.zoom = size, objects, tuple(extent), tuple(zoom)
        self.decoys, self.smallest = decoys, smallest
        self.set_random_state(seed=seed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        image_key, label_key = self.keys
        image, objects = (convert_to_tensor(item[key], track_meta=False) for key in self.keys)
        boxes = find_objects(objects[0].numpy().astype(np.int32))
        numbers = [number for number, box in enumerate(boxes, start=1) if box is not None]
        if not numbers:
            raise ValueError(f"The map of objects '{label_key}' must show an object; take this item out of the data.")
        for _ in range(10):
            chosen = numbers[self.R.randint(len(numbers))]
            square = self._square(objects[0], chosen, boxes[chosen - 1])
            cut = Affine(**square, mode="nearest", padding_mode="zeros", image_only=True)(objects.float())
            labels = convert_to_tensor(cut, track_meta=False)[0].round().long()
            if (labels == chosen).sum() >= self.smallest:
                break
        seen = Affine(**square, mode="bilinear", padding_mode="zeros", image_only=True)(image)
        item[image_key] = convert_to_tensor(seen, track_meta=False)
        item[label_key] = self._masks(labels, chosen)
        return item

    def _square(self, objects: Tensor, number: int, box: tuple[slice, slice]) -> dict[str, Any]:
        sides = [side.stop - side.start for side in box]
        part = np.exp(self.R.uniform(*np.log(self.extent)))
        # An object wider than the square may be has a zoom of its own, any that is allowed.
        zoom = min(max(part * self.size / max(sides), self.zoom[0]), self.zoom[1])
        if max(sides) * self.zoom[0] > self.size:
            zoom = np.exp(self.R.uniform(*np.log(self.zoom)))
        inside = np.argwhere(objects[box].numpy() == number)
        place = inside[self.R.randint(len(inside))] + [box[0].start, box[1].start]
        middle = np.array([(side.start + side.stop - 1) / 2 for side in box])
        if max(sides) * zoom < self.size:  # an object that fits is shown whole
            room = (self.size / zoom - max(sides)) / 2
            place = middle + self.R.uniform(-0.8, 0.8, 2) * room
        offset = place - (np.array(objects.shape) - 1) / 2
        turn, flip = self.R.uniform(-np.pi, np.pi), self.R.choice([-1, 1])
        # From pixels that come out, counted from the middle, to those that go in.
        matrix = np.array([[np.cos(turn), -np.sin(turn) * flip], [np.sin(turn), np.cos(turn) * flip]]) / zoom
        return {"affine": np.block([[matrix, offset[:, None]], [0, 0, 1]]), "spatial_size": (self.size, self.size)}

    def _masks(self, cut: Tensor, chosen: int) -> Tensor:
        numbers, counts = cut.unique(return_counts=True)
        others = [int(n) for n, count in zip(numbers, counts, strict=True) if n > 0 and count >= self.smallest]
        others = [n for n in self.R.permutation(others) if n != chosen][: self.objects - 1]
        masks = [(cut == number).float() for number in [chosen, *others]]
        found = len(masks)
        while len(masks) < self.objects:
            decoy = self._decoy(cut) if self.R.random_sample() < self.decoys else None
            masks.append(masks[self.R.randint(found)] if decoy is None else -decoy.float())
        return torch.stack(masks)

    def _decoy(self, cut: Tensor) -> Tensor | None:
        ground = (cut == 0).nonzero()
        if len(ground) == 0:
            return None
        y, x = ground[self.R.randint(len(ground))]
        rows, columns = torch.arange(cut.shape[0]).reshape(-1, 1), torch.arange(cut.shape[1])
        return ((rows - y) ** 2 + (columns - x) ** 2 <= (0.02 * self.size + 1) ** 2) & (cut == 0)
