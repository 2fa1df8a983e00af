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

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

_SIDES = {"left": "Left", "right": "Right"}
_ABNORMAL = {
    "tumor": "Tumor",
    "tumour": "Tumor",
    "cancer": "Tumor",
    "neoplasm": "Neoplasm",
    "lesion": "Lesion",
    "cyst": "Cyst",
    "mass": "Mass",
}
# Other names of what DICOM's list of anatomical structures (CID 7192) has.
_SAME_AS = {
    "gall bladder": "gallbladder",
    "urinary bladder": "bladder",
    "oesophagus": "esophagus",
    "small bowel": "small intestine",
    "postcava": "inferior vena cava",
    "ivc": "inferior vena cava",
}


class LabelCodes(NamedTuple):
    """What a label is in SNOMED CT: category, type, and where it says so the side and the organ it lies in."""

    category: Code
    type: Code
    side: Code | None = None
    organ: Code | None = None


def label_codes(name: str) -> LabelCodes:
    """
    Return the SNOMED CT codes of a label, from DICOM's list of anatomical structures (CID 7192).

    ``left kidney`` and ``kidney_left`` are the kidney with its side, ``liver tumor`` is a tumour in the liver. What
    is not in the list is a tissue; its name then stands in the label only.

    Args:
        name: the label.

    Example:
        >>> spleen, tumor, other = map(label_codes, ("spleen", "liver tumor", "my own region"))
        >>> spleen.type.value, (tumor.type.meaning, tumor.organ.meaning), other.type.meaning
        ('78961009', ('Tumor', 'Liver'), 'Tissue')
    """
    from pydicom.sr.codedict import codes

    words = [word for word in re.split(r"[\s_-]+", name.lower()) if word]
    side = next((getattr(codes.SCT, _SIDES[word]) for word in words if word in _SIDES), None)
    words = [word for word in words if word not in _SIDES]
    abnormal = next((_ABNORMAL[word] for word in words if word in _ABNORMAL), None)
    structure = _structure([word for word in words if word not in _ABNORMAL])
    if abnormal is not None:
        kind = getattr(codes.SCT, abnormal)
        return LabelCodes(codes.SCT.MorphologicallyAbnormalStructure, kind, side, structure)
    if structure is None:
        return LabelCodes(codes.SCT.Tissue, codes.SCT.Tissue, side)
    return LabelCodes(codes.SCT.AnatomicalStructure, structure, side)


def _structure(words: list[str]) -> Code | None:
    from pydicom.sr.codedict import codes

    name = " ".join(words)
    keyword = "".join(word.capitalize() for word in _SAME_AS.get(name, name).split())
    return getattr(codes.cid7192, keyword, None) if keyword else None
