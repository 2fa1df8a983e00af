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


"""A training in MONAI's terms, small and with every kind of randomness, for the tests of the handlers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import EarlyStopHandler, LrScheduleHandler, MeanSquaredError, ValidationHandler, from_engine
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, RandSpatialCropd
from monai.utils import set_determinism

from monai_ext.handlers.resume import ResumeHandler
from monai_ext.handlers.trained import TrainedPartSaver


class ToyNetwork(torch.nn.Module):
    """Frozen first layer, dropout, trained second layer; loads all of its tensors or exactly the trained ones."""

    def __init__(self, width: int = 4, labels: tuple[str, ...] = ("vessel",)) -> None:
        super().__init__()
        self.labels = labels
        self.base = torch.nn.Conv2d(1, width, 3, padding=1).requires_grad_(False)
        self.trained = torch.nn.Sequential(
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.Dropout(0.3), torch.nn.Conv2d(width, 1, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.trained(self.base(image))

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        return {key: value for key, value in self.state_dict().items() if key.startswith("trained")}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        own = self.state_dict()
        if set(state_dict) not in (set(own), set(self.trained_state_dict())):
            raise ValueError(f"the keys must be those of the network, not {sorted(state_dict)}")
        return super().load_state_dict({**own, **state_dict}, strict=True)

    def describe(self) -> dict[str, Any]:
        return {"monai_ext": "0", "weights": None, "labels": self.labels, "width": self.base.out_channels}


def images(count: int, offset: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(offset)
    data = torch.rand(count, 1, 12, 12, generator=generator)
    return [{"image": image, "label": image.roll(1, -1)} for image in data]


def loader(num_workers: int = 0, **kwargs: Any) -> DataLoader:
    keys = ["image", "label"]
    transform = Compose(
        [
            RandSpatialCropd(keys, roi_size=(8, 8), random_size=False),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=0.5, std=0.1),
        ]
    )
    return DataLoader(
        Dataset(images(10), transform), batch_size=4, num_workers=num_workers, **{"shuffle": True} | kwargs
    )


def make_training(
    folder: Path,
    *,
    max_epochs: int = 3,
    width: int = 4,
    labels: tuple[str, ...] = ("vessel",),
    train_loader: DataLoader | None = None,
    epoch_length: int | None = None,
    per_iteration: bool = True,
    validate: bool = True,
    exec_at_start: bool = False,
    patience: int = 100,
    lr: float = 0.01,
    seed: int = 0,
    resume: bool = True,
    sgd: bool = False,
    handlers: tuple[Any, ...] = (),
    **trainer_kwargs: Any,
) -> SupervisedTrainer:
    """Everything that a bundle names, made from scratch as a new process does."""
    set_determinism(seed)
    train_loader = train_loader or loader()
    length = epoch_length or len(train_loader)
    network = ToyNetwork(width, labels)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.SGD(parameters, lr) if sgd else torch.optim.AdamW(parameters, lr)
    steps = length if per_iteration else 1
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=steps, t_total=steps * max_epochs)
    saver = TrainedPartSaver(network=network, path=folder / "models" / "model.pt")
    stop = EarlyStopHandler(patience, score_function=lambda e: -e.state.metrics["error"])
    validator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(images(3, offset=1)), batch_size=1),
        network=network,
        key_val_metric={"error": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=lambda new, best: new < best,
        val_handlers=[stop, saver],
    )
    states = {"optimizer": optimizer, "schedule": schedule, "best": saver, "stop": stop}
    resumer = ResumeHandler(path=folder / "resume.pt", network=network, states=states, resume=resume, seed=seed)
    train_handlers: list[Any] = [resumer, LrScheduleHandler(schedule, print_lr=False, epoch_level=not per_iteration)]
    if validate:
        train_handlers.append(ValidationHandler(1, validator, exec_at_start=exec_at_start))
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=max_epochs,
        train_data_loader=train_loader,
        epoch_length=epoch_length,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        train_handlers=[*train_handlers, *handlers],
        **trainer_kwargs,
    )
    stop.set_trainer(trainer)
    trainer.saver, trainer.stop, trainer.validator = saver, stop, validator
    return trainer


def train(folder: Path) -> None:
    """A short run, to be killed."""
    make_training(folder, max_epochs=8, width=64).run()
