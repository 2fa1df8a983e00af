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
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from monai_ext.data.atomic import atomic_path
from monai_ext.text.encoder import LabelNameEncoder


def add_label_embeddings(path: str | os.PathLike[str], labels: Sequence[str], encoder: LabelNameEncoder) -> list[str]:
    """
    Write the embeddings of label names into a file, beside those that it holds.

    Args:
        path: a ``.safetensors`` file; made if missing. It holds a vector for each label and the encoder's name.
        labels: names; those that the file has are left as they are.
        encoder: makes the vectors; must be the one that the file was made with.

    Returns:
        the names that were new.

    Raises:
        ValueError: a name is empty, or the file was made with another encoder; nothing was written.

    Example:
        >>> import tempfile
        >>> class Length(LabelNameEncoder):
        ...     def encode(self, texts):
        ...         return torch.tensor([[float(len(text))] for text in texts])
        >>> file = os.path.join(tempfile.mkdtemp(), "labels.safetensors")
        >>> add_label_embeddings(file, ["liver", "spleen"], Length(name="length"))
        ['liver', 'spleen']
        >>> read_label_embeddings(file, ["spleen"])
        (tensor([[6.]]), 'length')
    """
    path = Path(path)
    if isinstance(labels, str) or not labels or any(not label.strip() for label in labels):
        raise ValueError(f"labels must be names, at least one, not {labels!r}.")
    known, made_by = _read(path) if path.is_file() else ({}, encoder.name)
    if made_by != encoder.name:
        raise ValueError(
            f"{path} was made with the encoder '{made_by}', not '{encoder.name}': use that, or a new file."
        )
    new = [label for label in dict.fromkeys(labels) if label not in known]
    if new:
        rows = encoder.encode(new)
        width = next((len(row) for row in known.values()), rows.shape[-1])
        if rows.shape != (len(new), width) or not bool((rows.norm(dim=-1) > 0).all() & torch.isfinite(rows).all()):
            raise ValueError(
                f"The encoder '{encoder.name}' must give {len(new)} finite vectors of {width} numbers, none of them "
                f"zero; nothing was written."
            )
        known |= {label: row.clone() for label, row in zip(new, rows, strict=True)}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(known, metadata={"encoder": encoder.name}))
    return new


def read_label_embeddings(path: str | os.PathLike[str], labels: Sequence[str]) -> tuple[Tensor, str]:
    """
    Read the embeddings of labels.

    Args:
        path: a file that :func:`add_label_embeddings` wrote.
        labels: names.

    Returns:
        ``(labels, D)`` and the encoder's name.

    Raises:
        FileNotFoundError: there is no such file; says how to make it.
        ValueError: the file is damaged, or lacks a label; says how to add it.
    """
    path = Path(path)
    if not path.is_file():
        words = " ".join(map(repr, labels))
        raise FileNotFoundError(f"{path} does not exist: make it by `python -m monai_ext labels {path} {words}`.")
    known, encoder = _read(path)
    if missing := [label for label in labels if label not in known]:
        words = " ".join(map(repr, missing))
        raise ValueError(
            f"{path} has no embedding of {', '.join(missing)} (it has {', '.join(sorted(known))}): "
            f"add it by `python -m monai_ext labels {path} {words}`, with the encoder of the others, '{encoder}'."
        )
    return torch.stack([known[label] for label in labels]), encoder


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, (file.metadata() or {})["encoder"]  # noqa: SIM118
    except PermissionError:
        raise
    except Exception as error:  # SafetensorError is an Exception directly
        raise ValueError(f"{path} is damaged or no file of label embeddings: make it again.") from error
