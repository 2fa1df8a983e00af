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

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple, get_equivalent_dtype
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from monai_ext.share.contents import METADATA, MODEL, README
from monai_ext.share.evaluation import numbers_in, score_values
from monai_ext.share.metadata_schema import METADATA_SCHEMA, SCHEMA_URL, SCHEMA_URLS
from monai_ext.share.problem import Problem

# The names that the zoo installs for the versions with keys of their own.
PINS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
PACKAGES = "required_packages_version"
# Types of JSON in words.
_KINDS = {"object": "mapping", "array": "list", "dict": "mapping", "str": "string", "int": "number", "float": "number"}


def check_metadata(bundle: Path, metadata: Mapping[str, Any]) -> list[Problem]:
    """
    Say what is wrong with what ``metadata.json`` holds: schema, versions, changelog, packages, tensors, metrics.

    Args:
        bundle: its folder.
        metadata: what the file holds.

    Raises:
        ImportError: jsonschema is not installed.
    """
    problems = _schema_problems(metadata)
    # What the schema calls wrong is of no known shape; nothing more is asked of it.
    sound = {key: value for key, value in metadata.items() if not any(p.where == _key(key) for p in problems)}
    if "changelog" in sound or "changelog" not in metadata:
        problems += _version_problems(sound)
    problems += _pin_problems(sound)
    for key, network in sound.items():
        if key.endswith("_data_format") and not any(p.where.startswith(_key(key)) for p in problems):
            problems += _tensor_problems(key, network)
    return problems + _metric_problems(bundle, sound)


def _key(*keys: object) -> str:
    return "#".join([METADATA, *map(str, keys)])


def _schema_problems(metadata: Mapping[str, Any]) -> list[Problem]:
    try:
        from jsonschema import Draft201909Validator
    except ImportError as error:
        raise ImportError("The check of a bundle needs jsonschema >= 4: pip install 'monai_ext[share]'.") from error
    problems = []
    for fault in Draft201909Validator(METADATA_SCHEMA).iter_errors(dict(metadata)):
        if fault.validator == "required":
            for key in (key for key in fault.validator_value if key not in fault.instance):
                problems.append(Problem(_key(*fault.absolute_path, key), "is missing", "add it"))
        else:
            wanted = " or ".join(_KINDS.get(kind, kind) for kind in ensure_tuple(fault.validator_value))
            found = _KINDS.get(type(fault.instance).__name__, type(fault.instance).__name__)
            problems.append(Problem(_key(*fault.absolute_path), f"is a {found}, not a {wanted}", "correct it"))
    # Each missing key is an error of its own to jsonschema.
    problems = list(dict.fromkeys(problems))
    if isinstance(metadata.get("schema"), str) and metadata["schema"] not in SCHEMA_URLS:
        problems.append(Problem(_key("schema"), f"is {metadata['schema']}", f"give {SCHEMA_URL}"))
    if "optional_packages_version" in metadata:
        problems.append(Problem(_key("optional_packages_version"), "is deprecated", f"name the packages in {PACKAGES}"))
    empty = [key for key, value in metadata.items() if isinstance(value, str) and not value.strip()]
    return problems + [Problem(_key(key), "is empty", "fill it in or leave it out") for key in empty]


def _version_problems(metadata: Mapping[str, Any]) -> list[Problem]:
    if "changelog" not in metadata:
        return [Problem(_key("changelog"), "is missing", "say for each version what changed")]
    version, changelog = metadata.get("version"), metadata["changelog"]
    if version is None:
        return []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return [Problem(_key("version"), f"is {version!r}, not three numbers", "write it as 0.1.0")]
    if version not in changelog:
        return [Problem(_key("changelog"), f"has no entry for version {version}", "say what changed in it")]
    later = [other for other in changelog if release(other) > release(version)]
    return [Problem(_key("version"), f"is {version}, the changelog goes on to {other}", "raise it") for other in later]


def release(text: str) -> Version:
    """A version to compare; what is none is older than all."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _pin_problems(metadata: Mapping[str, Any]) -> list[Problem]:
    named = {_key(key): (name, metadata[key]) for key, name in PINS.items() if key in metadata}
    named |= {_key(PACKAGES, name): (name, version) for name, version in metadata.get(PACKAGES, {}).items()}
    problems = [
        Problem(where, f"is {version!r}, not one release", "give the exact version, such as 1.2.3")
        for where, (_, version) in named.items()
        if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+)+", version)
    ]
    bad = {problem.where for problem in problems}
    pins = {name.lower(): version for where, (name, version) in named.items() if where not in bad}
    places = {name.lower(): where for where, (name, _) in named.items()}
    return problems + _conflicts(pins, places)


def _conflicts(pins: Mapping[str, str], places: Mapping[str, str]) -> list[Problem]:
    """Pins that what is installed here forbids: the package itself, and each named one if it has the named version."""
    problems = []
    for name in ("monai_ext", *pins):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name in pins and Version(distribution.version).public != pins[name]:
            continue
        for line in distribution.requires or []:
            needed = Requirement(line)
            pin = pins.get(needed.name.lower())
            optional = needed.marker and not needed.marker.evaluate({"extra": ""})
            if pin is None or optional or needed.specifier.contains(pin):
                continue
            problems.append(
                Problem(
                    places[needed.name.lower()],
                    f"is {pin}, but {name} {distribution.version} needs {needed.name}{needed.specifier}",
                    "give versions that go together",
                )
            )
    return problems


def _tensor_problems(key: str, network: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for side, wanted in (("inputs", "image"), ("outputs", "pred")):
        if key == "network_data_format" and wanted not in network[side]:
            problems.append(Problem(_key(key, side, wanted), "is missing", f"call the {side[:-1]} {wanted}"))
        for name, tensor in network[side].items():
            if isinstance(tensor, dict):
                problems += _one_tensor(_key(key, side, name), tensor)
    return problems


def _one_tensor(where: str, tensor: Mapping[str, Any]) -> list[Problem]:
    problems = []
    channels, names = tensor["num_channels"], tensor.get("channel_def", {})
    if channels < 1:
        problems.append(Problem(f"{where}#num_channels", f"is {channels}", "give the number of channels"))
    if names and len(names) != channels:
        problems.append(
            Problem(f"{where}#channel_def", f"names {len(names)} channels of {channels}", "name each channel")
        )
    try:
        get_equivalent_dtype(tensor["dtype"], torch.Tensor)
    except (AttributeError, KeyError, TypeError, ValueError):
        problems.append(Problem(f"{where}#dtype", f"is {tensor['dtype']!r}, no type of torch", "give one: float32"))
    limits = tensor["value_range"]
    if limits and (len(limits) != 2 or limits[0] >= limits[1]):
        problems.append(Problem(f"{where}#value_range", f"is {limits}", "give lowest and highest value, or []"))
    return problems


def _metric_problems(bundle: Path, metadata: Mapping[str, Any]) -> list[Problem]:
    """A model comes with its scores, and they are those of the README, which has the command that found them."""
    where = _key("eval_metrics")
    metrics = metadata.get("eval_metrics")
    if not metrics:
        missing = (bundle / MODEL).is_file() or metrics is not None
        return [Problem(where, "is empty or missing beside a model", f"give the scores of {README}")] if missing else []
    readme = (bundle / README).read_text(encoding="utf-8", errors="replace") if (bundle / README).is_file() else ""
    problems = []
    if not re.search(r"monai\.bundle run evaluat", readme):
        problems.append(Problem(README, "has no command that evaluates", "add the one that found eval_metrics"))
    written = numbers_in(readme)
    for path, value in score_values(metrics):
        if value not in written:
            problems.append(
                Problem(f"{where}#{path}", f"is {value}, which {README} does not say", f"give the figures of {README}")
            )
    return problems
