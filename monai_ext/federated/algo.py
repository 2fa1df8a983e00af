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

from typing import Any

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject

from monai_ext.handlers.trained import unwrapped

DEFAULT = "default"
CONFIGS = ["configs/train.json", "configs/federated.json"]


class TrainedPartAlgo(MonaiAlgo):
    """
    Client of a federation that exchanges only what is trained: a few megabytes, never the frozen base.

    MONAI's own client sends the whole network. This one drops from what it sends all that ``model.pt`` does not hold,
    before any filter of the configuration sees it, and brings what the server has averaged back to the network's types.
    The fingerprint travels along: clients on different bases, labels or adapters are refused by
    ``SAM2Segmenter.load_state_dict`` instead of being averaged.

    Args:
        bundle_root: folder of the bundle, below ``ExtraItems.APP_ROOT`` if the federation gives one.
        config_train_filename: configs of the training, below ``bundle_root``; None for a client that only evaluates.
            By default ``train.json`` and ``federated.json`` laid over it.
        config_evaluate_filename: configs of the evaluation, None for no evaluation. By default the same, which score
            the validation images and keep the best global weights as ``model.pt``.
        kwargs: those of MONAI's ``MonaiAlgo``: ``local_epochs``, ``send_weight_diff``, ``train_kwargs`` and others.

    Example:
        >>> client = TrainedPartAlgo("bundles/fundus_vessel_segmentation", local_epochs=2)
        >>> client.config_train_filename
        ['configs/train.json', 'configs/federated.json']
    """

    pre_filters: Any
    post_weight_filters: Any

    def __init__(
        self,
        bundle_root: str,
        *,
        config_train_filename: str | list[str] | None = DEFAULT,
        config_evaluate_filename: str | list[str] | None = DEFAULT,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            bundle_root,
            config_train_filename=CONFIGS if config_train_filename == DEFAULT else config_train_filename,
            config_evaluate_filename=CONFIGS if config_evaluate_filename == DEFAULT else config_evaluate_filename,
            **kwargs,
        )

    def initialize(self, extra: dict[str, Any] | None = None) -> None:
        """Build trainer and evaluator from the configs, and the filters around what is exchanged."""
        super().initialize(extra)
        self.post_weight_filters = [self._keep_trained, *(self.post_weight_filters or [])]
        self.pre_filters = [*(self.pre_filters or []), self._restore_types]

    def _keep_trained(self, data: ExchangeObject, _extra: dict[str, Any]) -> ExchangeObject:
        if data.weights is not None:
            # Copies: a server in the same process must not average into the network itself.
            data.weights = {key: data.weights[key].detach().clone() for key in self._trained_state()}
        return data

    def _restore_types(self, data: ExchangeObject, _extra: dict[str, Any]) -> ExchangeObject:
        """An average is float64 on some servers, the fingerprint's too, and its bytes are then not whole."""
        own = self._trained_state()
        weights = {key: torch.as_tensor(value) for key, value in (data.weights or {}).items()}
        return ExchangeObject(
            weights={key: _as_type(value, own[key].dtype) if key in own else value for key, value in weights.items()},
            weight_type=data.weight_type,
        )

    def _trained_state(self) -> dict[str, torch.Tensor]:
        engine: Any = self.trainer or self.evaluator
        return unwrapped(engine.network).trained_state_dict()


def _as_type(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if dtype.is_floating_point else value.round().to(dtype)
