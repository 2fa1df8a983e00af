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


"""What the reference pages say is what the code does."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
from typing import Any

import pytest
import torch
from documents import BUNDLES, ROOT, read, rows, section
from monai.bundle import ConfigParser

from monai_ext import adapters, handlers, losses, networks
from monai_ext.__main__ import COMMANDS
from monai_ext.data.dataset_layout import DatasetLayout
from monai_ext.data.layouts import LAYOUTS, vessels
from monai_ext.handlers.report import SCORES
from monai_ext.handlers.volume_report import VOLUME_SCORES
from monai_ext.networks.embedded import EMBEDDED_WEIGHTS, embedded_weights
from monai_ext.networks.weights import OFFICIAL_WEIGHTS
from monai_ext.transforms import SimulatePrompts

CONFIGS = BUNDLES / "fundus_vessel_segmentation" / "configs"
PACKAGES = [
    path.parent.name for path in sorted((ROOT / "monai_ext").glob("*/__init__.py")) if path.parent.name != "demo"
]


def variables(config: str) -> dict[str, Any]:
    """What stands before the first component of a config."""
    found = {}
    for key, value in json.loads((CONFIGS / config).read_text()).items():
        if "#" in key or isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            break
        if key != "imports":
            found[key] = value
    return found


@pytest.mark.parametrize(
    "config",
    ["train.json", "evaluate.json", "inference.json", "sam2lora.json", "distil_encoder.json", "distil_decoder.json"],
)
def test_bundle_variables(config: str) -> None:
    page = read("docs/reference/bundle-variables.md")
    heading = next(line for line in page.splitlines() if line.startswith("## ") and f"`configs/{config}`" in line)
    table = rows(section(page, heading.removeprefix("## ")))
    assert {name: default for name, default, _ in table} == {k: json.dumps(v) for k, v in variables(config).items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_components(package: str) -> None:
    module = importlib.import_module(f"monai_ext.{package}")
    page = read("docs/reference/components.md")
    heading = f"{package.capitalize()}: `monai_ext.{package}`"
    given = dict(rows(section(page, heading)))
    assert set(given) == set(module.__all__)
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):
            assert given[name] == first_sentence(thing), f"docs/reference/components.md, {name}"


def first_sentence(thing: Any) -> str:
    """The first sentence of a docstring as a table shows it."""
    paragraph = " ".join(inspect.cleandoc(thing.__doc__).split("\n\n")[0].split())
    sentence = re.match(r".*?\.(?= |$)", paragraph)
    return re.sub(r":\w+:", "", sentence[0] if sentence else paragraph).replace("``", "`")


@pytest.mark.parametrize(
    ("page", "thing"),
    [
        ("network", networks.SAM2Segmenter),
        ("adapters", adapters.LoRA),
        ("adapters", adapters.BottleneckMLP),
        ("adapters", adapters.DepthwiseSeparable),
        ("adapters", adapters.DilatedDepthwise),
        ("adapters", adapters.DoRA),
        ("adapters", adapters.PromptBridge),
        ("adapters", adapters.SharedRefactoring),
        ("adapters", adapters.SingularValues),
        ("adapters", adapters.SALT),
        ("losses", losses.FocalTverskyLoss),
        ("losses", losses.TverskyCompositeLoss),
        ("losses", losses.StructureLoss),
        ("losses", losses.BoundaryDoULoss),
        ("losses", losses.DistillationLoss),
    ],
)
def test_arguments(page: str, thing: type) -> None:
    table = rows(section(read(f"docs/reference/{page}.md"), f"`{thing.__name__}`"))
    given = {cells[0]: cells[1] for cells in table if len(cells) == 3 and cells[0].isidentifier()}
    parameters = list(inspect.signature(thing).parameters.values())
    defaults = {
        p.name: "" if p.default is p.empty else getattr(p.default, "value", repr(p.default)) for p in parameters
    }
    assert {name: given.get(name) for name in defaults} == defaults


ADAPTER_BLOCKS = re.findall(r"```json\n(.*?)```", read("docs/reference/adapters.md"), re.S)


@pytest.mark.parametrize("block", ADAPTER_BLOCKS, ids=[json.loads(block)["_target_"] for block in ADAPTER_BLOCKS])
def test_adapters_in_json(block: str) -> None:
    adapter = ConfigParser({"adapter": json.loads(block)}).get_parsed_content("adapter")
    network = networks.SAM2Segmenter(size="micro", weights="micro", adapters=[adapter])
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    trained = [p for name, p in network.named_parameters() if ".adapters." in name]
    assert trained and all(p.grad is not None for p in trained)


def test_every_adapter_has_a_block() -> None:
    shown = {json.loads(block)["_target_"].rpartition(".")[2] for block in ADAPTER_BLOCKS}
    assert shown == {name for name in adapters.__all__ if not name.startswith("Adapt")}


def test_patterns_without_adapters() -> None:
    counts = {}
    for method, cell in rows(section(read("docs/reference/adapters.md"), "Without adapters")):
        size = "tiny" if "tiny" in method else "micro"
        net = networks.SAM2Segmenter(size=size, train=json.loads(cell))
        counts[method] = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert len(set(counts.values())) == len(counts) and min(counts.values()) > 1000


def test_sizes_and_weights() -> None:
    page = read("docs/reference/network.md")
    sizes = {name: (int(width), blocks) for name, width, blocks, _ in rows(section(page, "Sizes"))}
    assert sizes == {name: (size.embed_dim, ", ".join(map(str, size.stages))) for name, size in networks.SIZES.items()}
    weights = {name: size for name, size in rows(section(page, "Base weights"))}
    embedded = {name: f"{embedded_weights(name).stat().st_size / 1e6:.0f} MB" for name in EMBEDDED_WEIGHTS}
    assert weights == embedded | {name: entry.size for name, entry in OFFICIAL_WEIGHTS.items()}


def test_parameters_of_micro() -> None:
    placement = json.loads((CONFIGS / "sam2lora.json").read_text())["adapters"][0]["targets"]
    net = networks.SAM2Segmenter(size="micro", adapters=[adapters.LoRA(targets=placement, rank=1)])
    count = sum(p.numel() for name, p in net.named_parameters() if ".adapters." in name)
    table = rows(section(read("docs/reference/network.md"), "Sizes"))
    assert f"{count:,}" == next(cells[3] for cells in table if cells[0] == "micro")


def test_layouts() -> None:
    page = read("docs/reference/data-layouts.md")
    for name, layout in LAYOUTS.items():
        text = section(page, f"`{name}`")
        for fact in (layout.looks_for, layout.split, layout.licence, layout.page):
            assert fact in text, name


def test_licences_of_vessel_sets() -> None:
    licences = (CONFIGS.parent / "docs/data_license.txt").read_text()
    for layout in (entry for entry in vars(vessels).values() if isinstance(entry, DatasetLayout)):
        assert f"{layout.licence}\n  {layout.page}\n" in licences, layout.page


def test_commands() -> None:
    page = read("docs/reference/commands.md")
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for command in COMMANDS:
        command.add_arguments(subparsers)
    for name, options in leaves(subparsers):
        text = section(page, f"`{name}")
        for option in options:
            assert f"`{option}`" in (page if option in ("--layout", "--subject") else text), f"{name} {option}"


def leaves(subparsers: Any) -> list[tuple[str, list[str]]]:
    """All commands without further commands, with their options."""
    found = []
    for name, parser in subparsers.choices.items():
        nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        options = [
            option for action in parser._actions for option in action.option_strings if "help" not in action.dest
        ]
        found += [(f"{name} {inner}", words) for inner, words in leaves(nested[0])] if nested else [(name, options)]
    return found


def test_files() -> None:
    page = read("docs/reference/files.md")
    writers = (handlers.SegmentationWriter, handlers.VolumeWriter, handlers.ObjectWriter)
    columns = [name for writer in writers for name in writer.columns]
    assert [name for name in (*SCORES, *VOLUME_SCORES, *columns) if f"`{name}`" not in page] == []


def test_prompt_modes() -> None:
    for mode, positive, negative, box in rows(section(read("docs/how-to/evaluate.md"), "With prompts")):
        prompts = SimulatePrompts(mode=mode)
        assert (prompts.positives, prompts.negatives, prompts.box) == (int(positive), int(negative), box == "yes")
