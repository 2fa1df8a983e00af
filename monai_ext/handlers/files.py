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
import pickle
from pathlib import Path
from typing import Any

import torch

from monai_ext.data.atomic import atomic_path


def save_tensors(value: Any, path: str | os.PathLike[str]) -> None:
    """
    Save tensors and plain values with ``torch.save``, so that nobody ever sees the file half-written.

    Args:
        value: tensors, numbers, strings, and lists and dicts of them.
        path: the file to write; missing folders are made.

    Raises:
        OSError: the file cannot be written (folder, disk full); the message names ``path``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "numbers.pt"
        >>> save_tensors({"one": torch.ones(1)}, path)
        >>> load_tensors(path)
        {'one': tensor([1.])}
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(value, temporary)
        except RuntimeError as error:  # torch's own writer says "disk full" this way
            raise OSError(str(error).splitlines()[0]) from error


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """
    Load what :func:`save_tensors` saved, on the CPU and without running code from the file.

    Raises:
        ValueError: the file is damaged or not of this kind; the message names ``path``.
    """
    with Path(path).open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged or no file of tensors") from error


def require_writable(path: str | os.PathLike[str]) -> None:
    """
    Say now, not after an hour of training, that ``path`` cannot be written; nothing is made or changed.

    Raises:
        OSError: the nearest folder that exists is not one that we may write to, or ``path`` itself is a folder.
    """
    path = Path(path).absolute()
    folder = next(parent for parent in path.parents if parent.exists())
    if path.is_dir():
        raise OSError(f"{path} must be a file, not a folder: choose another name.")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"{path} cannot be written: {folder} is not a folder that you may write to. Choose another one.")


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that :func:`atomic_path` left beside ``path`` when its process was killed."""
    path = Path(path)
    for leftover in path.parent.glob(f".{path.stem}-*{path.suffix}"):
        leftover.unlink(missing_ok=True)
