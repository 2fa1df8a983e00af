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
import tempfile
from pathlib import Path

from monai_ext.share.contents import METADATA, MODEL, read_mapping, shared_files
from monai_ext.share.files_check import large_files
from monai_ext.share.metadata_check import release
from monai_ext.share.pack import require_sound

RELEASED = "models/model_info.json"  # names and versions of all released bundles


def copy_to_zoo(bundle: str | os.PathLike[str], checkout: str | os.PathLike[str]) -> Path:
    """
    Check a bundle and copy it into a checkout of Project-MONAI/model-zoo, as ``models/NAME``.

    Files that ``large_files.*`` lists stay behind, as the zoo wants it. Nothing else of the checkout is changed.

    Args:
        bundle: its folder; not changed.
        checkout: the folder of the clone.

    Returns:
        the copy's folder.

    Raises:
        ValueError: the bundle is not in order, this is no checkout, or it has the same or a newer version; nothing
            was written.
        OSError: the copy could not be written; the checkout is as it was.
    """
    bundle, checkout = Path(bundle).resolve(), Path(checkout).resolve()
    if not (checkout / "ci").is_dir() or not (checkout / RELEASED).is_file():
        raise ValueError(f"{checkout} is no checkout of Project-MONAI/model-zoo: it has no ci/ or no {RELEASED}.")
    version = require_sound(bundle)
    target = checkout / "models" / bundle.name
    for there in _versions(checkout, bundle.name):
        if release(there) >= release(version):
            raise ValueError(
                f"{checkout} has {bundle.name} {there} already, not older than {version}: raise `version` in "
                f"{METADATA} and say in `changelog` what changed; nothing was written."
            )
    try:
        _replace(bundle, target)
    except OSError as error:
        raise OSError(
            f"{target} could not be written ({error.strerror}): free some space, or look at rights."
        ) from error
    return target


def zoo_steps(bundle: str | os.PathLike[str]) -> list[str]:
    """What is left to do by hand in the checkout before a pull request, in sentences."""
    bundle = Path(bundle).resolve()
    config = "".join(path.read_text(encoding="utf-8") for path in sorted((bundle / "configs").glob("*.json")))
    custom = "in ci/bundle_custom_data.py add it to"
    steps = []
    if not (bundle / MODEL).is_file() and MODEL not in large_files(bundle)[0]:
        steps.append(f"It brings no model: {custom} exclude_verify_preferred_files_list.")
    if "monai_ext." in config:
        steps.append(f"The network cannot be scripted: {custom} exclude_verify_torchscript_list.")
        steps.append(
            "It needs monai_ext, which the package index does not have: write ci/install_scripts/"
            f"install_{bundle.name}_dependency.sh and {custom} install_dependency_dict."
        )
    return [
        *steps,
        f"Put the schema in place: python ci/prepare_schema.py -l {bundle.name} -p models",
        f"Run the zoo's own check: python ci/verify_bundle.py -b {bundle.name} -p models -m min, then -m full",
        "Commit models/ on a branch of your fork and open a pull request.",
    ]


def _versions(checkout: Path, name: str) -> list[str]:
    """Versions of this bundle that the checkout holds or that the zoo has released."""
    names, problems = read_mapping(checkout, RELEASED)
    if problems:
        raise ValueError(f"{checkout / RELEASED} {problems[0].what}: restore it with git; nothing was written.")
    there = read_mapping(checkout / "models" / name, METADATA)[0].get("version")
    found = [key.removeprefix(f"{name}_v") for key in names if key.startswith(f"{name}_v")]
    return [*found, *([there] if there else [])]


def _replace(bundle: Path, target: Path) -> None:
    """Copy beside the target and rename, so that the checkout never holds half a bundle."""
    large = large_files(bundle)[0]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        new, old = Path(folder, "new"), Path(folder, "old")
        for name in shared_files(bundle):
            if name not in large:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle / name, new / name)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
