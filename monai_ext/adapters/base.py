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

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdapterLayer(nn.Module, ABC):
    """What a method adds to one module: its parameters and how they change the module's output."""

    # Whether the delta can be computed only while the module's weight is the base's: it is kept while merged.
    keeps_delta = False

    @abstractmethod
    def forward(self, base: Any, x: Tensor) -> Tensor:
        """The adapted module's output; equal to ``base(x)`` bit for bit before training."""

    def base_changed(self) -> None:
        """Forget what was computed from the module's weights: others have been loaded."""

    def delta(self, base: Any) -> Tensor:
        """What merging adds to ``base.weight``, in float32; methods that are no change of weights cannot be merged."""
        raise TypeError(f"{type(self).__name__} is no change of weights and cannot be merged; keep it as it is.")


class WeightLayer(AdapterLayer):
    """
    A layer that is a change of the module's weight.

    The weight is formed once for each training step, and once for all steps of an evaluation. A method is one
    method of its own, ``change``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache: tuple[Any, Tensor] | None = None

    @abstractmethod
    def change(self, base: Any) -> Tensor:
        """What is added to ``base.weight``, of its shape and type; zero before training."""

    def forward(self, base: Any, x: Tensor) -> Tensor:
        weight = self._weight(base)
        return (
            F.linear(x, weight, base.bias) if isinstance(base, nn.Linear) else base._conv_forward(x, weight, base.bias)
        )

    def delta(self, base: Any) -> Tensor:
        with torch.no_grad():
            return self.change(base).float()

    def base_changed(self) -> None:
        self._cache = None

    def _weight(self, base: Any) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return base.weight + self.change(base)
        # A tensor's version counts the changes made in place: by an optimizer, by loading.
        state = [(p.data_ptr(), p.dtype, p._version) for p in (base.weight, *self.parameters())]
        if self._cache is None or self._cache[0] != state:
            self._cache = state, base.weight + self.change(base)
        return self._cache[1]


def require_matrix(base: nn.Module, method: str) -> None:
    """Raise TypeError unless the module's weight is a matrix that acts on each place alike."""
    convolution = isinstance(base, nn.Conv2d) and base.groups == 1 and base.padding_mode == "zeros"
    if not (isinstance(base, nn.Linear) or convolution):
        kind = type(base).__name__
        raise TypeError(f"{method} adapts Linear and Conv2d without groups, not {kind}; narrow the targets.")


def block_widths(base: nn.Module, method: str) -> tuple[int, int]:
    """Channels that go into a block of Hiera and come out of it; TypeError if it is none."""
    widths = getattr(base, "dim", None), getattr(base, "dim_out", None)
    if not (isinstance(widths[0], int) and isinstance(widths[1], int) and hasattr(base, "mlp")):
        kind = type(base).__name__
        raise TypeError(f"{method} adapts blocks (image_encoder.trunk.blocks.*), not {kind}; narrow the targets.")
    return widths[0], widths[1]


class Adapter(ABC):
    """
    A way of tuning: which modules it adapts, and how. It holds settings only, no tensors.

    A new method is one subclass in one file with one method, ``layer``.

    Args:
        targets: shell-style patterns, matched against the full names of the network's modules
            (``*trunk*attn.qkv``). A pattern that matches nothing is an error.
        name: adapters of the same name work together; of several names one is active at a time.
    """

    # Whether what is added depends on the tokens of all labels, so that a label more changes the others' answers.
    reads_tokens = False

    def __init__(self, *, targets: Sequence[str], name: str = "default") -> None:
        if isinstance(targets, str) or not targets:
            raise ValueError(f"targets must be a list of patterns such as ['*trunk*attn.qkv'], not {targets!r}.")
        if not name or "." in name:
            raise ValueError(f"name must be a word without dots, not {name!r}.")
        self.targets = list(targets)
        self.name = name

    @abstractmethod
    def layer(self, base: nn.Module) -> AdapterLayer:
        """
        The parameters for one module.

        Raises:
            TypeError: this kind of module cannot be adapted; says which can.
            ValueError: the settings do not fit this module.
        """

    def layers(self, network: nn.Module, names: Sequence[str]) -> dict[str, Any]:
        """The parameters for all modules of these names; overridden where layers share something."""
        made = {}
        for name in names:
            try:
                made[name] = self.layer(network.get_submodule(name))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
        return made

    def describe(self) -> dict[str, Any]:
        """The settings, as JSON."""
        return {"method": type(self).__name__, **{k: v for k, v in vars(self).items() if not k.startswith("_")}}

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self).items())
        return f"{type(self).__name__}({settings})"


class Adapted(nn.Module):
    """Stands in the network where the adapted module stood: the module itself and its adapters, one of them active."""

    base: Any
    adapters: Any

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self._merged: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.active not in self.adapters:
            return self.base(x)
        return self.adapters[self.active](self.base, x)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        for layer in self.adapters.values():
            layer.base_changed()

    def add_delta(self, sign: int) -> None:
        """Add the active adapter's delta to the module's weight (``sign`` 1) or take it away again (-1)."""
        if self.active in self.adapters:
            weight, layer = self.base.weight, self.adapters[self.active]
            delta = layer.delta(self.base) if self._merged is None else self._merged
            self._merged = delta if layer.keeps_delta and sign > 0 else None
            weight.data = (weight.data.float() + sign * delta).to(weight.dtype)


def find_targets(network: nn.Module, adapter: Adapter) -> list[str]:
    """
    Names of the modules that an adapter's patterns match, in the network's order.

    Raises:
        ValueError: a pattern matches nothing; lists the nearest names.
    """
    names = [name for name, _ in network.named_modules() if name and ".adapters" not in name]
    found: set[str] = set()
    for pattern in adapter.targets:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            # Patterns are near a name in their literal part.
            near = get_close_matches(pattern.replace("*", ""), names, n=3, cutoff=0.0)
            raise ValueError(f"targets: {pattern!r} matches no module. Near names: {', '.join(near)}.")
        found.update(matched)
    return [name for name in names if name in found]


def inject(network: nn.Module, adapters: Sequence[Adapter]) -> dict[str, Adapted]:
    """
    Put adapters into a network. Nothing is changed unless all of them fit.

    Args:
        network: any module.
        adapters: several may share a name when they adapt different modules, or a module when their names differ.

    Returns:
        the adapted modules by their full names.

    Raises:
        ValueError: a pattern matches nothing, or two adapters of one name want the same module.
        TypeError: a matched module cannot be adapted by this method.
    """
    planned: dict[str, dict[str, AdapterLayer]] = {}
    for adapter in adapters:
        for name, layer in adapter.layers(network, find_targets(network, adapter)).items():
            layers = planned.setdefault(name, {})
            if adapter.name in layers:
                raise ValueError(f"targets: two adapters named {adapter.name!r} match {name!r}; name one differently.")
            layers[adapter.name] = layer
    for outer in planned:
        inner = next((name for name in planned if name.startswith(outer + ".")), None)
        if inner is not None:
            raise ValueError(f"targets: {inner!r} lies inside {outer!r}, which is adapted too; adapt one of them.")
    adapted = {}
    for name, layers in planned.items():
        adapted[name] = Adapted(network.get_submodule(name))
        adapted[name].adapters.update(layers)
        replace_module(network, name, adapted[name])
    return adapted


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module at a full name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
