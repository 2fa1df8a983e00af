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
from typing import Any

from torch import nn

from monai_ext.networks.segmenter import SAM2Segmenter


def merged_network(network: SAM2Segmenter) -> SAM2Segmenter:
    """
    Make a plain network, without adapters, that answers as the given one: the adapters are in its weights.

    It needs no base weights, so its whole state is its own: what its ``state_dict()`` gives, a network of the same
    :func:`plain_settings` loads. Names of labels that were prompts have become tokens.

    Args:
        network: has adapters that are changes of weights, or none; is left as it is.

    Raises:
        TypeError: an adapter is no change of weights and cannot be merged.

    Example:
        >>> import torch
        >>> network = SAM2Segmenter(size="micro", weights="micro").eval()
        >>> image = torch.zeros(1, 3, 32, 32)
        >>> torch.equal(merged_network(network)(image), network(image))
        True
    """
    merged = copy.deepcopy(network).cpu()
    merged.merge()
    plain = SAM2Segmenter(**plain_settings(network))
    state = {key: value for key, value in merged.state_dict().items() if not key.startswith("class_tokens.")}
    state |= {"class_tokens.weight": merged.class_tokens(), "fingerprint": plain.fingerprint}
    nn.Module.load_state_dict(plain, state)
    return plain.eval().requires_grad_(False)


def plain_settings(network: SAM2Segmenter) -> dict[str, Any]:
    """Arguments of :class:`SAM2Segmenter` that make a network without adapters of the same kind, as JSON."""
    return {
        "size": network.size,
        "labels": network.labels,
        "enlarge": network.enlarge,
        "click_shift": 0 if network.click_shift is None else network.click_shift.reach,
        "multimask": network.multimask,
        "dynamic_multimask": network.sam_mask_decoder.dynamic_multimask_via_stability,
    }
