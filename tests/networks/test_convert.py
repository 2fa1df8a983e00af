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

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_ext.__main__ import main
from monai_ext.networks import SAM2Segmenter, convert_sam2lora

CLICK = {"points": torch.tensor([[[20.0, 30.0]]]), "point_labels": torch.ones(1, 1)}
RANK, ALPHA = 3, 5.0


class PublishedLoRA(nn.Module):
    """A linear layer as the published code wraps it, by its formula."""

    def __init__(self, layer: nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.A = nn.Parameter(0.2 * torch.randn(layer.in_features, RANK, generator=generator))
        self.B = nn.Parameter(0.2 * torch.randn(RANK, layer.out_features, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + ALPHA / RANK * (x @ self.A @ self.B)


@pytest.fixture(scope="module")
def published() -> SAM2Segmenter:
    """SAM 2 with LoRA in the places of the published code, which also starts no_mem_embed anew."""
    net = SAM2Segmenter(size="micro", weights="micro").eval()
    generator = torch.Generator().manual_seed(0)
    places = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
        and (("trunk" in name and "attn.qkv" in name) or ("transformer" in name and "attn" in name))
    ]
    for name in places:
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, PublishedLoRA(net.get_submodule(name), generator))
    with torch.no_grad():
        net.no_mem_embed += 0.1
    return net


def checkpoint(net: SAM2Segmenter, path: Path) -> Path:
    """With the prefix and the wrappers that the published code puts into the names."""
    state = {}
    for key, value in net.state_dict().items():
        if key.startswith(("class_tokens", "fingerprint")):
            continue
        key = key.replace(".attn.qkv.", ".atten_block.attn.qkv.") if "blocks" in key else key
        state["model." + key.replace("transformer.layers", "transformer.transformer_layer.layers")] = value
    state |= {"model.memory_encoder.out_proj.weight": torch.zeros(3), "model.mask_downsample.bias": torch.zeros(1)}
    torch.save({"model": state}, path)
    return path


def test_the_converted_network_answers_as_the_published_one(published: SAM2Segmenter, tmp_path: Path) -> None:
    words = ["convert", str(checkpoint(published, tmp_path / "full.ckpt")), str(tmp_path / "models"), "--size", "micro"]
    assert main([*words, "--weights", "micro", "--alpha", str(ALPHA), "--label", "disc"]) == 0
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["adapter.json", "model.pt", "network.json"]
    settings = json.loads((tmp_path / "models/network.json").read_text())
    assert "no_mem_embed" in settings["unfrozen"] and len(settings["unfrozen"]) < 20
    bundle = Path(__file__).parents[2] / "bundles/fundus_vessel_segmentation/configs/inference.json"
    config = ConfigParser(ConfigParser.load_config_files([str(bundle), str(tmp_path / "models/network.json")]))
    net = config.get_parsed_content("network_def").eval()
    net.load_state_dict(torch.load(tmp_path / "models/model.pt", weights_only=True))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = published.candidates(published.encode(image), **CLICK)
        answer = net.candidates(net.encode(image), **CLICK)
        torch.testing.assert_close(net(image, **CLICK), expected.logits[:, :, 1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answer.iou[:, :, 0], expected.iou[:, :, 1], atol=1e-4, rtol=1e-4)
    full, part = (tmp_path / "full.ckpt").stat().st_size, (tmp_path / "models/model.pt").stat().st_size
    assert part < full / 10


def without(state: dict, ending: str) -> dict:
    return {key: value for key, value in state.items() if not key.endswith(ending)}


def first(state: dict, ending: str) -> str:
    return next(key for key in state if key.endswith(ending))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: without(without(s, ".A"), ".B"), "holds 0 matrices A and 0 B of LoRA"),
        (lambda s: without(s, ".B"), "matrices A and 0 B"),
        (lambda s: without(s, "patch_embed.proj.weight"), "holds no SAM 2"),
        (
            lambda s: s | {"model.image_encoder.more.weight": torch.zeros(1)},
            "unknown \\['image_encoder.more.weight'\\]",
        ),
        (lambda s: s | {"model.no_mem_embed": torch.zeros(1, 1, 7)}, "of another shape \\['no_mem_embed'\\]"),
        (
            lambda s: without(s, "mlps.1.layers.0.weight"),
            "missing \\['sam_mask_decoder.output_hypernetworks_mlps.1.layers.0",
        ),
        (lambda s: s | {first(s, ".B"): torch.zeros(1, 96)}, "do not fit a layer of \\(96, 32\\)"),
        (lambda s: s | {first(s, ".A"): torch.full((32, 3), torch.nan)}, "not finite floats"),
        (
            lambda s: s | {first(s, ".A"): torch.zeros(32, 9)},
            "ranks \\[3, 9\\], which must be one",
        ),
        (
            lambda s: s | {k: v + 1 for k, v in s.items() if "gaussian_matrix" in k},
            "gaussian_matrix'\\], which cannot be trained",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(damage, message: str, published: SAM2Segmenter, tmp_path: Path) -> None:
    path = checkpoint(published, tmp_path / "full.ckpt")
    torch.save({"model": damage(torch.load(path, weights_only=True)["model"])}, path)
    with pytest.raises(ValueError, match=message):
        convert_sam2lora(path, tmp_path / "models", size="micro", weights="micro")
    assert [p.name for p in tmp_path.iterdir()] == ["full.ckpt"]
