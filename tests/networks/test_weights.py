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

import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from monai_ext.networks.weights import (
    OFFICIAL_WEIGHTS,
    WeightsMismatchError,
    find_weights,
    load_base,
    read_state_dict,
)

NAME = "sam2.1_hiera_tiny"
KEY = "image_encoder.trunk.patch_embed.proj.weight"


class Trunk(nn.Module):
    """The keys of SAM 2.1 that tell its size, and a buffer of whole numbers."""

    def __init__(self, channels: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.image_encoder = nn.Module()
        self.image_encoder.trunk = nn.Module()
        self.image_encoder.trunk.patch_embed = nn.Module()
        self.image_encoder.trunk.patch_embed.proj = nn.Conv2d(3, channels, 3)
        self.image_encoder.trunk.blocks = nn.ModuleList(nn.Linear(channels, channels) for _ in range(blocks))
        self.norm = nn.BatchNorm2d(2)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three folders that an official name is looked up in, in order."""
    monkeypatch.setenv("MONAI_EXT_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = {"bundle": tmp_path / "models" / "base", "own": tmp_path / "own", "cache": tmp_path / "cache" / "monai_ext"}
    for folder in found.values():
        folder.mkdir(parents=True)
    return found


class TestTable:
    def test_is_the_official_one(self):
        assert list(OFFICIAL_WEIGHTS) == [f"sam2.1_hiera_{size}" for size in ("tiny", "small", "base_plus", "large")]
        assert len({weights.sha256 for weights in OFFICIAL_WEIGHTS.values()}) == 4
        assert all(len(bytes.fromhex(weights.sha256)) == 32 for weights in OFFICIAL_WEIGHTS.values())

    def test_cannot_be_changed(self):
        with pytest.raises(TypeError):
            OFFICIAL_WEIGHTS["mine"] = OFFICIAL_WEIGHTS[NAME]


class TestFind:
    def test_bundle_then_variable_then_cache(self, tmp_path: Path, folders: dict[str, Path]):
        for folder in reversed(folders.values()):
            (folder / f"{NAME}.pt").touch()
            assert find_weights(NAME, bundle_root=tmp_path) == folder / f"{NAME}.pt"

    def test_without_bundle_root_the_working_directory(
        self, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        (folders["bundle"] / f"{NAME}.pt").touch()
        assert find_weights(NAME).resolve() == folders["bundle"] / f"{NAME}.pt"

    def test_cache_is_below_home_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("MONAI_EXT_WEIGHTS", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        file = tmp_path / ".cache" / "monai_ext" / f"{NAME}.pt"
        file.parent.mkdir(parents=True)
        file.touch()
        assert find_weights(NAME, bundle_root=tmp_path) == file

    def test_missing_says_where_how_and_how_much(self, tmp_path: Path, folders: dict[str, Path]):
        (folders["own"] / f"{NAME}.pt.part").touch()
        with pytest.raises(FileNotFoundError) as caught:
            find_weights(NAME, bundle_root=tmp_path)
        for words in (*folders.values(), f"`python -m monai_ext weights {NAME}`", "156 MB"):
            assert str(words) in str(caught.value)

    @pytest.mark.parametrize("name", ["sam2_hiera_tiny", "sam2.1_hiera_tinny", "tiny", "Tiny"])
    def test_unknown_name_lists_the_names(self, name: str):
        with pytest.raises(ValueError, match=rf"one of micro, {', '.join(OFFICIAL_WEIGHTS)}, not '{name}'") as caught:
            find_weights(name)
        assert name == "Tiny" or f"Did you mean '{NAME}'?" in str(caught.value)

    @pytest.mark.parametrize("kind", [str, Path])
    def test_path_is_used_as_it_is(self, tmp_path: Path, kind: type):
        (tmp_path / "mine").touch()
        assert find_weights(kind(tmp_path / "mine")) == tmp_path / "mine"

    @pytest.mark.parametrize("path", ["no/such/file", "nowhere.pt", f"{NAME}.pt", Path("nowhere"), Path(NAME)])
    def test_path_that_does_not_exist(self, path: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match="does not exist"):
            find_weights(path)

    def test_folder_is_no_file(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError, match="not the folder"):
            find_weights(tmp_path)


class TestRead:
    @pytest.mark.parametrize("official", [True, False])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_official_and_bare(self, tmp_path: Path, official: bool, zipped: bool):
        state = copied(Trunk())
        torch.save({"model": state} if official else state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert same(read_state_dict(tmp_path / "a.pt"), state)

    def test_safetensors(self, tmp_path: Path):
        save_file = pytest.importorskip("safetensors.torch").save_file
        state = copied(Trunk())
        save_file(state, tmp_path / "a.safetensors")
        assert same(read_state_dict(tmp_path / "a.safetensors"), state)
        (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-3])
        with pytest.raises(ValueError, match=r"cut\.safetensors is damaged"):
            read_state_dict(tmp_path / "cut.safetensors")

    @settings(max_examples=60, deadline=None)
    @given(share=st.floats(0, 1, exclude_max=True), zipped=st.booleans())
    def test_truncated_anywhere(self, tmp_path_factory: pytest.TempPathFactory, share: float, zipped: bool):
        buffer = io.BytesIO()
        torch.save({"model": Trunk().state_dict()}, buffer, _use_new_zipfile_serialization=zipped)
        path = tmp_path_factory.mktemp("cut") / "cut.pt"
        path.write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
        with pytest.raises(ValueError, match=r"cut\.pt is (damaged|empty|refused)"):
            read_state_dict(path)

    @pytest.mark.parametrize(
        "content", [b"<html>sign in</html>", b"\x00" * 100, b"PK\x03\x04", b"version https://git-lfs"]
    )
    def test_no_weights_at_all(self, tmp_path: Path, content: bytes):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pt is damaged or no weights file"):
            read_state_dict(tmp_path / "a.pt")

    @pytest.mark.parametrize("save", ["zip", "legacy", "pickle"])
    def test_code_is_refused_and_not_run(self, tmp_path: Path, save: str):
        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "exploded"),)

        path = tmp_path / "bomb.pt"
        if save == "pickle":
            path.write_bytes(pickle.dumps(Bomb(), protocol=2))
        else:
            torch.save({"model": {"a": Bomb()}}, path, _use_new_zipfile_serialization=save == "zip")
        with pytest.raises(ValueError, match=r"bomb\.pt") as caught:
            read_state_dict(path)
        assert "weights_only" not in str(caught.value)
        assert save == "pickle" or "posix.mkdir" in str(caught.value)
        assert not (tmp_path / "exploded").exists()

    def test_whole_module_is_refused_by_name(self, tmp_path: Path):
        torch.save(nn.Linear(2, 2), tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_state_dict(tmp_path / "a.pt")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ([torch.ones(1)], "a dict of tensors, not list"),
            (torch.ones(1), "a dict of tensors, not Tensor"),
            ({}, "not {}"),
            ({"model": {}}, "not {}"),
            ({"epoch": 3}, "not a int under 'epoch'"),
            ({3: torch.ones(1)}, "not a Tensor under 3"),
        ],
    )
    def test_no_dict_of_tensors(self, tmp_path: Path, content: object, words: str):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=words) as caught:
            read_state_dict(tmp_path / "a.pt")
        assert "a.pt" in str(caught.value)


class TestLoad:
    def refused(self, path: Path, state: dict[str, Tensor], module: nn.Module | None = None) -> ValueError:
        """Load ``state`` into a network, which must fail and leave the network as it was."""
        torch.save({"model": state}, path)
        module = module or Trunk()
        before = copied(module)
        with pytest.raises(ValueError, match=path.name) as caught:
            load_base(module, path)
        assert same(copied(module), before)
        return caught.value

    def test_takes_everything_over_in_place(self, tmp_path: Path):
        first, second = Trunk(), Trunk()
        first.norm.num_batches_tracked += 7
        torch.save({"model": first.state_dict()}, tmp_path / "a.pt")
        parameters = list(second.parameters())
        load_base(second, tmp_path / "a.pt")
        assert same(copied(first), copied(second))
        assert all(old is new and new.requires_grad for old, new in zip(parameters, second.parameters(), strict=True))

    def test_renamed_key_is_missing_and_unexpected(self, tmp_path: Path):
        state = copied(Trunk())
        state["renamed"] = state.pop(KEY)
        error = self.refused(tmp_path / "a.pt", state)
        assert isinstance(error, WeightsMismatchError)
        assert (error.missing, error.unexpected, error.misshapen) == ([KEY], ["renamed"], [])
        assert f"1 missing ({KEY}); 1 unexpected (renamed)" in str(error)

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (torch.ones(4, 3, 1, 1), "(4, 3, 1, 1) for (4, 3, 3, 3)"),
            (torch.ones(4, 3, 3, 3, dtype=torch.int8), "(4, 3, 3, 3) torch.int8 for (4, 3, 3, 3)"),
        ],
    )
    def test_misshapen_key_with_both_shapes(self, tmp_path: Path, value: Tensor, words: str):
        error = self.refused(tmp_path / "a.pt", copied(Trunk()) | {KEY: value})
        assert isinstance(error, WeightsMismatchError)
        assert error.misshapen == [f"{KEY} {words}"]
        assert words in str(error)

    def test_many_keys_are_counted_and_all_kept(self, tmp_path: Path):
        extra = {f"extra.{number}": torch.ones(1) for number in range(30)}
        error = self.refused(tmp_path / "a.pt", copied(Trunk()) | extra)
        assert isinstance(error, WeightsMismatchError)
        assert error.unexpected == list(extra)
        assert "30 unexpected" in str(error) and "and 18 more" in str(error) and "extra.12" not in str(error)

    @pytest.mark.parametrize(("channels", "blocks"), [(4, 3), (8, 2), (8, 5)])
    def test_another_size_is_recognised(self, tmp_path: Path, channels: int, blocks: int):
        error = self.refused(tmp_path / "a.pt", copied(Trunk(channels, blocks)))
        assert f"another size (a trunk of {blocks} blocks that starts with {channels} channels" in str(error)
        assert "network has 2 blocks and 4 channels" in str(error)

    def test_another_network_is_not_called_another_size(self, tmp_path: Path):
        assert "another size" not in str(self.refused(tmp_path / "a.pt", {"weight": torch.ones(1)}))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_not_finite_is_refused_by_key(self, tmp_path: Path, bad: float):
        state = copied(Trunk())
        state["image_encoder.trunk.blocks.1.bias"][-1] = bad
        assert "NaN or infinite values: 1 bad (image_encoder.trunk.blocks.1.bias)" in str(
            self.refused(tmp_path / "a.pt", state)
        )

    def test_too_large_for_the_networks_precision(self, tmp_path: Path):
        state = copied(Trunk())
        state[KEY][0] = 1e6
        assert KEY in str(self.refused(tmp_path / "a.pt", state, Trunk().half()))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precision_is_cast(self, tmp_path: Path, dtype: torch.dtype):
        source, module = Trunk().to(dtype), Trunk()
        torch.save({"model": source.state_dict()}, tmp_path / "a.pt")
        load_base(module, tmp_path / "a.pt")
        assert {value.dtype for value in module.parameters()} == {torch.float32}
        assert same(copied(source.float()), copied(module))

    def test_ignored_prefixes_are_set_aside_on_both_sides(self, tmp_path: Path):
        source, module = Trunk(), Trunk()
        state = {key: value for key, value in source.state_dict().items() if not key.startswith("norm.")}
        torch.save({"model": state | {"memory_attention.a": torch.tensor(float("nan"))}}, tmp_path / "a.pt")
        before = copied(module)
        load_base(module, tmp_path / "a.pt", ignore=("memory_attention.", "norm."))
        assert torch.equal(module.image_encoder.trunk.blocks[1].weight, source.image_encoder.trunk.blocks[1].weight)
        assert all(torch.equal(value, before[key]) for key, value in copied(module).items() if key.startswith("norm."))

    def test_missing_file(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError, match=r"a\.pt does not exist"):
            load_base(Trunk(), tmp_path / "a.pt")
