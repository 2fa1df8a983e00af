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

from pathlib import Path

import torch
from torch import Tensor

from monai_ext.label.model import BundleModel

# None, left and right, up and down, both: as dimensions of (B, C, H, W).
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def disagreement(probabilities: Tensor) -> Tensor:
    r"""
    How much several answers to one question disagree: the entropy of their mean less the mean of their entropies.

    .. math:: I = H\Big(\frac1T \sum_t p_t\Big) - \frac1T \sum_t H(p_t)

    It is the part of the uncertainty that more labels could remove (epistemic), 0 where all answers agree, however
    unsure they are, and at most log 2.

    Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", arXiv 1112.5745.

    Args:
        probabilities: ``(T, ...)`` in 0..1.

    Returns:
        ``(...)`` in nats.

    Example:
        >>> disagreement(torch.tensor([[0.0, 0.5], [1.0, 0.5]])).tolist()
        [0.6931471824645996, 0.0]
    """
    return (_entropy(probabilities.mean(0)) - _entropy(probabilities).mean(0)).clamp(min=0)


def uncertainty(model: BundleModel, path: Path) -> float:
    """
    How unsure a model is of a picture, to choose what to label next: its disagreement over flips of the picture.

    The mean over all pixels that any flip calls the label with a chance of one in ten, so that much ground does not
    make a picture look easy; 0 if there are none.

    Wang et al., "Aleatoric uncertainty estimation with test-time augmentation", Neurocomputing 2019, arXiv 1807.07356.

    Args:
        model: a bundle of pictures.
        path: the picture.

    Raises:
        RequestRefused: the picture cannot be read, or nothing was trained.
    """
    answers = [model.logits(path, flip=dims) for dims in FLIPS]
    probabilities = torch.stack(answers).float().sigmoid()
    chosen = (probabilities > 0.1).any(0)
    return float(disagreement(probabilities)[chosen].mean()) if chosen.any() else 0.0


def _entropy(p: Tensor) -> Tensor:
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
