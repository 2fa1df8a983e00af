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
    Turn a full checkpoint of the SAM2LoRA code into a trained part on an official base.

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
    state = {re.sub(r"\.layer\.(weight|bias)$", r".\1", key): value for key, value in state.items()}
    plain = SAM2Segmenter(size=size, weights=weights)
    base = {k: v for k, v in plain.state_dict().items() if not k.startswith(("class_tokens.", "fingerprint"))}
    parameters = dict(plain.named_parameters())
    rank = _rank(lora_a, lora_b, base, checkpoint)
    wrong = {
        "missing": sorted(set(base) - set(state)),
        "unknown": sorted(set(state) - set(base)),
        "of another shape": sorted(k for k in set(base) & set(state) if state[k].shape != base[k].shape),
    }
    if any(wrong.values()):
        told = ", ".join(f"{kind} {keys[:5]}" for kind, keys in wrong.items() if keys)
        raise ValueError(f"{checkpoint} does not fit size '{size}': {told}; nothing was written.")
    state = _first_mask_as_single(state)
    changed = sorted(key for key, value in state.items() if not same_values(value, base[key]))
    values = [*lora_a.values(), *lora_b.values(), *(state[key] for key in changed)]
    if not all(value.is_floating_point() and bool(torch.isfinite(value).all()) for value in values):
        raise ValueError(f"{checkpoint} holds numbers that are not finite floats; nothing was written.")
    if fixed := [key for key in changed if key not in parameters]:
        raise ValueError(
            f"{checkpoint} differs from {weights} in {fixed}, which cannot be trained; nothing was written."
        )
    alpha = 2.0 * rank if alpha is None else alpha
    settings: dict[str, Any] = {
        "size": size,
        "weights": str(weights),
        "labels": [label],
        "adapters": [{"_target_": "monai_ext.adapters.LoRA", "targets": sorted(lora_a), "rank": rank, "alpha": alpha}],
        "unfrozen": changed,
        # The published code resizes every image to this and does not enlarge it further.
        "image_size": 1024,
        "enlarge": 1,
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


def _rank(lora_a: Mapping[str, Tensor], lora_b: Mapping[str, Tensor], base: Mapping[str, Tensor], path: Any) -> int:
    """The one rank of all pairs of matrices, which must fit the layers that they belong to."""
    ranks = {matrix.shape[-1] for matrix in lora_a.values()}
    if len(ranks) > 1:
        raise ValueError(f"{path} has LoRA of the ranks {sorted(ranks)}, which must be one.")
    rank = ranks.pop()
    for name, a in lora_a.items():
        b, weight = lora_b[name], base.get(f"{name}.weight")
        if weight is None or a.shape != (weight.shape[1], rank) or b.shape != (rank, weight.shape[0]):
            layer = "no layer of this size" if weight is None else f"a layer of {tuple(weight.shape)}"
            raise ValueError(f"{path}: {name}.A {tuple(a.shape)} and .B {tuple(b.shape)} do not fit {layer}.")
    return rank


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
