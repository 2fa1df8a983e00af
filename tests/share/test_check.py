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

"""Bundles that are in order, and all the ways in which one can be broken."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_runs import BUNDLES, VESSELS
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft201909Validator
from monai.bundle import verify_metadata

from monai_ext.__main__ import main
from monai_ext.share import Problem, check_bundle
from monai_ext.share.metadata_check import check_metadata
from monai_ext.share.metadata_schema import METADATA_SCHEMA, REQUIRED
from monai_ext.share.problem import problem_table

META = "configs/metadata.json"
INFERENCE = "configs/inference.json"
TRAIN = "configs/train.json"
README = "docs/README.md"
LARGE = "large_files.yml"


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_every_bundle_is_in_order(path: Path) -> None:
    assert check_bundle(path) == []


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_metadata_fit_the_schema_as_monai_checks_it(path: Path, tmp_path: Path) -> None:
    # MONAI downloads the schema unless it is there.
    (tmp_path / "schema.json").write_text(json.dumps(METADATA_SCHEMA))
    verify_metadata(meta_file=str(path / META), filepath=str(tmp_path / "schema.json"))


def test_our_schema_decides_as_the_published_one(shared_data: Path) -> None:
    published = shared_data.parent / "reference" / "meta_schema_20240725.rebuilt.json"
    if not published.is_file():
        pytest.skip(f"{published.name} is compared only where it lies beside the project")
    ours, theirs = (Draft201909Validator(schema) for schema in (METADATA_SCHEMA, json.loads(published.read_text())))
    good = json.loads((VESSELS / META).read_text())
    cases = [good]
    for key in (*REQUIRED, "changelog", "eval_metrics", "references", "intended_use", "supported_apps"):
        cases += [{k: v for k, v in good.items() if k != key}]
        cases += [{**good, key: value} for value in ("x", 1, [], ["x"], [1], {}, None, True)]
    for side in ("inputs", "outputs"):
        for value in ("x", 1, [], {}, None, True, {"type": "image"}):
            case = copy.deepcopy(good)
            case["network_data_format"][side]["more"] = value
            cases.append(case)
        tensor = next(iter(good["network_data_format"][side]))
        for key in (*good["network_data_format"][side][tensor], "nothing"):
            for value in ("x", 1, 1.5, [], ["x", 2], [1.5], {}, None, True):
                case = copy.deepcopy(good)
                case["network_data_format"][side][tensor][key] = value
                cases.append(case)
    for case in cases:
        assert ours.is_valid(case) == theirs.is_valid(case), case
    assert ours.is_valid(good)


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change a JSON file of a bundle in place."""

    def apply(bundle: Path) -> None:
        content = json.loads((bundle / name).read_text())
        change(content)
        (bundle / name).write_text(json.dumps(content, indent=4))

    return apply


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        text = (bundle / name).read_text()
        assert old in text
        (bundle / name).write_text(text.replace(old, new))

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).unlink()


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).write_text(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("a.1 ", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from((*METADATA_SCHEMA["properties"], "network_data_format", "x_data_format")), value=JSON)
def test_no_value_stops_the_check(key: str, value: Any) -> None:
    metadata = json.loads((VESSELS / META).read_text()) | {key: value}
    assert all(isinstance(problem, Problem) for problem in check_metadata(VESSELS, metadata))


def add_large_file(bundle: Path) -> None:
    with (bundle / "models" / "atlas.bin").open("wb") as file:
        file.truncate(26_000_000)


def link(bundle: Path) -> None:
    (bundle / "docs" / "link.txt").symlink_to(bundle / "LICENSE")


def link_folder(bundle: Path) -> None:
    (bundle / "extra").symlink_to(bundle / "docs")


def base_of_another_content(bundle: Path) -> None:
    (bundle / "models" / "base").mkdir()
    (bundle / "models" / "base" / "sam2.1_hiera_tiny.pt").write_bytes(b"something")


def image(content: dict[str, Any]) -> dict[str, Any]:
    return content["network_data_format"]["inputs"]["image"]


def dice(content: dict[str, Any]) -> dict[str, Any]:
    return content["eval_metrics"]["vessel"]["dice"]


# How it is broken, where that is found, and words of what is said.
BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no licence": (remove("LICENSE"), "LICENSE", "is missing"),
    "empty licence": (write("LICENSE", " \n"), "LICENSE", "is empty"),
    "no metadata": (remove(META), META, "is missing"),
    "no readme": (remove(README), README, "is missing"),
    "no inference": (remove(INFERENCE), INFERENCE, "is missing"),
    "no model, and not said": (remove("models/model.pt"), "models/model.pt", "is missing"),
    "no data licence": (remove("docs/data_license.txt"), "docs/data_license.txt", "missing beside a model"),
    "readme without a section": (replace(README, "## **Limitations**", "## Bugs"), README, "no section 'Limitations'"),
    "readme with a dead link": (write(README, "![](gone.png)"), README, "gone.png, which is not there"),
    "readme with a link outside": (write(README, "[a](../../a.md)"), README, "outside the bundle"),
    "metadata is no JSON": (write(META, '{"version": '), META, "cannot be read"),
    "metadata is a list": (write(META, "[1]"), META, "holds a list"),
    "a key twice": (replace(META, '"version": ', '"version": "0.0.9", "version": '), f"{META}#version", "stands twice"),
    "no task": (edit(META, lambda m: m.pop("task")), f"{META}#task", "is missing"),
    "empty authors": (edit(META, lambda m: m.update(authors="")), f"{META}#authors", "is empty"),
    "authors is a list": (edit(META, lambda m: m.update(authors=["me"])), f"{META}#authors", "is a list, not a string"),
    "another schema": (edit(META, lambda m: m.update(schema="https://x.org/s.json")), f"{META}#schema", "x.org"),
    "no changelog": (edit(META, lambda m: m.pop("changelog")), f"{META}#changelog", "is missing"),
    "version not in changelog": (
        edit(META, lambda m: m.update(version="0.2.0")),
        f"{META}#changelog",
        "no entry for version 0.2.0",
    ),
    "version behind changelog": (
        edit(META, lambda m: m["changelog"].update({"0.3.0": "more"})),
        f"{META}#version",
        "goes on to 0.3.0",
    ),
    "version of two numbers": (edit(META, lambda m: m.update(version="0.1")), f"{META}#version", "not three numbers"),
    "torch with a build": (
        edit(META, lambda m: m.update(pytorch_version="2.13.0+cpu")),
        f"{META}#pytorch_version",
        "not one release",
    ),
    "a range of versions": (
        edit(META, lambda m: m["required_packages_version"].update(sam2=">=1.1")),
        f"{META}#required_packages_version#sam2",
        "not one release",
    ),
    "a torch that monai does not take": (
        edit(META, lambda m: m.update(pytorch_version="2.1.0")),
        f"{META}#pytorch_version",
        "needs torch",
    ),
    "deprecated packages": (
        edit(META, lambda m: m.update(optional_packages_version={})),
        f"{META}#optional_packages_version",
        "is deprecated",
    ),
    "no network_data_format": (
        edit(META, lambda m: m.pop("network_data_format")),
        f"{META}#network_data_format",
        "is missing",
    ),
    "input of another name": (
        edit(META, lambda m: m["network_data_format"].update(inputs={"photo": image(m)})),
        f"{META}#network_data_format#inputs#image",
        "is missing",
    ),
    "tensor without a type": (
        edit(META, lambda m: image(m).pop("dtype")),
        f"{META}#network_data_format#inputs#image#dtype",
        "is missing",
    ),
    "a type that torch has not": (
        edit(META, lambda m: image(m).update(dtype="float17")),
        f"{META}#network_data_format#inputs#image#dtype",
        "no type of torch",
    ),
    "channels without names": (
        edit(META, lambda m: image(m).update(num_channels=4)),
        f"{META}#network_data_format#inputs#image#channel_def",
        "names 3 channels of 4",
    ),
    "a range upside down": (
        edit(META, lambda m: image(m).update(value_range=[1, 0])),
        f"{META}#network_data_format#inputs#image#value_range",
        "is [1, 0]",
    ),
    "no scores": (edit(META, lambda m: m.pop("eval_metrics")), f"{META}#eval_metrics", "missing beside a model"),
    "a score nobody measured": (
        edit(META, lambda m: dice(m).update(mean=0.999)),
        f"{META}#eval_metrics#vessel#dice#mean",
        "README.md does not say",
    ),
    "scores without a command": (replace(README, "run evaluating", "run"), README, "no command that evaluates"),
    "config is no JSON": (write(TRAIN, "{"), TRAIN, "cannot be read"),
    "a bad reference": (
        edit(INFERENCE, lambda c: c.update(network="$@network_deff.to(@device)")),
        f"{INFERENCE}#network",
        "network_deff",
    ),
    "a component that is nowhere": (
        edit(INFERENCE, lambda c: c["inferer"].update(_target_="SlidingWinferer")),
        f"{INFERENCE}#inferer",
        "SlidingWinferer, which is nowhere",
    ),
    "no inferer": (edit(INFERENCE, lambda c: c.pop("inferer")), f"{INFERENCE}#inferer", "is missing"),
    "no max_epochs": (
        edit(TRAIN, lambda c: c["train"]["trainer"].pop("max_epochs")),
        f"{TRAIN}#train#trainer#max_epochs",
        "is missing",
    ),
    "an absolute path": (
        edit(INFERENCE, lambda c: c.update(dataset_dir="/data/eyes")),
        f"{INFERENCE}#dataset_dir",
        "absolute path /data/eyes",
    ),
    "a personal path in a config": (
        edit(TRAIN, lambda c: c.update(more="$'/home/me/eyes'")),
        f"{TRAIN}:",
        "/home/me/eyes",
    ),
    "a personal path in the readme": (
        lambda bundle: (bundle / README).write_text((bundle / README).read_text() + "\nSee `/Users/me/eyes`."),
        f"{README}:",
        "/Users/me/eyes",
    ),
    "a path of Windows": (
        lambda bundle: (bundle / "docs/notes.txt").write_text(r"C:\Users\me\eyes"),
        "docs/notes.txt:1",
        r"C:\Users\me\eyes",
    ),
    "a token": (write("docs/notes.txt", f"\nhf_{'a1' * 12}"), "docs/notes.txt:2", "a secret"),
    "text that is not UTF-8": (
        lambda bundle: (bundle / "docs/notes.txt").write_bytes(b"\xff\xfe\x00"),
        "docs/notes.txt",
        "not UTF-8",
    ),
    "a large file that is not listed": (add_large_file, "models/atlas.bin", "26 MB"),
    "a second model": (write("models/old.pt", "x"), "models/old.pt", "stands beside models/model.pt"),
    "a symbolic link": (link, "docs/link.txt", "symbolic link"),
    "a linked folder": (link_folder, "extra", "symbolic link"),
    "large files without a list": (write(LARGE, "large_files: 3\n"), f"{LARGE}#large_files", "is no list"),
    "a large file outside": (
        replace(LARGE, "models/base/sam2.1_hiera_tiny.pt", "../../x.pt"),
        f"{LARGE}#large_files#0#path",
        "leads out",
    ),
    "a placeholder of an address": (
        replace(LARGE, "https://dl.fbaipublicfiles.com/segment_anything_2/092824/", "url-of-"),
        f"{LARGE}#large_files#0#url",
        "no address",
    ),
    "an unknown hash": (replace(LARGE, "sha256", "crc32"), f"{LARGE}#large_files#0#hash_type", "'crc32'"),
    "half a hash": (
        replace(LARGE, "7402e0d864fa82708a20fbd15bc84245", ""),
        f"{LARGE}#large_files#0#hash_val",
        "no sha256",
    ),
    "a wrong hash": (base_of_another_content, f"{LARGE}#large_files#0#hash_val", "is not that of"),
    "logging that runs code": (
        replace("configs/logging.conf", "class=StreamHandler", "class=os.system"),
        "configs/logging.conf",
        "refused by MONAI",
    ),
}


def test_the_table_is_long_enough() -> None:
    assert len(BROKEN) + len(BROKEN_MODELS) >= 25


def found(problems: list[Problem], where: str, words: str) -> bool:
    return any(
        (problem.where == where or (where.endswith(":") and problem.where.startswith(where))) and words in problem.what
        for problem in problems
    )


@pytest.mark.parametrize("way", BROKEN)
def test_what_is_broken_is_named(way: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ext.share.checks.check_model", lambda _: [])  # it has a table of its own
    apply, where, words = BROKEN[way]
    apply(bundle)
    problems = check_bundle(bundle)
    assert found(problems, where, words), problems
    assert all(problem.remedy for problem in problems)


def save_model(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        state = torch.load(bundle / "models/model.pt", weights_only=True)
        torch.save(change(state), bundle / "models/model.pt")

    return apply


def of_another_base(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state["fingerprint"][:8] += 1
    return state


def without_one(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != "class_tokens.weight"}


BROKEN_MODELS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "cut short": (
        lambda bundle: (bundle / "models/model.pt").write_bytes((bundle / "models/model.pt").read_bytes()[:1000]),
        "models/model.pt",
        "is damaged",
    ),
    "of another base": (save_model(of_another_base), "models/model.pt", "other base weights"),
    "incomplete": (save_model(without_one), "models/model.pt", "does not fit"),
    "with more than tensors": (save_model(lambda state: {"model": state, "epoch": 3}), "models/model.pt", "plain dict"),
    "for other labels": (
        edit(INFERENCE, lambda c: c.update(labels=["artery"])),
        "models/model.pt",
        "other labels",
    ),
    "of another rank": (
        edit(INFERENCE, lambda c: c["adapters"][0].update(rank=2)),
        "models/model.pt",
        "does not fit",
    ),
    "without a description": (remove("models/adapter.json"), "models/adapter.json", "is missing"),
    "with the description of another": (
        edit("models/adapter.json", lambda d: d.update(enlarge=7)),
        "models/adapter.json#enlarge",
        "is 7",
    ),
    "a network that cannot be built": (
        edit(INFERENCE, lambda c: c.update(size="huge")),
        f"{INFERENCE}#network_def",
        "cannot be built",
    ),
    "more channels than the network has": (
        edit(META, lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=2, channel_def={})),
        f"{META}#network_data_format",
        "output channel number",
    ),
    "another type than the network has": (
        edit(META, lambda m: m["network_data_format"]["outputs"]["pred"].update(dtype="float16")),
        f"{META}#network_data_format",
        "dtype",
    ),
    "no word about TorchScript": (replace(README, "TorchScript", "Torch"), README, "cannot be scripted"),
}


@pytest.mark.parametrize("way", BROKEN_MODELS)
def test_a_model_that_does_not_fit_is_named(way: str, bundle: Path) -> None:
    edit(META, lambda m: image(m).update(spatial_shape=[64, 64]))(bundle)
    apply, where, words = BROKEN_MODELS[way]
    apply(bundle)
    problems = check_bundle(bundle)
    assert found(problems, where, words), problems


def test_all_problems_stand_in_one_table(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    remove("LICENSE")(bundle)
    edit(META, lambda m: m.update(version="0.2.0"))(bundle)
    write("configs/evaluate.json", "{")(bundle)
    assert main(["check", str(bundle)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")][2:] == [
        "LICENSE",
        "configs/evaluate.json",
        f"{META}#changelog",
    ]


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 1
    assert "none is no folder: give that of a bundle" in capsys.readouterr().err


def test_what_runs_leave_behind_is_no_problem(bundle: Path) -> None:
    for name in (
        *("eval/big.npy", "export/model.onnx", ".git/config", "models/base/x.bin", "resume.pt"),
        "scripts/__pycache__/a.pyc",
    ):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(b"/home/me/" * 10)
    with (bundle / "eval/big.npy").open("ab") as file:
        file.truncate(30_000_000)
    assert check_bundle(bundle) == []


def test_a_network_of_the_bundles_own(bundle: Path) -> None:
    """Not ours, of one file beside the configs, and TorchScript takes it."""
    (bundle / "own_network.py").write_text(
        "import torch\n\n\nclass Own(torch.nn.Conv2d):\n    def __init__(self):\n        super().__init__(3, 1, 1)\n"
    )
    edit(INFERENCE, lambda c: c.update(network_def={"_target_": "own_network.Own"}))(bundle)
    replace(README, "TorchScript", "Torch")(bundle)
    problems = check_bundle(bundle)
    assert [problem.where for problem in problems] == ["models/model.pt"]
    torch.save(torch.nn.Conv2d(3, 1, 1).state_dict(), bundle / "models/model.pt")
    assert check_bundle(bundle) == []


def test_a_large_file_may_be_listed(bundle: Path) -> None:
    add_large_file(bundle)
    entry = (
        '  - path: "models/atlas.bin"\n    url: "https://example.org/atlas.bin"\n    hash_type: "sha256"\n'
        f'    hash_val: "{hashlib.sha256(bytes(26_000_000)).hexdigest()}"\n'
    )
    (bundle / LARGE).write_text((bundle / LARGE).read_text() + entry)
    assert check_bundle(bundle) == []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_keeps_to_its_width(width: int) -> None:
    rows = [Problem("a/long/name.json#key", "word " * 30, "do " * 40), Problem("b", "c", "d")]
    lines = problem_table(rows, width=width).splitlines()
    assert max(map(len, lines)) <= max(width, 60)
