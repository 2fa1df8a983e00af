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

from typing import Any

import pytest
import torch
from torch import Tensor

from monai_ext.adapters import LoRA
from monai_ext.losses import DistillationLoss
from monai_ext.networks import KnowledgeDistillation, SAM2Segmenter

LABELS = ["vessel", "disc"]
ENCODER = ("image_encoder.", "no_mem_embed", "sam_mask_decoder.conv_s")


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher() -> SAM2Segmenter:
    adapter = LoRA(targets=["*trunk*attn.qkv"], rank=2, dropout=0.5)
    network = SAM2Segmenter(size="tiny", labels=LABELS, adapters=[adapter], seed=1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_b" in name:
                parameter += 0.1
    return network


def make_student(**settings: Any) -> SAM2Segmenter:
    return SAM2Segmenter(**{"size": "micro", "labels": LABELS, "train": ["*"], "seed": 2, **settings})


def learn(lesson: KnowledgeDistillation, loss: DistillationLoss, image: Tensor, target: Tensor) -> list[float]:
    """The loss of each of a few steps on the same images."""
    optimizer = torch.optim.AdamW([p for p in lesson.student.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        value = loss(lesson.train()(image), target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def test_encoder_then_decoder_come_near_the_teacher(teacher: SAM2Segmenter, image: Tensor) -> None:
    """Both stages: each lowers its loss, and moves its own part only."""
    student = make_student()
    target = (image[:, :2] > 0.5).float()
    wanted = {key: value.clone() for key, value in teacher.state_dict().items()}

    before = student.trained_state_dict()
    losses = learn(KnowledgeDistillation(student=student, teacher=teacher), DistillationLoss(), image, target)
    assert losses[-1] < 0.9 * losses[0]
    after = student.trained_state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and all(key.startswith(ENCODER) for key in moved)

    lesson = KnowledgeDistillation(student=student, teacher=teacher, part="decoder")
    losses = learn(lesson, DistillationLoss(loss=torch.nn.BCEWithLogitsLoss(), lambda_features=0), image, target)
    assert losses[-1] < 0.98 * losses[0]  # the target here is noise
    end = student.trained_state_dict()
    moved = {key for key in after if not torch.equal(after[key], end[key])}
    assert "class_tokens.weight" in moved and not any(key.startswith(ENCODER) for key in moved)

    assert all(torch.equal(teacher.state_dict()[key], value) for key, value in wanted.items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_what_is_compared(teacher: SAM2Segmenter, image: Tensor) -> None:
    student = make_student().eval()
    lesson = KnowledgeDistillation(student=student, teacher=teacher).train()
    assert student.training and not teacher.training
    with torch.no_grad():
        maps, again = lesson(image), lesson(image)
        known = teacher.encode(image)
        own = student.encode(image)
        expected = (own.features, *own.high_res), teacher.decode(own)[0], (known.features, *known.high_res)
        torch.testing.assert_close((maps.features, maps.logits, maps.teacher_features), expected)
        torch.testing.assert_close(maps.teacher_logits, teacher(image))
        assert torch.equal(maps.teacher_logits, again.teacher_logits), "the teacher's dropout must be off"
        # In evaluation each part answers as a network: whose decoder is it?
        torch.testing.assert_close(lesson.eval()(image), maps.logits)
        decoder = KnowledgeDistillation(student=student, teacher=teacher, part="decoder").eval()
        torch.testing.assert_close(decoder(image), student(image))


def test_a_student_that_is_its_teacher_has_nothing_to_learn(image: Tensor) -> None:
    for part in ("encoder", "decoder"):
        lesson = KnowledgeDistillation(student=make_student(), teacher=make_student(), part=part).train()
        with torch.no_grad():
            assert DistillationLoss()(lesson(image), image[:, :2]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "part", "error", "message"),
    [
        (lambda: make_student(labels=["vessel"]), "encoder", ValueError, "labels of the teacher must be the student's"),
        (lambda: make_student(enlarge=2), "encoder", ValueError, "enlarge of the teacher must be the student's, 2"),
        (make_student, "neck", ValueError, "part must be one of encoder, decoder, not 'neck'"),
        (
            lambda: torch.nn.DataParallel(make_student()),
            "encoder",
            TypeError,
            "not DataParallel: distil in one process",
        ),
    ],
    ids=["labels", "enlarge", "part", "wrapped"],
)
def test_what_does_not_go_together(student: Any, part: str, error: Any, message: str, teacher: SAM2Segmenter) -> None:
    with pytest.raises(error, match=message):
        KnowledgeDistillation(student=student(), teacher=teacher, part=part)
