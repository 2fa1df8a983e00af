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
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from monai_ext.text.encoder import LabelNameEncoder, name_of


class SentenceEncoder(LabelNameEncoder):
    """
    Any sentence encoder of the package ``sentence-transformers``.

    Args:
        model: a folder, or a name of the Hugging Face hub, which is downloaded on first use.
        name: what the file of embeddings remembers; ``model`` by default, unless that is a folder.

    Raises:
        ValueError: the model is a folder and has no name.
        ImportError: on first use, the package ``sentence-transformers`` is not installed.
        OSError: on first use, the model cannot be had.

    Source:
        Reimers and Gurevych, Sentence-BERT, EMNLP 2019, https://arxiv.org/abs/1908.10084.

    Example:
        >>> SentenceEncoder(model="sentence-transformers/all-MiniLM-L6-v2").name
        'sentence-transformers/all-MiniLM-L6-v2'
    """

    def __init__(self, *, model: str | os.PathLike[str], name: str | None = None) -> None:
        super().__init__(name=name_of(model, name))
        self.model = str(model)
        self._network: Any = None

    def encode(self, texts: Sequence[str]) -> Tensor:
        if self._network is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise ImportError(
                    "SentenceEncoder needs sentence-transformers: run `pip install 'monai_ext[text]'`."
                ) from error
            self._network = SentenceTransformer(self.model, device="cpu")
        return self._network.encode(list(texts), convert_to_tensor=True, show_progress_bar=False).float().cpu()
