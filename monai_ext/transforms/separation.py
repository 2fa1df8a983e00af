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

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor, ensure_tuple, look_up_option
from torch import Tensor

_SEEDS = ("distance", "probability")


class SeparateInstances(Transform):
    r"""
    Divide what was segmented into its objects, such as nuclei or glands that touch: watershed from h-maxima.

    The pixels above ``threshold`` are flooded from one seed for each object. The landscape is the distance to the
    nearest pixel outside, or the probability itself, smoothed if asked for; seeds are its h-maxima,

    .. math::
        \{x : f(x) - R_f(f - h)(x) \geq h\},

    with :math:`R_f` the morphological reconstruction below f: a hill counts if it rises by h above the saddle to a
    higher one. A part without a seed, lower than h, is one object.

    Vincent, "Morphological grayscale reconstruction in image analysis", IEEE Transactions on Image Processing 2(2),
    1993; Soille, "Morphological Image Analysis", 1999 (h-maxima); Beucher and Lantuejoul, 1979 (watershed).

    Args:
        threshold: probability from which a pixel belongs to an object, in (0, 1).
        seeds: ``distance`` separates round objects, ``probability`` those between which the network sees a seam.
        h: height of a hill that is an object of its own, in pixels or as a probability; above 0.
        smoothing: deviation of the Gaussian that smooths the landscape, in pixels; takes out hills that a ragged edge
            makes. 0 leaves it as it is.
        smallest: objects of fewer pixels are left out.
        fill_holes: whether holes in an object belong to it.

    Shape:
        probability ``(1, H, W)``; the result ``(1, H, W)`` int32: 0 for the ground and 1, 2, ... for the objects.

    Raises:
        ValueError: a setting is out of its range, or the probability has other dimensions.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(20), torch.arange(40), indexing="ij")
        >>> discs = [((y - 10) ** 2 + (x - at) ** 2 < 64) for at in (12, 25)]
        >>> SeparateInstances(h=1)((discs[0] | discs[1]).float()[None]).max().item()
        2
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        seeds: str = "distance",
        h: float = 1.0,
        smoothing: float = 0.0,
        smallest: int = 1,
        fill_holes: bool = True,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, not {threshold}.")
        if not h > 0:
            raise ValueError(f"h must be above 0, not {h}.")
        if not 0 <= smoothing < float("inf"):
            raise ValueError(f"smoothing must be a number of at least 0 pixels, not {smoothing}.")
        self.threshold, self.h, self.smoothing, self.smallest = threshold, h, smoothing, smallest
        self.fill_holes = fill_holes
        self.seeds = look_up_option(seeds, _SEEDS)

    def __call__(self, img: Any) -> Tensor:
        probability = convert_to_tensor(img, track_meta=False).detach().float().cpu()
        if probability.ndim != 3 or len(probability) != 1:
            raise ValueError(f"The probability must be (1, H, W), not {tuple(probability.shape)}.")
        return torch.from_numpy(self._separate(probability[0].numpy()))[None]

    def _separate(self, probability: np.ndarray) -> np.ndarray:
        from scipy import ndimage
        from skimage.morphology import h_maxima
        from skimage.segmentation import relabel_sequential, watershed

        mask = probability > self.threshold
        if self.fill_holes:
            mask = ndimage.binary_fill_holes(mask)
        parts, _ = ndimage.label(mask)
        distance = ndimage.distance_transform_edt(mask)
        landscape = distance if self.seeds == "distance" else np.where(mask, probability, 0.0)
        landscape = ndimage.gaussian_filter(landscape, self.smoothing)
        seeds, count = ndimage.label(h_maxima(landscape, self.h), np.ones((3, 3)))
        seeds[~mask] = 0
        for number in np.setdiff1d(parts[mask], parts[seeds > 0]):
            count += 1
            seeds[parts == number] = count
        objects = watershed(-landscape, seeds, mask=mask)
        objects[(np.bincount(objects.ravel()) < self.smallest)[objects]] = 0
        return relabel_sequential(objects)[0].astype(np.int32)


class SeparateInstancesd(MapTransform):
    """
    Dictionary version of :class:`SeparateInstances`: each label's objects, from its probability.

    Args:
        keys: probabilities, one channel for each label.
        instances_key: where the objects are written, or one key for each of ``keys``.
        threshold, seeds, h, smoothing, smallest, fill_holes: as for :class:`SeparateInstances`.
        allow_missing_keys: whether to leave items without the key as they are.

    Shape:
        probability ``(C, H, W)``; the result ``(C, H, W)`` int32.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> item = {"probability": torch.eye(4)[None].repeat(2, 1, 1)}
        >>> SeparateInstancesd(keys="probability", instances_key="instances")(item)["instances"].shape
        torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        *,
        keys: KeysCollection,
        instances_key: KeysCollection = "instances",
        threshold: float = 0.5,
        seeds: str = "distance",
        h: float = 1.0,
        smoothing: float = 0.0,
        smallest: int = 1,
        fill_holes: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.written = ensure_tuple(instances_key)
        self.separate = SeparateInstances(
            threshold=threshold, seeds=seeds, h=h, smoothing=smoothing, smallest=smallest, fill_holes=fill_holes
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key, written in self.key_iterator(item, self.written):
            item[written] = torch.cat([self.separate(channel[None]) for channel in item[key]])
        return item


class ConnectedInstancesd(MapTransform):
    """
    Number the connected parts of masks that do not tell their objects apart; numbered objects stay as they are.

    Args:
        keys: masks (0 and one other value) or maps of objects (several values).
        instances_key: where the objects are written.
        allow_missing_keys: whether to leave items without the key as they are.

    Shape:
        mask or map ``(C, H, W)``; the result ``(C, H, W)`` int32, 0 for the ground.

    Example:
        >>> mask = torch.tensor([[[255, 0, 255], [255, 0, 0]]])
        >>> ConnectedInstancesd(keys="label")({"label": mask})["instances"].tolist()
        [[[1, 0, 2], [1, 0, 0]]]
    """

    def __init__(
        self, *, keys: KeysCollection, instances_key: str = "instances", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.instances_key = instances_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from scipy.ndimage import label

        item = dict(data)
        for key in self.key_iterator(item):
            channels = convert_to_tensor(item[key], track_meta=False).cpu().numpy()
            numbered = [c if len(np.unique(c[c != 0])) > 1 else label(c)[0] for c in channels]
            item[self.instances_key] = torch.from_numpy(np.stack(numbered).astype(np.int32))
        return item
