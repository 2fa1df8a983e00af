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
import math
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, get_confusion_matrix
from monai.utils import string_list_all_gather

from monai_ext.data.atomic import atomic_path
from monai_ext.handlers.files import require_writable
from monai_ext.handlers.utils import batch_items, item_value, source_path, write_table
from monai_ext.metrics.cldice import compute_cldice
from monai_ext.metrics.roc_auc import pixel_auc
from monai_ext.version import __version__

SCORES = ("dice", "iou", "auc", "sensitivity", "specificity", "cldice", "hd95")


class EvaluationReport:
    """
    Score every image inside its field of view and write a table per image and a summary with bootstrap intervals.

    Writes ``per_image_<mode>.csv`` and ``summary_<mode>.json`` when the epoch ends and puts the mean scores into
    ``engine.state.metrics`` as ``<score>_<label>``, so that handlers listed after it log them. Scores are those of
    :func:`label_scores`; one that is undefined for an image is left out of the summary, whose ``n`` says how many
    images count. The interval is the percentile interval of the mean over resampled images. With several processes
    the first writes what all have measured.

    Args:
        output_dir: folder of both files; made if missing.
        labels: names of the channels.
        mode: how the network was prompted; truth-prompted results get files of their own. ``none`` is ``automatic``.
        pred_key: item with the predicted masks.
        label_key: item with the true masks.
        probability_key: item with the probabilities; without it there is no AUC.
        fov_key: item with the field of view; without it the whole image counts.
        bootstrap: number of resamples.
        seed: of the resampling.

    Shape:
        masks and probabilities `(C, spatial...)`, field of view `(1, spatial...)`; masks are 0 or 1.

    Raises:
        ValueError: at construction, labels or mode cannot be used.
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> report = EvaluationReport(output_dir="eval", labels=["vessel"], mode="none")
        >>> report.summary_path.as_posix()
        'eval/summary_automatic.json'
    """

    scores: Sequence[str] = SCORES

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        labels: Sequence[str],
        mode: str = "automatic",
        pred_key: str = "pred",
        label_key: str = "label",
        probability_key: str = "probability",
        fov_key: str = "fov",
        bootstrap: int = 2000,
        seed: int = 0,
    ) -> None:
        if isinstance(labels, str) or not labels or len(set(labels)) < len(labels):
            raise ValueError(f"labels must be a list of different names, not {labels!r}.")
        if not re.fullmatch(r"[\w.+-]+", mode):
            raise ValueError(f"mode must be a word that can stand in a file name, not {mode!r}.")
        self.labels = list(labels)
        self.mode = "automatic" if mode == "none" else mode
        self.table_path = Path(output_dir) / f"per_image_{self.mode}.csv"
        self.summary_path = Path(output_dir) / f"summary_{self.mode}.json"
        self.pred_key, self.label_key = pred_key, label_key
        self.probability_key, self.fov_key = probability_key, fov_key
        self.bootstrap, self.seed = bootstrap, seed
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a MONAI evaluator.
        """
        require_writable(self.table_path)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _measure(self, engine: Engine) -> None:
        for item in batch_items(engine):
            path = source_path(item)
            pred, truth = (item_value(item, key) > 0.5 for key in (self.pred_key, self.label_key))
            if pred.shape != truth.shape or len(pred) != len(self.labels):
                raise ValueError(
                    f"{path}: prediction and truth must have {len(self.labels)} channels ({', '.join(self.labels)}) "
                    f"and one size, not {tuple(pred.shape)} and {tuple(truth.shape)}."
                )
            for label, scores in zip(self.labels, self._score(item, pred, truth), strict=True):
                self._rows.append({"image": path, "label": label, **scores})

    def _score(self, item: Mapping[str, Any], pred: torch.Tensor, truth: torch.Tensor) -> list[dict[str, float]]:
        """The scores of each label of one image."""
        fov = item_value(item, self.fov_key)[0] > 0.5 if self.fov_key in item else torch.ones_like(truth[0])
        chances = item_value(item, self.probability_key) if self.probability_key in item else [None] * len(pred)
        return [
            label_scores(mask, true, probability=probability, fov=fov)
            for mask, true, probability in zip(pred, truth, chances, strict=True)
        ]

    def _finish(self, engine: Engine) -> None:
        gathered = string_list_all_gather([json.dumps(row) for row in self._rows])
        # Several processes measure the same images if there are fewer images than processes.
        rows = list({(row["image"], row["label"]): row for row in map(json.loads, filter(None, gathered))}.values())
        rows.sort(key=lambda row: (row["image"], self.labels.index(row["label"])))
        summary = {label: self._summarise([row for row in rows if row["label"] == label]) for label in self.labels}
        engine.state.metrics.update(
            {f"{name}_{label}": score["mean"] for label, scores in summary.items() for name, score in scores.items()}
        )
        if idist.get_rank() == 0:
            write_table(self.table_path, ["image", "label", *self.scores], rows)
            facts = {**provenance(), "mode": self.mode, "images": len({row["image"] for row in rows})}
            facts |= {"seed": self.seed, "bootstrap": self.bootstrap, "confidence": 0.95, "labels": summary}
            with atomic_path(self.summary_path) as temporary:
                temporary.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def _summarise(self, rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
        columns = {name: np.array([row[name] for row in rows if not math.isnan(row[name])]) for name in self.scores}
        return {
            name: score_summary(v, bootstrap=self.bootstrap, seed=self.seed) for name, v in columns.items() if v.size
        }


def label_scores(
    pred: torch.Tensor, truth: torch.Tensor, *, probability: torch.Tensor | None = None, fov: torch.Tensor | None = None
) -> dict[str, float]:
    """
    Measure one mask: Dice, IoU, AUC, sensitivity, specificity, clDice and 95 % Hausdorff distance in pixels.

    Args:
        pred: predicted mask, boolean.
        truth: true mask, boolean.
        probability: what the AUC ranks pixels by.
        fov: pixels that count, boolean; all by default.

    Returns:
        a value per score, ``NaN`` where it is undefined: all of them for a label absent from truth and prediction, the
        distance for one absent from either, the AUC if truth fills all or nothing of the field of view. Dice, IoU and
        clDice are 0 when only one mask is empty.

    Example:
        >>> mask = torch.eye(8).bool()
        >>> label_scores(mask, mask)["dice"]
        1.0
    """
    fov = torch.ones_like(truth) if fov is None else fov
    pred, truth = pred & fov, truth & fov
    if not pred.any() and not truth.any():
        return dict.fromkeys(SCORES, math.nan)
    images = pred[None, None].float(), truth[None, None].float()
    pixels = pred[fov][None, None].float(), truth[fov][None, None].float()
    tp, fp, tn, fn = get_confusion_matrix(*pixels).flatten().tolist()
    return {
        "dice": compute_dice(*pixels, ignore_empty=False).item(),
        "iou": compute_iou(*pixels, ignore_empty=False).item(),
        "auc": math.nan if probability is None else pixel_auc(probability[fov].numpy(), truth[fov].numpy()),
        "sensitivity": tp / (tp + fn) if tp + fn else math.nan,
        "specificity": tn / (tn + fp) if tn + fp else math.nan,
        "cldice": compute_cldice(*images).item(),
        # MONAI warns of an empty mask, which is no news here.
        "hd95": compute_hausdorff_distance(*images, include_background=True, percentile=95).item()
        if pred.any() and truth.any()
        else math.nan,
    }


def score_summary(values: np.ndarray, *, bootstrap: int = 2000, seed: int = 0) -> dict[str, float | None]:
    """
    Return mean, sample standard deviation, number and 95 % bootstrap interval of the mean.

    Args:
        values: one per image.
        bootstrap: number of resamples.
        seed: of the resampling, the same for every score, so that adding one changes no other.

    Example:
        >>> score_summary(np.array([0.5, 0.5]))
        {'mean': 0.5, 'std': 0.0, 'n': 2, 'low': 0.5, 'high': 0.5}
    """
    draws = np.random.default_rng(seed).integers(0, len(values), (bootstrap, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "std": std, "n": len(values), "low": float(low), "high": float(high)}


def provenance() -> dict[str, Any]:
    """What was run where and when, for the head of a summary."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {"python": platform.python_version(), "monai_ext": __version__}
    versions |= {library.__name__: str(library.__version__) for library in (monai, torch, np)}
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "hardware": {"platform": platform.platform(), "cpus": os.cpu_count(), "cuda": cuda},
        "versions": versions,
    }
