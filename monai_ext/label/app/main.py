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
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from monai_ext.label.app.datastore import SafeDatastore
from monai_ext.label.app.dicomweb import write_segmentations_without_dcmqi
from monai_ext.label.app.slice_clicks import SliceClickTask
from monai_ext.label.app.tasks import AutomaticTask, TuneTask, UncertaintyStrategy
from monai_ext.label.shelf import ModelShelf
from monai_ext.version import __version__


class AnnotationApp(MONAILabelApp):
    """
    MONAI Label's application: every bundle as a model that segments by itself, and what answers clicks.

    MONAI Label finds it by itself in this file and makes one in the server, and one in each process of a training.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        conf = conf or {}
        remote = studies.startswith(("http://", "https://"))
        state = conf.get("state") or ("runs/label" if remote else str(Path(studies, ".monai_ext")))
        self.shelf = ModelShelf(
            bundles=conf.get("bundles") or Path(__file__).resolve().parents[3] / "bundles",
            state=state,
            memory=int(conf.get("memory", 1024)),
            disk=int(conf.get("disk", 4096)),
        )
        self.slices = Path(state, "slices")
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="monai_ext",
            description="SAM 2.1 with adapters: automatic masks, clicks, boxes, and tuning on saved labels",
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        tasks: dict[str, InferTask] = {name: AutomaticTask(model) for name, model in self.shelf.bundles.items()}
        clicks = {name: SliceClickTask(segmenter, self.slices) for name, segmenter in self.shelf.clicks.items()}
        return {**tasks, **clicks}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {name: TuneTask(model) for name, model in self.shelf.bundles.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"uncertainty": UncertaintyStrategy(self.shelf), "random": Random(), "first": First()}

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            write_segmentations_without_dcmqi()
            return super().init_datastore()
        # The process of a training has no watcher, and must not write the index that the server writes.
        watching = settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD
        return SafeDatastore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=watching,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY or not watching,
        )

    def server_mode(self, mode: bool) -> None:
        super().server_mode(mode)
        self.shelf.clean()

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        found = super().next_sample(request)
        # MONAI Label tells clients the server's own paths.
        return {**found, "path": os.path.basename(found["path"])} if found.get("path") else found

    def _download_dcmqi_tools(self) -> None:
        """Nothing is downloaded: DICOM segmentations are written without these programs."""
