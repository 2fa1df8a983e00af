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

"""Two hospitals that train one network: what goes over the wire, and that it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_runs import SHORT, VESSELS, copy_bundle, run_bundle, write_fundus
from ignite.engine import Events
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.utils import set_determinism

from monai_ext.federated import TrainedPartAlgo
from monai_ext.handlers.utils import iteration_loss

# As in the other tests of bundles, on smaller patches; a rate at which two rounds show.
SMALL = {key: value for key, value in SHORT.items() if key != "max_epochs"} | {"enlarge": 1, "lr": 0.005}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder each, with the bundle and images of its own."""
    folders = [tmp_path_factory.mktemp(name) for name in ("north", "south")]
    for seed, folder in enumerate(folders):
        copy_bundle(VESSELS, folder / VESSELS.name)
        write_fundus(folder / "data", seed)
    return folders


def make_client(folder: Path, **overrides: Any) -> TrainedPartAlgo:
    settings = {**SMALL, "dataset_dir": str(folder / "data"), **overrides.pop("settings", {})}
    client = TrainedPartAlgo(VESSELS.name, train_kwargs=settings, eval_kwargs=settings, **overrides)
    client.initialize({ExtraItems.CLIENT_NAME: folder.name, ExtraItems.APP_ROOT: str(folder)})
    return client


@pytest.fixture
def clients(hospitals: list[Path]) -> Any:
    yield [make_client(folder, send_weight_diff=False) for folder in hospitals]
    set_determinism(seed=None)


def federated_average(answers: Sequence[ExchangeObject]) -> ExchangeObject:
    """What a server does, as one that works with NumPy in double precision: the mean, weighted by iterations."""
    counts = [answer.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] or 1 for answer in answers]
    shares = [count / sum(counts) for count in counts]
    weights = {
        key: np.sum([share * a.weights[key].double().numpy() for share, a in zip(shares, answers, strict=True)], axis=0)
        for key in answers[0].weights
    }
    return ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS)


def size_of(weights: dict[str, torch.Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in weights.values())


def losses_of(client: TrainedPartAlgo) -> list[float]:
    """Collects the loss of each step from now on."""
    losses: list[float] = []
    client.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(iteration_loss(engine.state.output))
    )
    return losses


def test_two_rounds_of_two_clients(clients: list[TrainedPartAlgo], hospitals: list[Path]) -> None:
    losses = [losses_of(client) for client in clients]
    start = [client.get_weights().weights for client in clients]
    assert all(torch.equal(start[0][key], start[1][key]) for key in start[0]), "clients start from one base and seed"
    whole = clients[0].trainer.network.state_dict()
    frozen = {key: value.clone() for key, value in whole.items() if key not in start[0]}
    assert size_of(start[0]) < 1.5e6 < 20e6 < size_of(whole)

    shared = ExchangeObject(weights=start[0], weight_type=WeightType.WEIGHTS)
    for _ in range(2):
        for client in clients:
            client.train(shared)
        answers = [client.get_weights() for client in clients]
        assert all(set(answer.weights) == set(start[0]) for answer in answers)
        assert not torch.equal(answers[0].weights["class_tokens.weight"], answers[1].weights["class_tokens.weight"])
        shared = federated_average(answers)
        scores = [client.evaluate(shared).metrics["val_mean_dice"] for client in clients]
        assert all(0 <= score <= 1 for score in scores)

    for values in losses:
        assert len(values) == 4 and np.mean(values[2:]) < np.mean(values[:2])
    # Both were scored with the same weights: those of the server. The base is as it was.
    ends = [client.evaluator.network.state_dict() for client in clients]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert all(torch.equal(ends[0][key], value) for key, value in frozen.items())
    assert not torch.equal(ends[0]["class_tokens.weight"], start[0]["class_tokens.weight"])
    # The best of them lies where inference looks for it.
    best = clients[0].get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    assert set(best) == set(start[0])
    images = hospitals[0] / "data" / "test" / "images"
    run_bundle(hospitals[0] / VESSELS.name, "inference", dataset_dir=images, enlarge=1, output_dir=hospitals[0] / "out")
    assert len(list((hospitals[0] / "out").glob("*_mask.png"))) == len(list(images.iterdir()))


def test_differences_bring_a_server_to_the_same_weights(hospitals: list[Path]) -> None:
    client = make_client(hospitals[0], send_weight_diff=True, config_evaluate_filename=None)
    network = client.trainer.network
    before = network.trained_state_dict()
    client.train(ExchangeObject(weights={key: value.clone() for key, value in before.items()}))
    sent = client.get_weights()
    assert sent.weight_type == WeightType.WEIGHT_DIFF and set(sent.weights) == set(before)
    assert not sent.weights["fingerprint"].any() and sent.weights["class_tokens.weight"].any()
    for key, value in network.trained_state_dict().items():
        torch.testing.assert_close(before[key] + sent.weights[key], value)
    set_determinism(seed=None)


def test_what_was_sent_is_not_the_network_itself(clients: list[TrainedPartAlgo]) -> None:
    sent = clients[0].get_weights().weights
    sent["class_tokens.weight"] += 1
    assert not torch.equal(sent["class_tokens.weight"], clients[0].get_weights().weights["class_tokens.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"adapters#0#rank": 4}, "Convert weight"), ({"adapters#0#alpha": 4}, "other labels or adapter settings")],
    ids=["rank", "alpha"],
)
def test_a_client_with_other_settings_is_refused(
    settings: dict[str, Any], message: str, clients: list[TrainedPartAlgo], hospitals: list[Path]
) -> None:
    stranger = make_client(hospitals[1], settings=settings, send_weight_diff=False, config_evaluate_filename=None)
    before = clients[0].get_weights().weights
    with pytest.raises(ValueError, match=message):
        clients[0].train(stranger.get_weights())
    assert all(torch.equal(value, before[key]) for key, value in clients[0].get_weights().weights.items())
