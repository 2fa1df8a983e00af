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

from typing import NamedTuple

import torch
from torch import Tensor, nn

from monai_ext.networks.segmenter import ImageEmbedding, SAM2Segmenter

PARTS = ("encoder", "decoder")


class TaughtMaps(NamedTuple):
    """What a student makes of images, and what its teacher makes of the same ones."""

    features: tuple[Tensor, ...]  # of the embedding: (B, 256, h, w), (B, 32, 4h, 4w) and (B, 64, 2h, 2w)
    logits: Tensor  # (B, C, H, W)
    teacher_features: tuple[Tensor, ...]
    teacher_logits: Tensor


class KnowledgeDistillation(nn.Module):
    """
    A student beside its frozen teacher: tune a large network, ship a small one.

    The two parts are learned one after the other. While the encoder is, the student's embedding goes through the
    teacher's decoder; while the decoder is, through its own, and its encoder stays as it is. In training the answer is
    what :class:`monai_ext.losses.DistillationLoss` compares, in evaluation the logits of the student's part.

    An embedding has 256, 32 and 64 channels in every size of SAM 2.1, so nothing needs to be projected.

    Args:
        student: learns what of its own is trained; it is what is saved.
        teacher: is frozen here and stays in evaluation mode.
        part: ``encoder`` (with the layers of the decoder that the embedding goes through, ``conv_s0`` and ``conv_s1``)
            or ``decoder``.

    Shape:
        - image: ``(B, 3, H, W)``, as :class:`SAM2Segmenter` takes it.
        - output: :class:`TaughtMaps` in training, ``(B, C, H, W)`` logits in evaluation.

    Raises:
        TypeError: the student is wrapped, for several devices.
        ValueError: ``part`` is neither of the two, or the two networks have other labels or enlarge otherwise.

    Source:
        After KD-SAM, 2025, https://arxiv.org/abs/2501.16740: first the encoder, by mean squared error and a perceptual
        loss of embeddings, then the decoder. Which layers and weights is not published; what was chosen here stands in
        ``docs/how-to/distil.md``.

    Example:
        >>> teacher = SAM2Segmenter(size="tiny", labels=["vessel"])
        >>> lesson = KnowledgeDistillation(student=SAM2Segmenter(size="micro", labels=["vessel"]), teacher=teacher)
        >>> maps = lesson(torch.zeros(1, 3, 32, 32))
        >>> [tuple(map.shape) for map in maps.features] == [tuple(map.shape) for map in maps.teacher_features]
        True
        >>> lesson.eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 1, 32, 32])
    """

    def __init__(self, *, student: SAM2Segmenter, teacher: SAM2Segmenter, part: str = "encoder") -> None:
        super().__init__()
        if not isinstance(student, SAM2Segmenter):
            raise TypeError(f"student must be a SAM2Segmenter, not {type(student).__name__}: distil in one process.")
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, not {part!r}.")
        for name in ("labels", "enlarge"):
            own, wanted = getattr(student, name), getattr(teacher, name)
            if own != wanted:
                raise ValueError(f"{name} of the teacher must be the student's, {own!r}, not {wanted!r}.")
        self.student, self.part = student, part
        self.teacher = teacher.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> TaughtMaps | Tensor:
        encoder = self.part == "encoder"
        with torch.set_grad_enabled(encoder and torch.is_grad_enabled()):
            embedding = self.student.encode(image)
        logits = (self.teacher if encoder else self.student).decode(embedding)[0]
        if not self.training:
            return logits
        with torch.no_grad():
            known = self.teacher.encode(image)
            teacher_logits = self.teacher.decode(known)[0]
        return TaughtMaps(_maps(embedding), logits, _maps(known), teacher_logits)

    def train(self, mode: bool = True) -> KnowledgeDistillation:
        """Switch the student alone: a teacher with dropout would say another thing every time."""
        super().train(mode)
        self.teacher.eval()
        return self


def _maps(embedding: ImageEmbedding) -> tuple[Tensor, ...]:
    return (embedding.features, *embedding.high_res)
