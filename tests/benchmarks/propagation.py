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
What a slice should be shown of its neighbour: ``python -m tests.benchmarks.propagation DATA``.

One click, or one box, on the middle slice of an organ goes through its volume in four ways: each slice prompted with
its neighbour's mask alone, with the mask and a click in its middle, with the mask and its box, and with all three,
which is what `MaskPropagationInferer` does. Dice over the whole volume; the base is `micro`.
DATA holds ``msd_spleen``, of whose slices the file has each four times and every fourth is taken, and which the base
was trained on; and ``totalsegmentator_ct``, whose organs another model found: there the figures are agreement with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, Orientationd

from monai_ext.data import VolumeReader
from monai_ext.inferers import EmbeddingCache, MaskPropagationInferer
from monai_ext.networks import SAM2Segmenter
from monai_ext.transforms import CorrectionClicks, CTWindowsd, SimulatePrompts

WINDOW = 224
ORGANS = {"spleen": 1, "aorta": 52, "colon": 20}  # as TotalSegmentator numbers them
PARTS: dict[str, Any] = {
    "mask": slice(0, 0),
    "mask and middle": slice(2, 3),
    "mask and box": slice(0, 2),
    "mask, box and middle": slice(0, 3),
}


class Shown(MaskPropagationInferer):
    """Shows only a part of the box and the middle."""

    def __init__(self, *, part: slice) -> None:
        super().__init__(window=WINDOW)
        self.part = part

    def _prompt_of(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points, kinds = super()._prompt_of(logits)
        return points[self.part], kinds[self.part]

    def _decode(self, walk: Any, z: int, points: torch.Tensor, kinds: torch.Tensor, shown: Any) -> Any:
        if not len(points):  # nobody has clicked: -1, in the middle of the mask, for the window's sake
            points, kinds = self._middle_of(shown)[0], torch.tensor([-1])
        return super()._decode(walk, z, points, kinds, shown)


def read(image: Path, label: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The volume as the network wants it and the values of its mask."""
    load = Compose(
        [
            LoadImaged(["image", "label"], reader=VolumeReader(), ensure_channel_first=True),
            Orientationd(["image", "label"], "LPS", labels=None),
            CTWindowsd(keys="image", windows=["abdomen"] * 3),
            NormalizeIntensityd("image", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], channel_wise=True),
        ]
    )
    item = load({"image": image, "label": label})
    return item["image"].as_tensor()[None], item["label"].as_tensor()[0]


def cases(root: Path) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    folder = root / "msd_spleen"
    image, label = read(*(folder / name / "spleen_8.nii.gz" for name in ("imagesTr", "labelsTr")))
    found = [("spleen, 8 slices at 30 mm", image[..., ::4], label[..., ::4] > 0)]
    folder = root / "totalsegmentator_ct"
    image, label = read(folder / "example_ct_dicom", folder / "example_seg_dicom.nii.gz")
    return found + [(f"{name}, 20 slices at 2 mm", image, label == value) for name, value in ORGANS.items()]


def prompts(truth: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """A click in the middle, or the box, of the slice in the middle of the organ."""
    slices = truth.any(0).any(0).nonzero().flatten()
    z = int(slices[len(slices) // 2])
    mask = truth[..., z].T[None, None].float()
    found = {}
    for name, make in (("click", CorrectionClicks(where="middle")), ("box", SimulatePrompts(mode="box"))):
        given = make(mask)
        places = torch.nn.functional.pad(given["points"][0, 0], (0, 1), value=float(z))
        found[name] = {"points": places, "point_labels": given["point_labels"][0, 0]}
    return found


def main(root: Path) -> int:
    network = SAM2Segmenter(size="micro", weights="micro").eval()
    sys.stdout.write(f"| organ | first prompt | {' | '.join(PARTS)} |\n|---|---|{'---|' * len(PARTS)}\n")
    for name, image, truth in cases(root):
        cache = EmbeddingCache()
        for first, given in prompts(truth).items():
            scores = []
            for part in PARTS.values():
                mask = Shown(part=part).propagate(image, network, **given, cache=cache).mask[0] > 0
                scores.append(f"{float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())):.3f}")
            sys.stdout.write(f"| {name} | {first} | {' | '.join(scores)} |\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(Path(sys.argv[1])))
