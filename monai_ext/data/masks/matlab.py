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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ext.data.masks.values import Value, ValueMask


class MatlabMask(ValueMask):
    """
    Masks as a matrix in MATLAB files (``.mat``, up to version 7), whose values have a fixed meaning.

    Args:
        variable: name of the matrix, rows by columns of the picture.
        values: for each label the values that belong to it.
        others: values that occur and belong to no label.

    Raises:
        ValueError: a file is damaged or of version 7.3, has no such matrix, or the matrix holds other values.

    Example:
        >>> import tempfile
        >>> from scipy.io import savemat
        >>> file = Path(tempfile.mkdtemp()) / "001.mat"
        >>> savemat(file, {"mask": np.array([[0, 1, 2]], np.uint8)})
        >>> masks = MatlabMask(variable="mask", values={"optic disc": [1, 2], "optic cup": [2]})
        >>> masks.read([file], ["optic disc", "optic cup"])[0][:, :, 0].astype(int).tolist()
        [[0, 1, 1], [0, 0, 1]]
    """

    def __init__(self, *, variable: str, values: Mapping[str, Sequence[Value]], others: Sequence[Value] = (0,)) -> None:
        super().__init__(values=values, others=others)
        self.variable = variable

    def stored(self, file: Path) -> tuple[np.ndarray, dict[str, Any]]:
        from scipy.io import loadmat

        try:
            content = loadmat(file)
        except Exception as error:  # scipy raises every kind of exception on broken files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{file} is no MATLAB file up to version 7 or is damaged ({reason}); copy it again from its source."
            ) from error
        matrix = np.asarray(content.get(self.variable))
        if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or (matrix != np.round(matrix)).any():
            held = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
            raise ValueError(
                f"{file} must hold a matrix `{self.variable}` of whole numbers, but holds {held}; "
                "copy it again from its source."
            )
        return np.moveaxis(matrix, 0, 1).astype(np.int32), {}
