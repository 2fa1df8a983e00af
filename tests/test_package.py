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


"""What importing the package does, and what its names may not be."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import monai

ROOT = Path(__file__).parents[1]
IMPORT = """
import json, pkgutil, sys
import monai, torch, numpy, ignite
before, random = set(sys.modules), (torch.get_rng_state(), numpy.random.get_state()[1].tolist())
import monai_ext
alone = set(sys.modules)
for module in pkgutil.walk_packages(monai_ext.__path__, "monai_ext."):
    # What ties it to MONAI Label runs in an environment of its own.
    if not module.name.endswith("__main__") and not module.name.startswith("monai_ext.label.app."):
        __import__(module.name)
assert torch.equal(random[0], torch.get_rng_state()) and random[1] == numpy.random.get_state()[1].tolist()
print(json.dumps([sorted(alone - before), sorted(set(sys.modules) - before)]))
"""
# Libraries that are slow to import, change global state, or are broken on some machines.
HEAVY = {"hydra", "itk", "matplotlib", "mlflow", "sam2", "skimage", "tensorboard", "tifffile", "torchvision"}
HEAVY |= {"transformers", "peft", "pandas"}


def test_import_loads_nothing_heavy_and_draws_no_random_number() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    alone, all_modules = json.loads(done.stdout.splitlines()[-1])
    assert "monai_ext.networks.segmenter" in alone and "monai_ext.handlers.resume" in all_modules
    assert not HEAVY & {name.partition(".")[0] for name in all_modules}


def names(path: Path) -> set[str]:
    """Classes and functions at the top of a file, private ones too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_no_name_is_one_of_monais() -> None:
    """MONAI finds components by short name in all modules that begin with `monai`: a second one breaks configs."""
    ours = {name: path for path in (ROOT / "monai_ext").rglob("*.py") for name in names(path)}
    assert {"SAM2Segmenter", "LoRA", "ResumeHandler"} <= set(ours)
    taken = []
    for path in Path(monai.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # Also second names, as in `FlipD = FlipDict = Flipd`.
        theirs = set(re.findall(r"^(?:class |def |async def )(\w+)|^(\w+) = \w", text, re.M))
        taken += [f"{name} in {ours[name]} and {path}" for pair in theirs for name in pair if name in ours]
    assert not taken


def test_the_wheel_brings_the_embedded_base_and_stays_small(tmp_path: Path) -> None:
    """Built from a copy, so that nothing is left in the project."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "monai_ext", source / "monai_ext", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 20_000_000
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert {"monai_ext/py.typed", "monai_ext/networks/sam2_micro.safetensors"} <= inside
    assert not [name for name in inside if name.startswith(("tests", "bundles", "docs"))]
