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
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_ext.adapters.lora import LoRA
from monai_ext.data.atomic import atomic_path
from monai_ext.networks.segmenter import SAM2Segmenter
from monai_ext.networks.state import same_values
from monai_ext.networks.weights import read_state_dict

__all__ = ["convert_sam2lora"]

# Wrappers of the published code, which stand between the parts of official names.
WRAPPERS = re.compile(r"(^|\.)(atten_block|transformer_layer)(?=\.)")
FIRST = "image_encoder.trunk.patch_embed.proj.weight"
# The published code trains and shows the first of the three masks that SAM 2 has for an ambiguous prompt, not the
# single one: rows of these, and the whole little network that draws it, change places.
MASK_ROWS = (
    "sam_mask_decoder.mask_tokens.weight",
    "sam_mask_decoder.iou_prediction_head.layers.2.weight",
    "sam_mask_decoder.iou_prediction_head.layers.2.bias",
)
MASK_NETWORKS = "sam_mask_decoder.output_hypernetworks_mlps.{}."


def convert_sam2lora(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    size: str,
    weights: str | os.PathLike[str],
    label: str = "object",
    alpha: float | None = None,
) -> dict[str, Any]:
    """
    Turn a full checkpoint of the SAM2LoRA code into a trained part of a few MB on an official base.

    Writes ``model.pt``, ``adapter.json`` and ``network.json``; the last is an overlay for the bundle's configs, which
    declares the network that the first belongs to. Parameters of the base that differ from the official ones (the code
    starts ``no_mem_embed`` anew) become part of ``model.pt``. The code trains the first of SAM 2's three masks; here
    that becomes the single mask.

    Args:
        checkpoint: a file with ``<linear>.layer.weight``, ``<linear>.A`` (in, r) and ``<linear>.B`` (r, out) for each
            adapted linear layer and SAM 2's own names for the rest, under any common prefix.
        folder: where the three files go; made if missing.
        size: size of the network.
        weights: the official base, a name or a path.
        label: name of the one label.
        alpha: of LoRA, which the file does not hold; twice the rank by default, as in the paper.

    Returns:
        what ``network.json`` holds.

    Raises:
        FileNotFoundError: the checkpoint or the base is not there.
        ValueError: the file holds no LoRA, ranks differ, or names or shapes are not SAM 2's; nothing was written.

    Source:
        Mandal et al., SAM2LoRA, https://arxiv.org/abs/2510.10288; names as in its published code.
    """
    state = _official_names(read_state_dict(checkpoint), Path(checkpoint))
    lora_a = {key[: -len(".A")]: state.pop(key) for key in list(state) if key.endswith(".A")}
    lora_b = {key[: -len(".B")]: state.pop(key) for key in list(state) if key.endswith(".B")}
    if not lora_a or set(lora_a) != set(lora_b):
        raise ValueError(
            f"{checkpoint} holds {len(lora_a)} matrices A and {len(lora_b)} B of LoRA, which must be as many and some. "
            f"The published code loses them when it trains on a GPU (they are no parameters there)."
        )
    ranks = {matrix.shape[1] for matrix in lora_a.values()}
    if len(ranks) > 1:
        raise ValueError(f"{checkpoint} has LoRA of the ranks {sorted(ranks)}, which must be one.")
    state = _first_mask_as_single({re.sub(r"\.layer\.(weight|bias)$", r".\1", k): v for k, v in state.items()})
    rank = ranks.pop()
    plain = SAM2Segmenter(size=size, weights=weights)
    base, parameters = plain.state_dict(), dict(plain.named_parameters())
    unknown = [key for key in [*lora_a, *state] if key not in base and f"{key}.weight" not in base]
    misshapen = [key for key, value in state.items() if key in base and value.shape != base[key].shape]
    if unknown or misshapen:
        raise ValueError(
            f"{checkpoint} does not fit size '{size}': unknown {unknown[:5]}, of another shape {misshapen[:5]}; "
            f"nothing was written."
        )
    changed = sorted(key for key, value in state.items() if not same_values(value, base[key]))
    if fixed := [key for key in changed if key not in parameters]:
        raise ValueError(
            f"{checkpoint} differs from {weights} in {fixed}, which cannot be trained; nothing was written."
        )
    settings: dict[str, Any] = {
        "size": size,
        "weights": str(weights),
        "labels": [label],
        "adapters": [
            {"_target_": "monai_ext.adapters.LoRA", "targets": sorted(lora_a), "rank": rank, "alpha": alpha or 2 * rank}
        ],
        "unfrozen": changed,
    }
    adapter = LoRA(**{k: v for k, v in settings["adapters"][0].items() if k != "_target_"})
    network = SAM2Segmenter(size=size, weights=weights, labels=[label], adapters=[adapter], train=changed)
    with torch.no_grad():
        for key in changed:
            network.get_parameter(key).copy_(state[key])
        for name in lora_a:
            adapted: Any = network.get_submodule(name)
            layer = adapted.adapters["default"]
            layer.lora_a.copy_(lora_a[name].T)
            layer.lora_b.copy_(lora_b[name].T)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.pt") as temporary:
        torch.save(network.trained_state_dict(), temporary)
    for name, content in (("adapter.json", network.describe()), ("network.json", settings)):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    return settings


def _official_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without the common prefix, the wrappers, and what SAM 2 uses for video only."""
    plain = {WRAPPERS.sub("", key).lstrip("."): value for key, value in state.items()}
    prefix = next((key[: -len(FIRST)] for key in plain if key.endswith(FIRST)), None)
    if prefix is None:
        raise ValueError(f"{path} holds no SAM 2: no key ends in {FIRST}.")
    parts = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
    ours = {key[len(prefix) :]: value for key, value in plain.items() if key.startswith(prefix)}
    return {key: value for key, value in ours.items() if key.startswith(parts)}


def _first_mask_as_single(state: dict[str, Tensor]) -> dict[str, Tensor]:
    moved = dict(state)
    for key in MASK_ROWS:
        if key in state:
            moved[key] = state[key][[1, 0, *range(2, len(state[key]))]]
    single, first = (MASK_NETWORKS.format(number) for number in (0, 1))
    for key, value in state.items():
        if key.startswith(single):
            moved[key] = state[first + key[len(single) :]]
            moved[first + key[len(single) :]] = value
    return moved
