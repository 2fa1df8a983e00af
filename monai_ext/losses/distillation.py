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
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.nn.modules.loss import _Loss


class StudentAndTeacher(Protocol):
    """What a student and its teacher make of the same images, see :class:`KnowledgeDistillation`."""

    @property
    def features(self) -> Sequence[Tensor]: ...
    @property
    def logits(self) -> Tensor: ...
    @property
    def teacher_features(self) -> Sequence[Tensor]: ...
    @property
    def teacher_logits(self) -> Tensor: ...


class DistillationLoss(_Loss):
    r"""
    How far a student is from its teacher, in its features and in its answer, and from the truth.

    .. math::
        L = \frac{\lambda_f}{K} \sum_k \frac{\lVert s_k - t_k \rVert^2}{\lVert t_k \rVert^2}
            + \lambda_l \operatorname{KL}(\sigma(t) \Vert \sigma(s)) + L_{task}(s, y)

    over K maps of features, each relative to the teacher's so that maps of any scale count alike, and the logits of
    each label of each pixel. A term of weight 0 is not computed.

    Args:
        loss: the task's own, of logits and target; None leaves the truth out.
        lambda_features: weight of the mean squared error of the features, at least 0.
        lambda_logits: weight of the divergence of the answers, at least 0.

    Shape:
        ``input`` what :class:`monai_ext.networks.KnowledgeDistillation` gives in training, ``target`` (B, C, H, W).
        The result is a scalar.

    Raises:
        ValueError: a weight is out of its range, or nothing is compared; on calling, shapes differ.

    Source:
        The features after KD-SAM, 2025, https://arxiv.org/abs/2501.16740, the answers after Hinton, Vinyals, Dean,
        Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531, at temperature 1 and for
        labels that may overlap.

    Example:
        >>> from types import SimpleNamespace
        >>> map, answer = torch.ones(1, 4, 2, 2), torch.zeros(1, 1, 8, 8)
        >>> same = SimpleNamespace(features=[map], teacher_features=[map], logits=answer, teacher_logits=answer)
        >>> DistillationLoss()(same, answer).item()
        0.0
    """

    def __init__(
        self,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        lambda_features: float = 1.0,
        lambda_logits: float = 1.0,
    ) -> None:
        super().__init__()
        for name, weight in (("lambda_features", lambda_features), ("lambda_logits", lambda_logits)):
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, not {weight!r}.")
        if loss is None and not lambda_features + lambda_logits:
            raise ValueError("lambda_features or lambda_logits must be above 0, or a loss be given.")
        self.loss, self.lambda_features, self.lambda_logits = loss, lambda_features, lambda_logits

    def forward(self, input: StudentAndTeacher, target: Tensor) -> Tensor:
        """Compute the loss of what both networks make of the same images."""
        terms = []
        if self.lambda_features:
            pairs = zip(input.features, input.teacher_features, strict=True)
            terms.append(self.lambda_features * torch.stack([_relative_error(*pair) for pair in pairs]).mean())
        if self.lambda_logits:
            terms.append(self.lambda_logits * _divergence(input.logits, input.teacher_logits))
        if self.loss is not None:
            terms.append(self.loss(input.logits, target))
        return torch.stack(terms).sum()


def _relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    own, wanted = _alike("features", student, teacher)
    return F.mse_loss(own, wanted) / wanted.square().mean().clamp(min=1e-12)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    own, wanted = _alike("logits", student, teacher)
    chance = wanted.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(wanted, chance)
    return F.binary_cross_entropy_with_logits(own, chance) - entropy


def _alike(name: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least: half precision cannot sum the squares of an image."""
    if student.shape != teacher.shape:
        raise ValueError(f"{name} must be alike, not {tuple(student.shape)} and {tuple(teacher.shape)}.")
    dtype = torch.promote_types(student.dtype, torch.float32)
    return convert_to_tensor(student, dtype=dtype), convert_to_tensor(teacher, dtype=dtype).detach()
