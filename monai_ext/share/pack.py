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
import shutil
import zipfile
from pathlib import Path

from monai_ext.data.atomic import atomic_path
from monai_ext.share.checks import check_bundle
from monai_ext.share.contents import CARD, METADATA, read_mapping, shared_files
from monai_ext.share.files_check import file_hash
from monai_ext.share.model_card import model_card

# The earliest that a zip file can tell.
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644
_UNIX = 3


def pack_bundle(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    evaluation: str | os.PathLike[str] | None = None,
) -> Path:
    """
    Check a bundle and write it as ``NAME_vVERSION.zip`` with its model card, and the file's sha256 beside it.

    The same bundle gives the same bytes: names in order, fixed times and rights, no compression (weights hardly
    shrink, and versions of zlib differ). What runs leave behind, downloaded bases and hidden files stay out.

    Args:
        bundle: its folder; not changed.
        output: the folder to write to; missing folders are made.
        evaluation: a ``summary_<mode>.json`` whose scores the model card shows; None takes the metadata's.

    Returns:
        the zip file.

    Raises:
        ValueError: the bundle is not in order (``python -m monai_ext check`` says why), or the evaluation cannot be
            read; nothing was written.
        OSError: the file cannot be written; nothing is left of it.
    """
    bundle = Path(bundle).resolve()
    version = require_sound(bundle)
    card = model_card(bundle, evaluation=evaluation)
    path = Path(output) / f"{bundle.name}_v{version}.zip"
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted([*shared_files(bundle), CARD]):
            entry = zipfile.ZipInfo(f"{bundle.name}/{name}", _TIME)
            entry.create_system, entry.external_attr = _UNIX, _MODE << 16
            if name == CARD:
                archive.writestr(entry, card)
            else:
                entry.file_size = (bundle / name).stat().st_size
                with (bundle / name).open("rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    with atomic_path(path.with_name(f"{path.name}.sha256")) as temporary:
        temporary.write_text(f"{file_hash(path)}  {path.name}\n", encoding="utf-8")
    return path


def require_sound(bundle: Path) -> str:
    """
    Refuse a bundle that is not in order.

    Returns:
        its version.

    Raises:
        ValueError: says how many problems there are, and the first.
    """
    problems = check_bundle(bundle)
    if problems:
        first = problems[0]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ValueError(
            f"{bundle} is not in order ({first.where} {first.what}{more}): `python -m monai_ext check {bundle}` lists "
            "what to do; nothing was written."
        )
    return str(read_mapping(bundle, METADATA)[0]["version"])
