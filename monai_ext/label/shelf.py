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

from monai_ext.label.clicks import ClickSegmenter, PromptableModel
from monai_ext.label.embeddings import EmbeddingStore
from monai_ext.label.memory import BoundedMemory
from monai_ext.label.model import BaseModel, BundleModel
from monai_ext.label.studies import FileDigests
from monai_ext.label.versions import AdapterVersions
from monai_ext.networks.embedded import EMBEDDED_WEIGHTS
from monai_ext.networks.weights import OFFICIAL_WEIGHTS, find_weights

MEGABYTE = 1024**2
CLICKS = "_clicks"


class ModelShelf:
    """
    All models that a server offers: bundles that segment by themselves, and what answers clicks.

    Nothing is loaded before it is asked for.

    Args:
        bundles: the folder with the bundles; those named ``*_segmentation`` are offered.
        state: the folder for tuned adapters and embeddings.
        memory: megabytes of pictures and embeddings kept in memory.
        disk: megabytes of embeddings kept on disk.

    Attributes:
        bundles: the bundles by name.
        clicks: what is clicked with by name: bases, and each bundle of pictures with ``_clicks`` behind its name.
        memory: pictures and answers kept, half of the whole.
        embeddings: embeddings kept, the other half.

    Example:
        >>> import tempfile
        >>> shelf = ModelShelf(bundles="bundles", state=tempfile.mkdtemp())
        >>> "sam2_micro" in shelf.clicks
        True
    """

    def __init__(
        self,
        *,
        bundles: str | os.PathLike[str],
        state: str | os.PathLike[str],
        memory: int = 1024,
        disk: int = 4096,
    ) -> None:
        state = Path(state)
        self.digests = FileDigests()
        self.memory = BoundedMemory(memory * MEGABYTE // 2)
        self.embeddings = EmbeddingStore(
            memory=memory * MEGABYTE // 2, disk=disk * MEGABYTE, folder=state / "embeddings"
        )
        self.bundles = {
            root.name: BundleModel(root, AdapterVersions(state / "adapters" / root.name, root / "models"))
            for root in sorted(Path(bundles).glob("*_segmentation"))
            if (root / "configs/inference.json").is_file()
        }
        clicked: dict[str, PromptableModel] = {base.name: base for base in _bases()}
        clicked |= {f"{name}{CLICKS}": model for name, model in self.bundles.items() if model.dimension == 2}
        self.clicks = {
            name: ClickSegmenter(model, self.embeddings, self.memory, self.digests) for name, model in clicked.items()
        }

    def clean(self) -> None:
        """Remove what trainings that were killed left behind; to be called when none runs."""
        for model in self.bundles.values():
            model.versions.clean()


def _bases() -> list[BaseModel]:
    found = [BaseModel(name, name) for name in EMBEDDED_WEIGHTS]
    for name in OFFICIAL_WEIGHTS:
        try:
            find_weights(name)
        except FileNotFoundError:
            continue
        found.append(BaseModel(name.removeprefix("sam2.1_hiera_"), name))
    return found
