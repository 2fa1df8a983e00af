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


"""
The second human observer of CHASE_DB1 as a row of the results: ``python -m tests.benchmarks.observer FOLDER``.

Scores the second observer's masks of the test photographs against the first's, as `EvaluationReport` scores a network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from monai.transforms import LoadImage

from monai_ext.data import PhotographReader, SegmentationData
from monai_ext.handlers.report import SCORES, label_scores, score_summary
from monai_ext.transforms import FieldOfView


def main(root: Path) -> int:
    data = SegmentationData(root=str(root))
    photograph = LoadImage(reader=PhotographReader(), ensure_channel_first=True)
    mask = LoadImage(reader=PhotographReader(channels=1), ensure_channel_first=True)
    rows = []
    for record in data.test:
        name = Path(record["label"]).name.replace("_1stHO", "_2ndHO")
        first, second = mask(record["label"])[0] > 0, mask(root / "second_observer" / name)[0] > 0
        view = FieldOfView()(photograph(record["image"]))[0] > 0.5
        rows.append(label_scores(second.as_tensor(), first.as_tensor(), fov=view.as_tensor()))
    sys.stdout.write(f"second observer against the first, {len(rows)} photographs\n")
    for score in SCORES:
        values = np.array([row[score] for row in rows])
        if not np.isnan(values).any():
            summary = score_summary(values)
            interval = f"{summary['low']:.3f} .. {summary['high']:.3f}"
            sys.stdout.write(f"{score:14}{summary['mean']:8.3f}   {interval}\n")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(Path(sys.argv[1])))
