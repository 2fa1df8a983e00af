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

"""What a file of weights must be to be loaded: the whole network, or exactly its trained part on the same base."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def make_fingerprint(frozen: Mapping[str, Tensor], trained: Any) -> Tensor:
    """Sixteen bytes: eight for the frozen base, eight for what is trained upon it."""
    base = hashlib.sha256()
    for name in sorted(frozen):
        base.update(name.encode())
        base.update(frozen[name].detach().float().contiguous().cpu().numpy().tobytes())
    spec = hashlib.sha256(repr(trained).encode())
    return torch.tensor(list(base.digest()[:8] + spec.digest()[:8]), dtype=torch.uint8)


def same_memory(a: Any, b: Tensor) -> bool:
    """Whether a tensor is the other one itself, not a copy with the same values."""
    return isinstance(a, Tensor) and a.shape == b.shape and a.data_ptr() == b.data_ptr() and a.numel() > 0


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, one of them perhaps in half precision."""
    if not (a.is_floating_point() and b.is_floating_point()):
        return bool(torch.equal(a, b.to(a.dtype)))
    coarser = a.dtype if torch.finfo(a.dtype).eps > torch.finfo(b.dtype).eps else b.dtype
    return bool(torch.equal(a.to(coarser), b.to(coarser)))


def check_state(given: Mapping[str, Any], own: Mapping[str, Tensor], trained: Sequence[str]) -> None:
    """Raise unless ``given`` is the whole state or exactly the trained part of the same base, adapters and labels."""
    wanted = set(own) if set(given) == set(own) else set(trained)
    missing, unexpected = sorted(wanted - set(given)), sorted(set(given) - wanted)
    misshapen = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in sorted(wanted & set(given))
        if given[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if keys
    ]
    if problems:
        raise ValueError(
            "These weights are not this network's (another size, adapter or number of labels?); nothing was loaded. "
            + "; ".join(problems)
            + "."
        )
    for key, value in given.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"The weights hold numbers that are not finite, in {key}; nothing was loaded.")
    mine, theirs = own["fingerprint"].tolist(), given["fingerprint"].tolist()
    if mine[8:] != theirs[8:]:
        raise ValueError(
            "These weights were trained for other labels or adapter settings than this network's; nothing was loaded. "
            "Compare adapter.json beside them with network_def."
        )
    if wanted == set(trained) and mine[:8] != theirs[:8]:
        raise ValueError(
            "These weights were trained on other base weights than this network's; nothing was loaded. "
            "Give the base that adapter.json beside them names."
        )
