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

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ext.networks.embedded import EMBEDDED_WEIGHTS
from monai_ext.networks.weights import OFFICIAL_WEIGHTS
from monai_ext.share.contents import DESCRIPTION, METADATA, MODEL, README, read_mapping
from monai_ext.share.evaluation import Score, read_evaluation, score_rows
from monai_ext.share.files_check import file_hash

UNKNOWN = "Not known."
# What a licence's text says, and its name on the hub.
LICENSES = (("Apache License", "apache-2.0"), ("MIT License", "mit"), ("BSD 3-Clause", "bsd-3-clause"))


def model_card(bundle: str | os.PathLike[str], *, evaluation: str | os.PathLike[str] | None = None) -> str:
    """
    Write a bundle's model card in Markdown, with the front matter of the Hugging Face hub.

    Only what the bundle says of itself: its metadata, README, licence, ``adapter.json`` and model file. What it does
    not say is said to be unknown.

    Args:
        bundle: its folder.
        evaluation: a ``summary_<mode>.json``; None takes the metadata's ``eval_metrics``.

    Raises:
        ValueError: the metadata or the evaluation cannot be read.
    """
    bundle = Path(bundle).resolve()
    metadata, problems = read_mapping(bundle, METADATA)
    if problems:
        raise ValueError(f"{bundle / problems[0].where} {problems[0].what}: {problems[0].remedy}.")
    described = read_mapping(bundle, DESCRIPTION)[0] if (bundle / DESCRIPTION).is_file() else {}
    readme = (bundle / README).read_text(encoding="utf-8") if (bundle / README).is_file() else ""
    summary = None if evaluation is None else read_evaluation(evaluation)
    parts = [
        _front_matter(bundle, metadata, described),
        f"# {metadata.get('name', bundle.name)}",
        str(metadata.get("description", UNKNOWN)),
        _facts(bundle, metadata, described),
        "## Intended use",
        str(metadata.get("intended_use", UNKNOWN)),
        "## Data",
        str(metadata.get("data_source", "")),
        _section(readme, "Data") or UNKNOWN,
        "## Results",
        _results(metadata, summary),
        "## Limitations",
        _section(readme, "Limitations") or UNKNOWN,
        "## How to run",
        _how_to_run(metadata),
        "## Citation",
        _section(readme, "Citation Info"),
        _section(readme, "References") or UNKNOWN,
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def license_name(bundle: Path) -> str:
    """The hub's name for the licence in the file LICENSE, ``other`` if it is none of those known here."""
    path = bundle / "LICENSE"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return next((name for words, name in LICENSES if words in text), "other")


def _front_matter(bundle: Path, metadata: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    lines = ["---", f"license: {license_name(bundle)}", "library_name: monai", "pipeline_tag: image-segmentation"]
    weights = str(described.get("weights"))
    if weights in OFFICIAL_WEIGHTS:
        # Meta's own repositories.
        lines.append(f"base_model: facebook/{weights.replace('_', '-')}")
    tags = ("monai", "medical", "segmentation", *(["sam2"] if "monai_ext" in described else []))
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _facts(bundle: Path, metadata: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    network = metadata.get("network_data_format", {})
    image = network.get("inputs", {}).get("image", {})
    prediction = network.get("outputs", {}).get("pred", {})
    labels = described.get("labels") or list(prediction.get("channel_def", {}).values())
    rows = [
        ("task", metadata.get("task")),
        ("version", metadata.get("version")),
        ("modality", image.get("modality")),
        ("labels", ", ".join(map(str, labels))),
        ("input", _tensor(image)),
        ("output", _tensor(prediction)),
        *_model_facts(bundle, described),
        ("licence", f"{license_name(bundle)} (`LICENSE`); the data have conditions of their own"),
        ("authors", metadata.get("authors")),
        ("copyright", metadata.get("copyright")),
    ]
    return _table(("", ""), [(name, str(value) if value else UNKNOWN) for name, value in rows])


def _model_facts(bundle: Path, described: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    path = bundle / MODEL
    if not path.is_file():
        return [("model", f"none: the bundle comes without `{MODEL}`")]
    trained, all_of_it = described.get("trained_parameters"), described.get("parameters")
    share = f"{trained:,} of {all_of_it:,} ({trained / all_of_it:.2%})" if trained and all_of_it else None
    methods = ", ".join(dict.fromkeys(adapter["method"] for adapter in described.get("adapters", [])))
    return [
        ("base", _base(described)),
        ("method", methods or None),
        ("trained parameters", share),
        ("model file", f"`{MODEL}`, {path.stat().st_size / 1e6:.1f} MB, sha256 `{file_hash(path)}`"),
    ]


def _base(described: Mapping[str, Any]) -> str | None:
    if "weights" not in described:
        return None
    weights = described["weights"]
    if weights is None:
        return "none: trained from random weights"
    if weights in OFFICIAL_WEIGHTS:
        return f"{weights}, Apache-2.0, Meta Platforms, Inc. and affiliates"
    if weights in EMBEDDED_WEIGHTS:
        return f"SAM 2 {weights}, part of the package monai_ext, Apache-2.0"
    return f"{Path(weights).name}; its licence is not known"


def _tensor(tensor: Mapping[str, Any]) -> str | None:
    if not {"num_channels", "spatial_shape", "dtype"} <= tensor.keys():
        return None
    shape = " x ".join(map(str, tensor["spatial_shape"]))
    count = tensor["num_channels"]
    return f"{count} channel{'' if count == 1 else 's'}, {shape}, {tensor['dtype']}"


def _results(metadata: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    rows = score_rows(metadata.get("eval_metrics", {}) if summary is None else summary["labels"])
    if not rows:
        return "Not measured, or not known."
    scores = [(row.label, row.name, _number(row.mean), _interval(row), str(row.images or "")) for row in rows]
    table = _table(("label", "score", "mean", "95 % interval", "images"), scores)
    if summary is None:
        return f"{table}\n\nThe command, the split and the hardware stand in `{README}`."
    told = [
        f"{key}: {_without_folders(str(summary[key]))}"
        for key in ("date", "command", "hardware", "seed")
        if key in summary
    ]
    return f"{table}\n\n" + "\n".join(f"- {line}" for line in told)


def _interval(score: Score) -> str:
    return "" if score.low is None or score.high is None else f"{_number(score.low)} .. {_number(score.high)}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.4g}"


def _without_folders(text: str) -> str:
    """A command without the folders of one's own machine."""
    return re.sub(r"(?<![\w.:])(?:/|[A-Za-z]:\\)[^\s'\",\]]+", lambda found: re.split(r"[/\\]", found[0])[-1], text)


def _how_to_run(metadata: Mapping[str, Any]) -> str:
    pins = [("monai", metadata.get("monai_version")), ("torch", metadata.get("pytorch_version"))]
    pins += [("numpy", metadata.get("numpy_version")), *metadata.get("required_packages_version", {}).items()]
    versions = ", ".join(f"{name} {version}" for name, version in pins if version)
    return (
        "In the folder of the bundle, with monai_ext installed:\n\n"
        "```bash\n"
        "python -m monai.bundle run --config_file configs/inference.json --dataset_dir FOLDER_OF_IMAGES\n"
        "```\n\n"
        f"Made with {versions or 'versions that are not known'}. More in `{README}`."
    )


def _section(readme: str, heading: str) -> str:
    """What the README says below a heading, its subsections one level down, links seen from the bundle's root."""
    found = re.search(rf"^## \**{heading}\b.*?\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
    text = re.sub(r"^#### \**(.*?)\**$", r"### \1", found[1] if found else "", flags=re.M)
    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", r"](docs/\1)", text).strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
