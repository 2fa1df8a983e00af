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
The environment that MONAI Label needs, made on first use; also a script that needs nothing but Python itself.

MONAI Label 0.8.5 needs numpy below 2 and pydicom below 3 (without the bound pip takes pydicom 3, with which
``monailabel.app`` cannot be imported) and imports torchvision, which fits only the torch that pip pairs it with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".venv-label"
READY = ".ready"
FIRST = ("torch", "torchvision", "numpy<2", "setuptools", "wheel")
BOUNDS = ("numpy<2", "pydicom>=2.4.5,<3")


def make_environment(folder: str | os.PathLike[str] = FOLDER) -> Path:
    """
    Make the environment of MONAI Label unless it is there already: about 8 GB, mostly torch for GPUs.

    Args:
        folder: where it is made.

    Returns:
        Its Python.

    Raises:
        OSError: a package could not be installed; says which command failed.
        FileNotFoundError: this is no checkout of the project.
    """
    folder = Path(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (folder / READY).is_file() and python.is_file():
        return python
    if not (CHECKOUT / "setup.cfg").is_file():
        raise FileNotFoundError(f"{CHECKOUT} is no checkout of monai_ext: clone the repository and start there.")
    print(f"Setting up {folder} (once, about 8 GB and ten minutes) ...", flush=True)  # noqa: T201
    if not python.is_file():
        venv.create(folder, with_pip=True)
    _install(python, *FIRST)
    # sam2 is built against the torch that is there, without its CUDA extension.
    _install(python, "--no-build-isolation", "--no-deps", "sam2>=1.1", SAM2_BUILD_CUDA="0")
    installed = subprocess.run(
        [python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True, check=True
    )
    bounds = folder / "constraints.txt"
    bounds.write_text("\n".join([*BOUNDS, f"torch=={installed.stdout.strip().partition('+')[0]}"]) + "\n")
    _install(python, "-c", str(bounds), "-e", f"{CHECKOUT}[label]")
    (folder / READY).touch()
    return python


def _install(python: Path, *words: str, **environment: str) -> None:
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *words]
    if subprocess.run(command, env={**os.environ, **environment}).returncode:
        raise OSError(f"`{' '.join(command)}` failed, see above: mend it and start again, what is done is kept.")


if __name__ == "__main__":
    make_environment(*sys.argv[1:2])
