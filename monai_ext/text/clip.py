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

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_ext.text.encoder import LabelNameEncoder, name_of


class CLIPTextEncoder(LabelNameEncoder):
    """
    CLIP's text encoder, the one of S-SAM: the label's name as it is, without a template.

    Args:
        model: a folder, or a name of the Hugging Face hub, which is downloaded on first use.
        name: what the file of embeddings remembers; ``model`` by default, unless that is a folder.

    Raises:
        ValueError: the model is a folder and has no name.
        ImportError: on first use, the package ``transformers`` is not installed.
        OSError: on first use, the model cannot be had.

    Source:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
        https://arxiv.org/abs/2103.00020.

    Example:
        >>> CLIPTextEncoder().name
        'openai/clip-vit-base-patch32'
    """

    def __init__(self, *, model: str = "openai/clip-vit-base-patch32", name: str | None = None) -> None:
        super().__init__(name=name_of(model, name))
        self.model = model
        self._parts: tuple[Any, Any] | None = None

    def encode(self, texts: Sequence[str]) -> Tensor:
        if self._parts is None:
            try:
                from transformers import AutoTokenizer, CLIPTextModelWithProjection
            except ImportError as error:
                raise ImportError("CLIPTextEncoder needs transformers: run `pip install 'monai_ext[text]'`.") from error
            self._parts = (
                AutoTokenizer.from_pretrained(self.model),
                CLIPTextModelWithProjection.from_pretrained(self.model).eval(),
            )
        tokenizer, network = self._parts
        with torch.no_grad():
            tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
            return network(**tokens).text_embeds.float().cpu()
