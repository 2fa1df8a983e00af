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
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

__all__ = ["NormalizeStain", "NormalizeStaind", "RandStain", "RandStaind", "tissue_mask"]

# A slide without tissue has a saturation of noise only, which Otsu would divide as well.
_LEAST_SATURATION = 0.05
# Dust and hairs are smaller than tissue, as parts of the picture.
_LEAST_PART = 1e-4
# What interpolation may add to colours.
_ROUNDING = 1e-4


def tissue_mask(image: Tensor) -> Tensor:
    r"""
    Find tissue in a small picture of a stained slide: Otsu's threshold on the saturation, smoothed.

    .. math::
        s = \frac{\max(R, G, B) - \min(R, G, B)}{\max(R, G, B)}

    Glass is white or grey, so its saturation is near 0; stained tissue has colour. The threshold is at least 0.05, so
    that an empty slide has no tissue, and black borders have none. Parts below 0.01 % of the picture are dust. What is
    left grows by two pixels, since a thumbnail shows a thin edge too faintly.

    Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man and Cybernetics
    9(1), 1979; on saturation as Lu et al., "Data-efficient and weakly supervised computational pathology on
    whole-slide images" (CLAM), Nature Biomedical Engineering 5, 2021.

    Args:
        image: RGB from 0 to 1; a thumbnail of the slide.

    Shape:
        image ``(3, H, W)``; the result ``(1, H, W)`` bool, True on tissue.

    Raises:
        ValueError: the image has other dimensions.

    Example:
        >>> image = torch.ones(3, 64, 64)
        >>> image[:, 16:48, 16:48] = torch.tensor([0.8, 0.4, 0.7]).reshape(3, 1, 1)
        >>> mask = tissue_mask(image)
        >>> mask[0, 32, 32].item(), mask[0, 2, 2].item()
        (True, False)
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    if image.ndim != 3 or len(image) != 3:
        raise ValueError(f"image must be RGB (3, H, W), not {tuple(image.shape)}.")
    colours = convert_to_tensor(image, track_meta=False).detach().float().cpu().numpy()
    brightest = colours.max(0)
    # What is nearly black has a saturation of noise.
    saturation = np.where(brightest > 0.1, (brightest - colours.min(0)) / np.maximum(brightest, 0.1), 0)
    saturation = ndimage.median_filter(saturation, 3)
    threshold = max(float(threshold_otsu(saturation)) if np.ptp(saturation) else 0.0, _LEAST_SATURATION)
    mask = ndimage.binary_closing(np.pad(saturation > threshold, 2), iterations=2)[2:-2, 2:-2]
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    dust = np.bincount(parts.ravel()) < _LEAST_PART * mask.size
    mask = ndimage.binary_dilation(mask & ~dust[parts], iterations=2) if count else mask
    return torch.from_numpy(mask)[None].to(image.device)


class NormalizeStain(Transform):
    r"""
    Give an H&E image the colours of a reference: stain vectors by Macenko's method, stain by stain.

    Absorbances are :math:`-\ln(I / I_0) = V C` with the two stain vectors V and their amounts C. V and the amounts'
    99th percentiles are exchanged for the reference's.

    It is MONAI's ``NormalizeHEStains`` with the two stains in order: haematoxylin is the one that absorbs more red. In
    MONAI 1.6.1 the comparison is the wrong way round, so that eosin gets the colour of haematoxylin and the reverse.

    Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.

    Args:
        settings: as for ``monai.apps.pathology.transforms.NormalizeHEStains``.

    Shape:
        ``(3, H, W)`` RGB from 0 to 1; so is the result, float32.

    Raises:
        ValueError: another shape or range, or an image without stain.

    Example:
        >>> image = torch.rand(3, 16, 16) * 0.7
        >>> NormalizeStain()(image).shape
        torch.Size([3, 16, 16])
    """

    def __init__(self, **settings: Any) -> None:
        from monai.apps.pathology.transforms import NormalizeHEStains

        self.normalize = NormalizeHEStains(**settings)
        extract = self.normalize.stain_extractor

        def in_order(image: np.ndarray) -> np.ndarray:
            stains = extract(image)
            return stains[:, np.argsort(-stains[0])]

        self.normalize.stain_extractor = in_order  # type: ignore[assignment]

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        colours = _rgb(img)
        pixels = np.round(np.moveaxis(colours, 0, -1) * 255).astype(np.uint8)
        normal = np.moveaxis(self.normalize(pixels), -1, 0).astype(np.float32) / 255
        return convert_to_dst_type(np.ascontiguousarray(normal), img, dtype=torch.float32)[0]


class NormalizeStaind(MapTransform):
    """
    Dictionary version of :class:`NormalizeStain`.

    Args:
        keys: images.
        allow_missing_keys: whether to leave items without the key as they are.
        settings: as for :class:`NormalizeStain`.

    Example:
        >>> NormalizeStaind(keys="image")({"image": torch.rand(3, 8, 8) * 0.7})["image"].shape
        torch.Size([3, 8, 8])
    """

    def __init__(self, *, keys: KeysCollection, allow_missing_keys: bool = False, **settings: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalize = NormalizeStain(**settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.normalize(item[key])
        return item


class RandStain(RandomizableTransform):
    r"""
    Stain an H&E image a little more or less, stain by stain, as other laboratories do.

    The amounts of haematoxylin, eosin and the residual (colour deconvolution of Ruifrok and Johnston, 2001) become

    .. math::
        c' = \alpha c + \beta, \qquad \alpha \in [1 - \sigma, 1 + \sigma],\ \beta \in [-\sigma, \sigma] \cdot 0.1

    with a pair drawn for each stain. In scikit-image's units the amounts lie between 0 and about 1, for a pixel that
    transmits a millionth; a shift of a tenth of :math:`\sigma` is then as strong as a factor.

    Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference to train distilled
    stain-invariant convolutional networks", IEEE Transactions on Medical Imaging 37(9), 2018.

    Args:
        prob: part of the images that are changed.
        strength: sigma.

    Shape:
        ``(3, H, W)`` RGB from 0 to 1; so is the result, float32.

    Raises:
        ValueError: the strength is negative, or the image has another shape or range.

    Example:
        >>> image = torch.rand(3, 8, 8)
        >>> RandStain(prob=1.0, strength=0.2)(image).shape
        torch.Size([3, 8, 8])
    """

    def __init__(self, *, prob: float = 0.5, strength: float = 0.05) -> None:
        super().__init__(prob)
        if strength < 0:
            raise ValueError(f"strength must not be negative, not {strength}.")
        self.strength = strength
        self._draws = np.zeros((2, 3))

    def randomize(self, data: Any = None) -> None:
        super().randomize(None)
        self._draws = self.R.uniform(-self.strength, self.strength, (2, 3))

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        from skimage.color import hed2rgb, rgb2hed

        self.randomize()
        if not self._do_transform:
            return img
        factors, shifts = self._draws
        stains = rgb2hed(_rgb(img), channel_axis=0)
        changed = stains * (1 + factors).reshape(3, 1, 1) + 0.1 * shifts.reshape(3, 1, 1)
        colours = hed2rgb(changed, channel_axis=0).clip(0, 1).astype(np.float32)
        return convert_to_dst_type(np.ascontiguousarray(colours), img, dtype=torch.float32)[0]


class RandStaind(RandomizableTransform, MapTransform):
    """
    Dictionary version of :class:`RandStain`; all keys are stained alike.

    Args:
        keys: images.
        prob: part of the items that are changed.
        strength: as for :class:`RandStain`.
        allow_missing_keys: whether to leave items without the key as they are.

    Example:
        >>> RandStaind(keys="image", prob=1.0)({"image": torch.rand(3, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self, *, keys: KeysCollection, prob: float = 0.5, strength: float = 0.05, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.stain = RandStain(prob=1.0, strength=strength)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandStaind:
        super().set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return item
        seed = int(self.R.randint(2**31))
        for key in self.key_iterator(item):
            self.stain.set_random_state(seed=seed)
            item[key] = self.stain(item[key])
        return item


def _rgb(image: NdarrayOrTensor) -> np.ndarray:
    colours = convert_to_tensor(image, track_meta=False).detach().float().cpu().numpy()
    if colours.ndim != 3 or len(colours) != 3 or colours.min() < -_ROUNDING or colours.max() > 1 + _ROUNDING:
        raise ValueError(
            f"A stained image must be RGB (3, H, W) from 0 to 1, not {colours.shape} from {colours.min():g} to "
            f"{colours.max():g}; stains come before the normalisation for the network."
        )
    return colours.clip(0, 1)
