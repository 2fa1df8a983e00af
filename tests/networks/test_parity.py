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

"""The same weights and prompts must give what Meta's own modules, built from Meta's own configuration, give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from monai_ext.adapters import LoRA
from monai_ext.networks import SAM2Segmenter

IMAGE_SIZE = 256


@pytest.fixture(scope="module")
def official():
    from sam2.build_sam import build_sam2

    model = build_sam2(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        device="cpu",
        apply_postprocessing=False,
        hydra_overrides_extra=[f"++model.image_size={IMAGE_SIZE}"],
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # many start at zero, where a mistake would not show
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def checkpoint(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": official.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))


CLICKS = torch.tensor([[[40.0, 200.0], [128.0, 3.0]], [[7.0, 7.0], [250.0, 100.0]]])
KINDS = torch.tensor([[1, 0], [1, 1]])
BOXES = torch.tensor([[20.0, 30.0, 200.0, 180.0], [0.0, 0.0, 255.0, 100.0]])
EARLIER = torch.randn(2, 1, IMAGE_SIZE // 4, IMAGE_SIZE // 4, generator=torch.Generator().manual_seed(2)) * 5
PROMPTS = {
    "points": {"points": CLICKS, "point_labels": KINDS},
    "box": {"boxes": BOXES},
    "mask": {"masks": EARLIER},
    "box, points and mask": {"points": CLICKS, "point_labels": KINDS, "boxes": BOXES, "masks": EARLIER},
}


def image_predictor(model, image, points=None, point_labels=None, boxes=None, masks=None, multimask=False):
    """The steps of ``SAM2ImagePredictor`` (its file cannot be imported without torchvision)."""
    out = model.forward_image(image)
    _, features, _, _ = model._prepare_backbone_features(out)
    features[-1] = features[-1] + model.no_mem_embed
    sides = [IMAGE_SIZE // 4, IMAGE_SIZE // 8, IMAGE_SIZE // 16]
    maps = [f.permute(1, 2, 0).view(len(image), -1, s, s) for f, s in zip(features, sides, strict=True)]
    click = None if points is None else (points, point_labels)
    if boxes is not None:
        corners, kinds = boxes.reshape(-1, 2, 2), torch.tensor([[2, 3]]).repeat(len(image), 1)
        click = (
            (corners, kinds)
            if click is None
            else (torch.cat([corners, points], 1), torch.cat([kinds, point_labels], 1))
        )
    sparse, dense = model.sam_prompt_encoder(points=click, boxes=None, masks=masks)
    low_res, iou, _, _ = model.sam_mask_decoder(
        image_embeddings=maps[-1],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        repeat_image=False,
        high_res_features=maps[:-1],
    )
    return F.interpolate(low_res, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False), iou


@pytest.mark.parametrize(
    "adapters", [[], [LoRA(targets=["*trunk*attn.qkv", "sam_mask_decoder.transformer.*attn*_proj"])]]
)
@pytest.mark.parametrize("name", PROMPTS)
def test_prompted_output_equals_the_official_modules(official, checkpoint, image, name, adapters):
    net = SAM2Segmenter(size="tiny", weights=checkpoint, adapters=adapters).eval()
    with torch.no_grad():
        expected, expected_iou = image_predictor(official.eval(), image, **PROMPTS[name])
        logits, iou = net.decode(net.encode(image), **PROMPTS[name])
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou, expected_iou, atol=1e-4, rtol=1e-4)


def test_multimask_equals_the_official_choice(official, checkpoint, image):
    net = SAM2Segmenter(size="tiny", weights=checkpoint, multimask=True).eval()
    with torch.no_grad():
        expected, expected_iou = image_predictor(official.eval(), image, **PROMPTS["points"], multimask=True)
        logits, iou = net.decode(net.encode(image), **PROMPTS["points"])
    best = expected_iou.argmax(1)
    torch.testing.assert_close(logits[:, 0], expected[range(2), best], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou[:, 0], expected_iou[range(2), best], atol=1e-4, rtol=1e-4)


def test_prompts_outside_the_plain_size_are_scaled(checkpoint, image):
    """Padding at the bottom right must not move what is asked for: a crop of zeros is the padding itself."""
    net = SAM2Segmenter(size="tiny", weights=checkpoint).eval()
    padded = image[:1].clone()
    padded[..., 240:, :] = 0
    padded[..., 230:] = 0
    with torch.no_grad():
        whole = net(padded, **{k: v[:1] for k, v in PROMPTS["points"].items()})
        cut = net(padded[..., :240, :230], **{k: v[:1] for k, v in PROMPTS["points"].items()})
    torch.testing.assert_close(cut, whole[..., :240, :230], atol=1e-5, rtol=1e-5)
