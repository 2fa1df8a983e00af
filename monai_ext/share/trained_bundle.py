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
import os
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_ext.inferers import LongestSideInferer, VolumeSlicesInferer
from monai_ext.networks.segmenter import SAM2Segmenter
from monai_ext.networks.weights import read_state_dict
from monai_ext.transforms import CTWindows

# What `adapter.json` calls differently from the configs.
_VARIABLES = {"size": "size", "weights": "weights", "labels": "labels", "enlarge": "enlarge", "train": "unfrozen"}


class TrainedBundle(NamedTuple):
    """A bundle's network with what was trained in it, and what its inference does around the network."""

    root: Path
    checkpoint: Path | None  # None: the base weights alone are the model
    network: SAM2Segmenter
    settings: dict[str, Any]
    parser: ConfigParser

    def read_image(self, path: str | os.PathLike[str]) -> Tensor:
        """
        Read an image by the bundle's own preprocessing, ``(3, H, W)``: of a volume the slice in the middle.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            image = self.parser.get_parsed_content("preprocessing")({"image": os.fspath(path)})["image"]
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.__cause__ or error  # MONAI wraps what a transform says
            raise ValueError(f"{path} cannot be compared on: {reason}") from error
        image = convert_to_tensor(image, track_meta=False)
        return image[..., image.shape[-1] // 2].transpose(1, 2) if image.ndim == 4 else image


def open_trained_bundle(
    bundle: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None = None
) -> TrainedBundle:
    """
    Build a bundle's network as ``configs/inference.json`` says, and load what was trained.

    An ``adapter.json`` beside the checkpoint goes before the config: size, base weights, labels and adapters are those
    that the model was trained with.

    Args:
        bundle: folder of the bundle.
        checkpoint: ``model.pt``; by default that in the bundle's ``models``.

    Raises:
        FileNotFoundError: there is no such bundle, checkpoint or base.
        ValueError: the checkpoint is damaged or of another network, the network is no :class:`SAM2Segmenter`, or the
            inference is of a kind that cannot be described.
    """
    root = Path(bundle)
    config = root / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{root} is no bundle: {config} does not exist; give the bundle's folder.")
    parser = ConfigParser()
    parser.read_config(str(config))
    parser.read_meta(str(config.with_name("metadata.json")))
    parser["bundle_root"] = str(root)
    path = Path(checkpoint) if checkpoint is not None else root / "models" / "model.pt"
    # A bundle that loads no trained part is one of base weights.
    wanted = checkpoint is not None or "ckpt_dir" in parser.get()
    if wanted and not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train first, or give the file of a trained model.")
    if wanted:
        _describe_as_trained(parser, path.with_name("adapter.json"))
    network = parser.get_parsed_content("network_def")
    if not isinstance(network, SAM2Segmenter):
        raise ValueError(f"{config}: network_def must be a SAM2Segmenter, not {type(network).__name__}.")
    if wanted:
        try:
            network.load_state_dict(read_state_dict(path))
        except ValueError as error:
            raise ValueError(f"{path} does not fit: {error}") from error
    network.eval().requires_grad_(False)
    settings = {"labels": network.labels, **_inference(parser, config)}
    return TrainedBundle(root, path if wanted else None, network, settings, parser)


def _describe_as_trained(parser: ConfigParser, path: Path) -> None:
    if not path.is_file():
        return
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, but it does not parse: {error}.") from error
    for key, variable in _VARIABLES.items():
        if key in description:
            parser[variable] = description[key]
    adapters = [dict(adapter) for adapter in description.get("adapters", [])]
    parser["adapters"] = [{"_target_": f"monai_ext.adapters.{a.pop('method')}", **a} for a in adapters]


def _inference(parser: ConfigParser, config: Path) -> dict[str, Any]:
    """What stands around the network in inference, in the words of the runner's settings."""
    transforms = {t["_target_"].rpartition(".")[2]: t for t in parser["preprocessing"]["transforms"]}
    if "NormalizeIntensityd" not in transforms:
        raise ValueError(f"{config}: preprocessing must have NormalizeIntensityd, not only {', '.join(transforms)}.")
    settings = {
        "mean": transforms["NormalizeIntensityd"]["subtrahend"],
        "std": transforms["NormalizeIntensityd"]["divisor"],
        "threshold": parser.get_parsed_content("threshold"),
        "field_of_view": "FieldOfViewd" in transforms,
        "longest_side": None,
        "window": None,
        "overlap": [0.0, 0.0],
        "mode": "constant",
    }
    if "CTWindowsd" in transforms:
        settings["ct_windows"] = [list(w) for w in CTWindows(windows=parser.get_parsed_content("windows")).windows]
    inferer = parser.get_parsed_content("inferer")
    while isinstance(inferer, (LongestSideInferer, VolumeSlicesInferer)):
        if isinstance(inferer, LongestSideInferer):
            settings["longest_side"] = inferer.longest_side
        inferer = inferer.inferer
    if isinstance(inferer, SlidingWindowInferer):
        settings["window"] = [int(side) for side in _pair(inferer.roi_size)]
        settings["overlap"] = [float(share) for share in _pair(inferer.overlap)]
        settings["mode"] = str(inferer.mode.value)
    elif not isinstance(inferer, SimpleInferer):
        raise ValueError(f"{config}: inferer must be a sliding window, not {type(inferer).__name__}.")
    return settings


def _pair(value: Any) -> tuple[Any, Any]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)  # type: ignore[return-value]
