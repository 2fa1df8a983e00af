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

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, Transposed
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_ext.data.reader import PhotographReader
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.versions import AdapterVersions
from monai_ext.networks.segmenter import SAM2Segmenter
from monai_ext.networks.weights import read_state_dict

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class LoadedNetwork(NamedTuple):
    """A network and what it is: a name that changes whenever its weights do."""

    network: SAM2Segmenter
    identity: str


class Segmentation(NamedTuple):
    """Masks as MONAI orders them, ``(C, W, H)`` or ``(C, X, Y, Z)``, and a volume's affine."""

    masks: np.ndarray
    affine: np.ndarray | None


class BaseModel:
    """
    A base that was trained to answer clicks, without any adapter.

    Args:
        size: of the network, such as ``micro``.
        weights: a name of base weights or a path.

    Example:
        >>> BaseModel("micro", "micro").name
        'sam2_micro'
    """

    labels: tuple[str, ...] = ()
    dimension = 2
    longest_side: int | None = None

    def __init__(self, size: str, weights: str | os.PathLike[str]) -> None:
        self.name = f"sam2_{size}"
        self.description = f"Clicks and boxes, any object: SAM 2.1 {size} as it is, without an adapter"
        # What SAM 2.1 itself is trained on; micro on smaller squares.
        self.size, self.weights, self.window = size, weights, 224 if size == "micro" else 1024
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._lock = threading.Lock()
        self._loaded: LoadedNetwork | None = None
        reader: Any = PhotographReader()
        scale: dict[str, Any] = {"subtrahend": MEAN, "divisor": DEVIATION, "channel_wise": True}
        self._preprocessing = Compose(
            [
                LoadImaged(keys="image", reader=reader, ensure_channel_first=True),
                Transposed(keys="image", indices=[0, 2, 1]),
                NormalizeIntensityd(keys="image", **scale),
            ]
        )

    def network(self) -> LoadedNetwork:
        """The network, loaded when it is first needed."""
        with self._lock:
            if self._loaded is None:
                network = SAM2Segmenter(size=self.size, weights=self.weights).eval().to(self.device)
                self._loaded = LoadedNetwork(network, f"{self.name} {bytes(network.fingerprint.tolist()).hex()}")
            return self._loaded

    def picture(self, path: Path) -> Tensor:
        """
        The picture as the network wants it, ``(3, H, W)``.

        Raises:
            RequestRefused: the file cannot be read; the sentence names it.
        """
        return _read(self._preprocessing, path)["image"]


class BundleModel:
    """
    One bundle as a model that segments by itself: its own transforms, inferer and network, and the version in use.

    Everything is built when it is first needed. A new version of the adapter is loaded by the first request after it
    came into use; requests that are under way end with the one they began with.

    Args:
        root: the bundle.
        versions: the trained parts.

    Raises:
        ValueError: the bundle's configuration cannot be read.
    """

    def __init__(self, root: str | os.PathLike[str], versions: AdapterVersions) -> None:
        self.root, self.versions = Path(root), versions
        self.name = self.root.name
        self.config = json.loads((self.root / "configs/inference.json").read_text(encoding="utf-8"))
        self.metadata = json.loads((self.root / "configs/metadata.json").read_text(encoding="utf-8"))
        self.config["bundle_root"] = str(self.root)
        self.labels: tuple[str, ...] = tuple(self.config["labels"])
        self.description: str = self.metadata["description"]
        self.dimension = 3 if "VolumeReader" in json.dumps(self.config["preprocessing"]) else 2
        self.window: int = self.config.get("image_size", 1024)
        self.longest_side: int | None = self.config.get("longest_side")
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._parts: dict[str, Any] = {}
        self._parser = ConfigParser(self.config)  # one for all parts: transforms are inverted by those that ran
        self._parsing = threading.Lock()
        self._loaded: tuple[Any, LoadedNetwork] | None = None

    @property
    def trained(self) -> bool:
        """Whether there is a trained part at all."""
        return self.versions.current is not None

    def network(self) -> LoadedNetwork:
        """
        The network with the adapter in use.

        Raises:
            RequestRefused: nothing was ever trained, or the file does not fit the bundle.
        """
        with self._lock:
            path = self.versions.path
            if path is None:
                raise RequestRefused(
                    f"The bundle {self.name} has no trained model yet: save labels and train it (POST /train/"
                    f"{self.name}), or put its model.pt into {self.versions.shipped}.",
                    409,
                )
            status = path.stat()
            stamp = (path, status.st_mtime_ns, status.st_size)
            if self._loaded is None or self._loaded[0] != stamp:
                network = ConfigParser(self.config).get_parsed_content("network_def")
                try:
                    network.load_state_dict(read_state_dict(path))
                except ValueError as error:
                    raise RequestRefused(f"{path} does not fit {self.name}: {error}", 409) from error
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                loaded = LoadedNetwork(network.eval().to(self.part("device")), f"{self.name} {digest}")
                self._loaded = (stamp, loaded)
            return self._loaded[1]

    def segment(self, path: Path) -> Segmentation:
        """
        Segment a picture or a volume by itself, as ``python -m monai.bundle run`` does.

        Raises:
            RequestRefused: the file cannot be read, or there is no model.
        """
        network = self.network().network
        with self._running:  # two at once would take twice the memory and be no faster
            data = self._predict(path, network)
        image = data["image"]
        affine = image.affine.cpu().numpy() if self.dimension == 3 else None
        return Segmentation(convert_to_tensor(data["pred"], track_meta=False).cpu().numpy() > 0.5, affine)

    def logits(self, path: Path, flip: tuple[int, ...] = ()) -> Tensor:
        """What is said of a whole picture, flipped in these dimensions and back, ``(C, H, W)`` before any threshold."""
        network = self.network().network
        data = _read(self.part("preprocessing"), path)
        data["image"] = data["image"].flip(flip)
        with self._running:
            return convert_to_tensor(self._infer(data, network), track_meta=False).flip(flip)

    def picture(self, path: Path) -> Tensor:
        """
        The picture as the network wants it, ``(3, H, W)``.

        Raises:
            RequestRefused: the file cannot be read; the sentence names it.
        """
        return _read(self.part("preprocessing"), path)["image"]

    def part(self, name: str) -> Any:
        """A part of the bundle's configuration, built once."""
        with self._parsing:
            if name not in self._parts:
                self._parts[name] = self._parser.get_parsed_content(name)
            return self._parts[name]

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.part("device")

    def _predict(self, path: Path, network: SAM2Segmenter) -> dict[str, Any]:
        data = _read(self.part("preprocessing"), path)
        data["pred"] = self._infer(data, network)
        return self.part("postprocessing")(data)

    def _infer(self, data: dict[str, Any], network: SAM2Segmenter) -> Tensor:
        device, inferer = self.device, self.part("inferer")
        with torch.no_grad(), torch.autocast(device.type, enabled=bool(self.part("amp"))):
            return inferer(data["image"].unsqueeze(0).to(device), network)[0]


def _read(preprocessing: Compose, path: Path) -> dict[str, Any]:
    try:
        return preprocessing({"image": str(path)})
    except (RuntimeError, ValueError, OSError) as error:
        # MONAI wraps what a transform raises; our readers' sentence is what it was raised from.
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise RequestRefused(str(cause).replace(str(path), path.name)) from error
