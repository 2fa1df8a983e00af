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

import os
from pathlib import Path
from typing import Any

from monai_ext.data.layouts.vessels import HRF

_LOOKS_FOR = {
    "hrf": "images/01_h.jpg with mask/01_h.tif",
    "idrid_disc": "images/IDRiD_01.jpg with masks/IDRiD_01_OD.tif",
    "dsb2018_stained": "a folder per image with images/*.png and masks/*.png, one mask per nucleus",
    "msd_spleen": "imagesTr/*.nii.gz with labelsTr/ of the same names",
    "totalsegmentator_ct": "example_ct_sm.nii.gz with example_seg.nii.gz",
}


class PretrainingData:
    """
    The openly licensed images that SAM 2 micro is trained on, as MONAI datalists, one for each source.

    A record holds ``image``, ``label`` and ``source``.

    Args:
        root: folder with a subfolder for each source, named as the attributes below.

    Attributes:
        hrf: the 15 photographs with their vessels (Budai et al., 2013, CC BY 4.0); all train.
        idrid_disc, idrid_disc_validation: photographs 01-08 and 09-12 with their discs (Porwal et al., 2018, CC BY
            4.0).
        dsb2018_stained, dsb2018_stained_validation: stained tissue, the first 60 in sorted order and the rest, with a
            list of mask files, one per nucleus (Caicedo et al., 2019, BBBC038, CC0).
        msd_spleen: one CT volume with its spleen (Antonelli et al., 2022, CC BY-SA 4.0).
        totalsegmentator_ct: one CT volume with the organs that TotalSegmentator found in it (Wasserthal et al., 2023,
            Apache-2.0).

    Raises:
        FileNotFoundError: a source is missing or empty; says which, and what was looked for.

    Example:
        >>> PretrainingData(root="nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: nowhere/hrf must hold images/01_h.jpg with mask/01_h.tif, but nothing of it was found.
    """

    def __init__(self, *, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.hrf = self._checked("hrf", [r for split in HRF.find(self.root / "hrf").values() for r in split])
        discs = self._checked("idrid_disc", self._discs())
        self.idrid_disc, self.idrid_disc_validation = discs[:8], discs[8:]
        nuclei = self._checked("dsb2018_stained", self._nuclei())
        self.dsb2018_stained, self.dsb2018_stained_validation = nuclei[:60], nuclei[60:]
        self.msd_spleen = self._checked("msd_spleen", self._spleens())
        self.totalsegmentator_ct = self._checked("totalsegmentator_ct", self._torso())

    def _discs(self) -> list[dict[str, Any]]:
        folder = self.root / "idrid_disc"
        pairs = [(path, folder / "masks" / f"{path.stem}_OD.tif") for path in sorted(folder.glob("images/*.jpg"))]
        return [{"image": str(image), "label": str(label)} for image, label in pairs]

    def _nuclei(self) -> list[dict[str, Any]]:
        images = sorted((self.root / "dsb2018_stained").glob("*/images/*.png"))
        return [
            {"image": str(image), "label": [str(path) for path in sorted(image.parents[1].glob("masks/*.png"))]}
            for image in images
        ]

    def _spleens(self) -> list[dict[str, Any]]:
        folder = self.root / "msd_spleen"
        return [
            {"image": str(path), "label": str(folder / "labelsTr" / path.name)}
            for path in sorted(folder.glob("imagesTr/*.nii.gz"))
        ]

    def _torso(self) -> list[dict[str, Any]]:
        folder = self.root / "totalsegmentator_ct"
        image, label = folder / "example_ct_sm.nii.gz", folder / "example_seg.nii.gz"
        return [{"image": str(image), "label": str(label)}] if image.is_file() else []

    def _checked(self, source: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        records = [{"image": record["image"], "label": record["label"], "source": source} for record in records]
        lost = [file for record in records for file in _files(record) if not Path(file).is_file()]
        if not records or lost:
            found = f"{lost[0]} is missing" if lost else "nothing of it was found"
            raise FileNotFoundError(f"{self.root / source} must hold {_LOOKS_FOR[source]}, but {found}.")
        return records


def _files(record: dict[str, Any]) -> list[str]:
    labels = record.get("label", [])
    return [record["image"], *([labels] if isinstance(labels, str) else labels)]
