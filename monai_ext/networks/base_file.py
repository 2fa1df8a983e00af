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

import copy
import os
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from monai_ext.data.atomic import atomic_path
from monai_ext.networks.segmenter import SAM2Segmenter

OURS = ("class_tokens.", "fingerprint")
CLOSING = "sam_prompt_encoder.not_a_point_embed.weight"


def save_base(
    network: SAM2Segmenter,
    path: str | os.PathLike[str],
    *,
    half: bool = True,
    description: Mapping[str, str] | None = None,
) -> None:
    """
    Write a network as base weights, its adapters merged: SAM 2.1's own names, safetensors.

    The token of the network's label becomes the token that SAM closes every set of clicks with, whose place it has
    taken, so that the base answers as the network does. The network itself is left as it is.

    Args:
        network: has one label.
        path: the file, ``.safetensors``.
        half: whether to write half precision; full otherwise.
        description: what the file's header says of the weights.

    Raises:
        ValueError: the network has several labels or moves clicks, or has numbers that half precision cannot hold;
            nothing was written.
        TypeError: an adapter is no change of weights and cannot be merged; nothing was written.

    Example:
        >>> import tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "base.safetensors")
        >>> save_base(SAM2Segmenter(size="micro"), file)
        >>> SAM2Segmenter(size="micro", weights=file).weights == file
        True
    """
    if len(network.labels) != 1:
        raise ValueError(f"The network must have one label to become a base, not {', '.join(network.labels)}.")
    if network.click_shift is not None:
        raise ValueError("The network must have no click_shift to become a base: SAM 2 has no place for it.")
    merged = copy.deepcopy(network)
    merged.merge()
    state = {key: value for key, value in merged.state_dict().items() if not key.startswith(OURS)}
    state[CLOSING] = merged.class_tokens()
    saved = {key: _saved(key, value, half) for key, value in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(saved, metadata=dict(description or {})))


def _saved(key: str, value: Tensor, half: bool) -> Tensor:
    saved = value.detach().to("cpu", torch.float16 if half else torch.float32, copy=True).contiguous()
    if not bool(torch.isfinite(saved).all()):
        raise ValueError(f"{key} holds numbers that half precision cannot hold; nothing was written.")
    return saved
