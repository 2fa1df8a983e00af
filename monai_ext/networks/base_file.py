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
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from monai_ext.data.atomic import atomic_path
from monai_ext.networks.segmenter import SAM2Segmenter

OURS = ("class_tokens.", "fingerprint")
CLOSING = "sam_prompt_encoder.not_a_point_embed.weight"


def save_base(
    network: SAM2Segmenter, path: str | os.PathLike[str], *, description: Mapping[str, str] | None = None
) -> None:
    """
    Write a promptable network as base weights: SAM 2.1's own names, half precision, safetensors.

    The token of the network's label becomes the token that SAM closes every set of clicks with, whose place it has
    taken, so that the base answers clicks as the network does.

    Args:
        network: has one label and no adapters.
        path: the file, ``.safetensors``.
        description: what the file's header says of the weights.

    Raises:
        ValueError: the network has several labels or adapters, or numbers that half precision cannot hold; nothing
            was written.

    Example:
        >>> import tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "base.safetensors")
        >>> save_base(SAM2Segmenter(size="micro"), file)
        >>> SAM2Segmenter(size="micro", weights=file).weights == file
        True
    """
    if len(network.labels) != 1 or network.adapter_settings:
        raise ValueError(
            f"The network must have one label and no adapters to become a base, not the labels "
            f"{', '.join(network.labels)} and {len(network.adapter_settings)} adapters."
        )
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(OURS)}
    state[CLOSING] = network.class_tokens()
    half = {key: _half(key, value) for key, value in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(half, metadata=dict(description or {})))


def _half(key: str, value: Tensor) -> Tensor:
    half = value.detach().to("cpu", torch.float16, copy=True).contiguous()
    if not bool(torch.isfinite(half).all()):
        raise ValueError(f"{key} holds numbers that half precision cannot hold; nothing was written.")
    return half
