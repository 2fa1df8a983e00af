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
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from monai_ext.label.clicks import ClickSegmenter
from monai_ext.label.mask_files import index_mask, label_names, read_mask, result_suffix, write_mask
from monai_ext.label.model import BundleModel
from monai_ext.label.prompts import ClickPrompts
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.saved_labels import SavedLabel
from monai_ext.label.shelf import ModelShelf
from monai_ext.label.tuning import DEFAULTS, read_settings, tune_adapter
from monai_ext.label.uncertainty import uncertainty

logger = logging.getLogger(__name__)


class AutomaticTask(InferTask):
    """A bundle that segments by itself."""

    def __init__(self, model: BundleModel) -> None:
        super().__init__(InferType.SEGMENTATION, label_names(model.labels), model.dimension, model.description)
        self.model = model

    def is_valid(self) -> bool:
        return self.model.trained

    def get_path(self, validate: bool = True) -> str | None:
        path = self.model.versions.path
        return None if path is None else str(path)

    def info(self) -> dict[str, Any]:
        return {**super().info(), "version": self.model.versions.current}

    def mask(self, request: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """The index mask, ``(H, W)`` upright or ``(X, Y, Z)``, and a volume's affine."""
        masks, affine = self.model.segment(Path(request["image"]))
        index = index_mask(masks)
        return (index if affine is not None else index.T), affine

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        began = time.monotonic()
        suffix = result_suffix(request.get("result_extension"), self.dimension)
        mask, affine = self.mask(request)
        path = _result_file(suffix)
        write_mask(mask, path, affine)
        numbers = {int(n) for n in np.unique(mask)}
        names = {label: n for label, n in self.labels.items() if n in numbers} or self.labels
        return str(path), {
            "label_names": self.labels,
            "found": list(names) if numbers - {0} else [],
            "latencies": {"total": round(time.monotonic() - began, 3)},
        }


class ClickTask(InferTask):
    """A base or a bundle's adapter that answers clicks and boxes."""

    def __init__(self, segmenter: ClickSegmenter) -> None:
        model = segmenter.model
        super().__init__(InferType.DEEPGROW, label_names(model.labels), 2, model.description)
        self.segmenter = segmenter

    def is_valid(self) -> bool:
        return getattr(self.segmenter.model, "trained", True)

    def get_path(self, validate: bool = True) -> str | None:
        return None

    def mask(self, request: dict[str, Any]) -> tuple[np.ndarray, None]:
        """The mask of one object, ``(H, W)`` upright, 0 and 1."""
        path = Path(request["image"])
        _, size = self.segmenter.digests.picture(path)
        prompts = ClickPrompts.from_request(request, size, self.segmenter.model.labels)
        earlier = read_mask(Path(request["earlier"]), size) if request.get("earlier") else None
        return self.segmenter.segment(path, prompts, earlier), None

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        began = time.monotonic()
        suffix = result_suffix(request.get("result_extension"), 2)
        mask, _ = self.mask(request)
        path = _result_file(suffix)
        write_mask(mask, path)
        name = request.get("label") or next(iter(self.labels), "object")
        return str(path), {
            "label_names": {name: 1},
            "pixels": int(mask.sum()),
            "latencies": {"total": round(time.monotonic() - began, 3)},
        }


class TuneTask(TrainTask):
    """The trainer of a bundle's adapter; MONAI Label runs it in a process of its own."""

    def __init__(self, model: BundleModel) -> None:
        super().__init__(f"Tune the adapter of {model.name} on the labels saved as final")
        self.model = model

    def config(self) -> dict[str, Any]:
        return dict(DEFAULTS)

    def stats(self) -> dict[str, Any]:
        return self.model.versions.describe()

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        saved = saved_labels(datastore)
        version = tune_adapter(self.model, saved, **read_settings(request))
        logger.info("%s is in use as version %d.", self.model.name, version)
        return {"version": version}


class UncertaintyStrategy(Strategy):
    """
    The picture of which a model is least sure comes next.

    At most ``CHUNK`` pictures without a score are looked at for each request, so that it ends soon in a folder of
    thousands; scores are kept with the images until the model's version changes.
    """

    CHUNK = 8
    KEY = "uncertainty_of_model"

    def __init__(self, shelf: ModelShelf) -> None:
        super().__init__("The picture of which the model is least sure; model=... says which model")
        self.shelf = shelf

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        model = self._model(request.get("model"))
        version = f"{model.name} {model.versions.current}"
        scores, chunk = {}, self.CHUNK
        for image in datastore.get_unlabeled_images():
            known = datastore.get_image_info(image).get(self.KEY, {})
            if known.get("of") == version:
                scores[image] = known["score"]
            elif chunk:
                chunk -= 1
                try:
                    scores[image] = uncertainty(model, Path(datastore.get_image_uri(image)))
                except RequestRefused as error:  # a bad picture must not stop the choice among the others
                    logger.warning("%s is left out: %s", image, error)
                    scores[image] = -1.0
                datastore.update_image_info(image, {self.KEY: {"of": version, "score": scores[image]}})
        if not scores:
            return None
        best = max(scores, key=lambda image: (scores[image], image))
        return {"id": best, "uncertainty": scores[best]}

    def _model(self, name: Any) -> BundleModel:
        ready = {n: m for n, m in self.shelf.bundles.items() if m.dimension == 2 and m.trained}
        if name is None and ready:
            # What was tuned here is what somebody works on.
            return max(ready.values(), key=lambda model: model.versions.current or 0)
        if name not in ready:
            raise RequestRefused(
                f"model must be a trained bundle of pictures ({', '.join(ready) or 'there is none'}), not {name!r}."
            )
        return ready[name]


def _result_file(suffix: str) -> Path:
    handle, name = tempfile.mkstemp(suffix=suffix)
    os.close(handle)
    return Path(name)


def saved_labels(datastore: Datastore) -> list[SavedLabel]:
    """The labels that were saved as final, with what the client said of them."""
    saved = []
    for entry in datastore.datalist():
        image = Path(entry["image"])
        info = {}
        for name, known in datastore.json().get("objects", {}).items():
            final = known["labels"].get("final")
            if final and f"{name}{known['image']['ext']}" == image.name:
                info = final["info"]
        saved.append(SavedLabel(image, Path(entry["label"]), _plain(info)))
    return saved


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    params = info.get("params")
    if isinstance(params, str):
        try:
            params = json.loads(params)
        except ValueError:
            params = None
    return {**info, **(params if isinstance(params, dict) else {})}
