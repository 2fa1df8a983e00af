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

import pytest
import torch
from safetensors import safe_open

from monai_ext.adapters import BottleneckMLP, LoRA
from monai_ext.networks import SAM2Segmenter, save_base
from monai_ext.networks import embedded as embedded_module
from monai_ext.networks.embedded import EMBEDDED_WEIGHTS, embedded_weights
from monai_ext.networks.weights import WeightsMismatchError, check_size, find_weights


@pytest.fixture(scope="module")
def network() -> SAM2Segmenter:
    """A network whose label token has moved away from where it started."""
    network = SAM2Segmenter(size="micro", train=["*"], seed=3).eval()
    torch.nn.init.normal_(network.class_tokens.weight, generator=torch.Generator().manual_seed(0))
    return network


def test_the_base_answers_clicks_as_the_network_does(network: SAM2Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    save_base(network, path, description={"made": "by a test"})
    base = SAM2Segmenter(size="micro", weights=path).eval()
    image = torch.rand(1, 3, 64, 64)
    click = {"points": torch.tensor([[[20.0, 30.0]]]), "point_labels": torch.ones(1, 1)}
    with torch.no_grad():
        for prompts in (click, {}):
            torch.testing.assert_close(base(image, **prompts), network(image, **prompts), atol=0.02, rtol=0.02)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"made": "by a test"}
        assert not [key for key in file.keys() if key.startswith(("class_tokens", "fingerprint"))]  # noqa: SIM118
    assert path.stat().st_size < 12_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["base.safetensors"]


def test_adapters_are_merged_into_a_full_file(tmp_path: Path) -> None:
    adapters = [LoRA(targets=["*trunk*attn.qkv"], rank=2)]
    network = SAM2Segmenter(size="micro", weights="micro", adapters=adapters, train=["sam_mask_decoder.conv_s0.*"])
    network.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        save_base(network, tmp_path / "merged.safetensors", half=False)
        full = SAM2Segmenter(size="micro", weights=tmp_path / "merged.safetensors").eval()
        image = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(full(image), network(image), atol=1e-4, rtol=1e-4)
    assert not network.merged and network.trained_state_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["disc", "cup"]}, "must have one label to become a base, not disc, cup"),
        ({"click_shift": 0.1}, "must have no click_shift"),
        ({"adapters": [BottleneckMLP(targets=["image_encoder.trunk.blocks.0"])]}, "cannot be merged"),
    ],
)
def test_only_a_base_becomes_a_base(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        save_base(SAM2Segmenter(size="micro", **settings), tmp_path / "base.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    network = SAM2Segmenter(size="micro")
    with torch.no_grad():
        network.no_mem_embed.fill_(1e6)
    with pytest.raises(ValueError, match="no_mem_embed holds numbers that half precision cannot hold"):
        save_base(network, tmp_path / "base.safetensors")
    assert not list(tmp_path.iterdir())


class TestEmbedded:
    """The base that comes with the package."""

    def test_loads_by_name_and_is_small(self) -> None:
        assert find_weights("micro") == embedded_weights("micro")
        assert embedded_weights("micro").stat().st_size <= 12_000_000
        network = SAM2Segmenter(size="micro", weights="micro")
        assert network.describe()["weights"] == "micro"

    def test_its_header_says_what_it_is(self) -> None:
        with safe_open(embedded_weights("micro"), "pt") as file:
            assert file.metadata()["license"] == "Apache-2.0"
            assert "HRF" in file.metadata()["data"]
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118

    @pytest.mark.parametrize("change", ["edited", "short", "empty", "missing"])
    def test_a_changed_file_is_refused(self, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = bytearray(embedded_weights("micro").read_bytes())
        monkeypatch.setattr(embedded_module, "__file__", str(tmp_path / "embedded.py"))
        content[-5] ^= 1
        copy = {"edited": bytes(content), "short": bytes(content[:-100]), "empty": b""}
        if change in copy:
            (tmp_path / "sam2_micro.safetensors").write_bytes(copy[change])
        with pytest.raises((ValueError, FileNotFoundError), match="install monai_ext again") as caught:
            SAM2Segmenter(size="micro", weights="micro")
        assert str(tmp_path) in str(caught.value)

    @pytest.mark.parametrize("change", ["short", "other", "text"])
    def test_a_file_of_ones_own_is_checked_too(self, change: str, tmp_path: Path) -> None:
        content = embedded_weights("micro").read_bytes()
        path = tmp_path / "mine.safetensors"
        path.write_bytes({"short": content[: len(content) // 2], "other": content, "text": b"no weights"}[change])
        size = "tiny" if change == "other" else "micro"
        with pytest.raises(ValueError, match=str(path)) as caught:
            SAM2Segmenter(size=size, weights=path)
        if change == "other":
            assert isinstance(caught.value, WeightsMismatchError)
            assert "weights of another size" in str(caught.value)

    def test_the_table_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            EMBEDDED_WEIGHTS["mine"] = "0" * 64  # type: ignore[index]


@pytest.mark.parametrize(
    ("size", "weights", "right"),
    [
        ("tiny", "micro", "sam2.1_hiera_tiny"),
        ("micro", "sam2.1_hiera_tiny", "micro"),
        ("large", "sam2.1_hiera_base_plus", "sam2.1_hiera_large"),
    ],
)
def test_size_and_weights_belong_together(size: str, weights: str, right: str) -> None:
    own = weights.removeprefix("sam2.1_hiera_")
    message = f"weights must be '{right}' for size '{size}', not '{weights}', which belong to size '{own}'."
    for call in (lambda: check_size(size, weights), lambda: SAM2Segmenter(size=size, weights=weights)):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize("weights", [None, "micro", "some/file.pt", Path("micro.pt")])
def test_what_fits_or_is_no_name_passes(weights: str | Path | None) -> None:
    check_size("micro", weights)
