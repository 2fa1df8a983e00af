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
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.metrics import compute_iou

from monai_ext.data.atomic import atomic_path
from monai_ext.data.processes import gather_values
from monai_ext.handlers.files import require_writable
from monai_ext.handlers.overlay import draw_overlay
from monai_ext.handlers.report import provenance
from monai_ext.handlers.utils import (
    batch_items,
    image_names,
    item_value,
    source_path,
    unique_stem,
    upright,
    write_picture,
    write_table,
)

COLUMNS = ("source", "image", "object", "pixels", "answer", "iou")


class ClickReport:
    """
    Score every object after every click: how well a promptable network does with how much of an annotator's work.

    Writes, when the epoch ends, ``per_object_<mode>.csv``, ``summary_<mode>.json`` with the mean IoU over the objects
    of each source and its 95 % bootstrap interval (over images, since the objects of an image are alike),
    ``curve_<mode>.png``, and for each image ``<mode>/<source>_<image>.jpg``: all objects after the first and after the
    last answer side by side, green where right, red where false, blue where missed. The means are in
    ``engine.state.metrics`` as ``iou_<source>_<answer>``. Of several processes each draws its own images, and the first
    writes what all have measured.

    Args:
        output_dir: folder of the files; made if missing.
        mode: how the network was prompted; results of different prompts get files of their own.
        image_key: item with the image.
        pred_key: item with the masks of each answer, as :class:`monai_ext.inferers.ClickTrialInferer` gives them.
        label_key: item with the true masks.
        source_key: item with the name of the set that the image belongs to.
        bootstrap: number of resamples.
        seed: of the resampling.

    Shape:
        image (3, W, H), pred (answers, K, W, H), label (K, W, H); masks are 0 or 1.

    Raises:
        ValueError: prediction and truth differ in size; names the image.
        OSError: when attached, ``output_dir`` cannot be written.

    Example:
        >>> ClickReport(output_dir="eval", mode="box").summary_path.as_posix()
        'eval/summary_box.json'
    """

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        mode: str = "points",
        image_key: str = "image",
        pred_key: str = "pred",
        label_key: str = "label",
        source_key: str = "source",
        bootstrap: int = 2000,
        seed: int = 0,
    ) -> None:
        self.folder, self.mode = Path(output_dir), mode
        self.table_path = self.folder / f"per_object_{mode}.csv"
        self.summary_path = self.folder / f"summary_{mode}.json"
        self.curve_path = self.folder / f"curve_{mode}.png"
        self.image_key, self.pred_key, self.label_key, self.source_key = image_key, pred_key, label_key, source_key
        self.bootstrap, self.seed = bootstrap, seed
        self._rows: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: a MONAI evaluator.
        """
        require_writable(self.table_path)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows, self._names = [], image_names(engine)

    def _measure(self, engine: Engine) -> None:
        for item in batch_items(engine):
            path, source = source_path(item), str(item[self.source_key])
            answers, truth = (item_value(item, key) > 0.5 for key in (self.pred_key, self.label_key))
            if answers.shape[1:] != truth.shape:
                raise ValueError(
                    f"{path}: prediction and truth must have the same objects and size, not {tuple(answers.shape[1:])} "
                    f"and {tuple(truth.shape)}."
                )
            facts = {"source": source, "image": path}
            for number, answer in enumerate(answers, start=1):
                scores = compute_iou(answer.unsqueeze(1), truth.unsqueeze(1), ignore_empty=False).flatten().tolist()
                for index, (mask, score) in enumerate(zip(truth, scores, strict=True), start=1):
                    row = {"object": index, "pixels": int(mask.sum()), "answer": number, "iou": score}
                    self._rows.append(facts | row)
            name = f"{source}_{unique_stem(path, self._names)}.jpg"
            photograph, found = upright(item_value(item, self.image_key)), upright(truth.any(0))
            pictures = [draw_overlay(photograph, upright(answer.any(0)), found) for answer in answers[[0, -1]]]
            write_picture(self.folder / self.mode / name, np.concatenate(pictures, 1))

    def _finish(self, engine: Engine) -> None:
        gathered = [row for part in gather_values(self._rows) for row in part]
        # Several processes measure the same images if there are fewer images than processes.
        rows = list({(row["image"], row["object"], row["answer"]): row for row in gathered}.values())
        places = {path: place for place, path in enumerate(self._names.values())}
        rows.sort(key=lambda row: places[row["image"]])
        names = list(dict.fromkeys(row["source"] for row in rows))
        sources = {name: self._summarise([row for row in rows if row["source"] == name]) for name in names}
        engine.state.metrics.update(
            {f"iou_{name}_{n}": s["mean"] for name, part in sources.items() for n, s in part["answers"].items()}
        )
        if idist.get_rank() == 0:
            write_table(self.table_path, COLUMNS, rows)
            facts = {**provenance(), "mode": self.mode, "seed": self.seed, "bootstrap": self.bootstrap}
            facts["sources"] = sources
            with atomic_path(self.summary_path) as temporary:
                temporary.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            with atomic_path(self.curve_path) as temporary:
                _draw_curve(sources, temporary)

    def _summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        images = list(dict.fromkeys(row["image"] for row in rows))
        draws = np.random.default_rng(self.seed).integers(0, len(images), (self.bootstrap, len(images)))
        answers = {}
        for number in sorted({row["answer"] for row in rows}):
            scores = [[r["iou"] for r in rows if r["answer"] == number and r["image"] == name] for name in images]
            sums, counts = np.array([sum(s) for s in scores]), np.array([len(s) for s in scores])
            low, high = np.percentile(sums[draws].sum(1) / counts[draws].sum(1), [2.5, 97.5])
            answers[str(number)] = {"mean": sums.sum() / counts.sum(), "low": float(low), "high": float(high)}
        return {"images": len(images), "objects": int(counts.sum()), "answers": answers}


def _draw_curve(sources: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, part in sources.items():
        numbers = [int(number) for number in part["answers"]]
        mean, low, high = ([answer[key] for answer in part["answers"].values()] for key in ("mean", "low", "high"))
        axes.plot(numbers, mean, marker="o", label=f"{name} ({part['objects']})")
        axes.fill_between(numbers, low, high, alpha=0.2)
    axes.set(xlabel="answer", ylabel="mean IoU", ylim=(0, 1), xticks=numbers)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
