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

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.workflows import _reject_executable_logging_config
from monai.utils import BundleProperty, BundlePropertyConfig, optional_import

from monai_ext.share.contents import CONFIG_SUFFIXES, METADATA, find_config, read_mapping
from monai_ext.share.problem import Problem

LOGGING = "configs/logging.conf"
# Keys that the zoo asks for, beside MONAI's required properties.
ZOO_KEYS = {"inference": ("output_dir", "run"), "train": ("output_dir", "run")}
PROPERTIES = {"inference": InferProperties, "train": TrainProperties}
# The zoo's own place for data belongs to nobody.
NOBODYS = "/workspace/"


def check_configs(bundle: Path) -> list[Problem]:
    """
    Say what is wrong with a bundle's configs, without running them: keys, references, components, paths.

    Args:
        bundle: its folder.
    """
    problems: list[Problem] = []
    locator = ComponentLocator()
    for path in sorted((bundle / "configs").glob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.suffix in CONFIG_SUFFIXES and name != METADATA:
            config, found = read_mapping(bundle, name)
            problems += found + _path_problems(name, config) + _component_problems(bundle, name, config, locator)
    if not any(find_config(bundle, "inference") == problem.where for problem in problems):
        problems += _key_problems(bundle, "inference")
    if not any(find_config(bundle, "train") == problem.where for problem in problems):
        problems += _key_problems(bundle, "train")
    if (bundle / LOGGING).is_file():
        try:
            _reject_executable_logging_config(str(bundle / LOGGING))
        except ValueError as error:
            reason = str(error).replace(str(bundle / LOGGING), "").strip()
            problems.append(Problem(LOGGING, f"is refused by MONAI ({reason})", "name classes of `logging` only"))
    return problems


def _key_problems(bundle: Path, kind: str) -> list[Problem]:
    name = find_config(bundle, kind)
    if name is None:
        return []
    parser = ConfigParser(ConfigParser.load_config_file(bundle / name))
    wanted = [
        str(entry[BundlePropertyConfig.ID]) for entry in PROPERTIES[kind].values() if entry[BundleProperty.REQUIRED]
    ]
    problems = [
        Problem(f"{name}#{key.replace('::', '#')}", "is missing", "add it; MONAI, its zoo or MONAI Label looks for it")
        for key in (*wanted, *ZOO_KEYS[kind])
        if parser.get(key) is None
    ]
    if (bundle / METADATA).is_file() and not read_mapping(bundle, METADATA)[1]:
        parser.read_meta(str(bundle / METADATA))
    for key in list(parser.get()):
        try:
            parser.get_parsed_content(key, instantiate=False, eval_expr=False)
        except (KeyError, ValueError) as error:
            problems.append(Problem(f"{name}#{key}", _sentence(error), "correct the reference"))
    return problems


def _component_problems(bundle: Path, name: str, config: Mapping[str, Any], locator: ComponentLocator) -> list[Problem]:
    problems = []
    for key, component in _components(config):
        target = component["_target_"]
        package = target.partition(".")[0]
        # What a bundle brings itself is found when it runs.
        if target.startswith(("$", "@")) or (bundle / package).is_dir() or (bundle / f"{package}.py").is_file():
            continue
        try:
            where = ConfigComponent(config=component, id="", locator=locator).resolve_module_name()
            module, _, short = str(where).rpartition(".")
            known = optional_import(module, name=short)[1]
        except (ImportError, ValueError):
            known = False
        if not known:
            problems.append(Problem(f"{name}#{key}", f"names {target}, which is nowhere", "correct `_target_`"))
    return problems


def _components(config: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(config, dict):
        if isinstance(config.get("_target_"), str):
            yield key, config
        items: Any = config.items()
    else:
        items = enumerate(config) if isinstance(config, list) else ()
    for name, value in items:
        yield from _components(value, f"{key}#{name}" if key else str(name))


def _path_problems(name: str, config: Any, key: str = "") -> list[Problem]:
    if isinstance(config, dict | list):
        items = config.items() if isinstance(config, dict) else enumerate(config)
        found = (_path_problems(name, value, f"{key}#{part}" if key else str(part)) for part, value in items)
        return [problem for problems in found for problem in problems]
    absolute = isinstance(config, str) and re.match(r"/|[A-Za-z]:[\\/]", config) and not config.startswith(NOBODYS)
    remedy = f"make it relative to @bundle_root, or begin it with {NOBODYS}"
    return [Problem(f"{name}#{key}", f"is the absolute path {config}", remedy)] if absolute else []


def _sentence(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split()).rstrip(".")
