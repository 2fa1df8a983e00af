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
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, verify_net_in_out

from monai_ext.handlers.files import load_tensors
from monai_ext.networks import SAM2Segmenter
from monai_ext.share.contents import DESCRIPTION, METADATA, MODEL, README, find_config, read_mapping
from monai_ext.share.problem import Problem


def check_model(bundle: Path) -> list[Problem]:
    """
    Build a bundle's network and say what does not fit: metadata, ``model.pt``, its description, TorchScript.

    The code that the bundle's configs name is run.

    Args:
        bundle: its folder; metadata and the inference config can be read.
    """
    config = find_config(bundle, "inference")
    with _quiet(), _on_path(bundle):
        try:
            network = _network(bundle, str(config))
        except Exception as error:  # whatever a config's code raises
            return [Problem(f"{config}#network_def", f"cannot be built ({_words(error)})", "correct it")]
        return [
            *_shape_problems(bundle, str(config)),
            *_weight_problems(bundle, network),
            *_export_problems(bundle, network),
        ]


def _network(bundle: Path, config: str) -> Any:
    parser = ConfigParser(ConfigParser.load_config_file(bundle / config))
    parser["bundle_root"] = str(bundle)
    return parser.get_parsed_content("network_def").eval()


def _shape_problems(bundle: Path, config: str) -> list[Problem]:
    try:
        verify_net_in_out(
            net_id="network_def",
            config_file=str(bundle / config),
            meta_file=str(bundle / METADATA),
            device="cpu",
            bundle_root=str(bundle),
        )
    except Exception as error:  # whatever the network raises
        remedy = "correct it, or the labels of the network"
        return [Problem(f"{METADATA}#network_data_format", f"is not what the network does ({_words(error)})", remedy)]
    return []


def _weight_problems(bundle: Path, network: Any) -> list[Problem]:
    path = bundle / MODEL
    if not path.is_file():
        return []
    try:
        state = load_tensors(path)
    except ValueError:
        return [Problem(MODEL, "is damaged, or holds more than tensors", "save a plain dict of tensors")]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        return [Problem(MODEL, "is no plain dict of tensors", "save the state of the network alone")]
    problems = []
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        problems.append(Problem(MODEL, f"does not fit network_def ({_words(error)})", "train it with these configs"))
    return problems + (_description_problems(bundle, network) if isinstance(network, SAM2Segmenter) else [])


def _description_problems(bundle: Path, network: SAM2Segmenter) -> list[Problem]:
    if not (bundle / DESCRIPTION).is_file():
        return [Problem(DESCRIPTION, f"is missing beside {MODEL}", "copy it from where the model was trained")]
    described, problems = read_mapping(bundle, DESCRIPTION)
    # The version is that of the training.
    ours = {key: value for key, value in network.describe().items() if key != "monai_ext"}
    return problems + [
        Problem(
            f"{DESCRIPTION}#{key}",
            f"is {_short(described.get(key))}, but the network's is {_short(value)}",
            f"copy the file that was written with {MODEL}, or correct network_def",
        )
        for key, value in ours.items()
        if described and described.get(key) != value
    ]


def _export_problems(bundle: Path, network: Any) -> list[Problem]:
    """What cannot be scripted must say so: the zoo's full check scripts every network that is not excused from it."""
    try:
        torch.jit.script(network)
    except Exception as error:  # the compiler has no common class of errors
        readme = (bundle / README).read_text(encoding="utf-8", errors="replace") if (bundle / README).is_file() else ""
        if not re.search("TorchScript", readme):
            what = f"does not say that the network cannot be scripted ({_words(error)})"
            return [Problem(README, what, "say that it does not support TorchScript")]
    return []


@contextmanager
def _quiet() -> Iterator[None]:
    # MONAI tells what it does; here only what is wrong counts.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _on_path(bundle: Path) -> Iterator[None]:
    # Where a bundle's own `scripts` are found, as the zoo's check does it.
    sys.path.insert(0, str(bundle))
    try:
        yield
    finally:
        sys.path.remove(str(bundle))


def _words(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
