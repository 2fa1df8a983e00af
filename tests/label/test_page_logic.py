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

"""The page's logic without a browser, by Node's own test runner, and its PNG files against Pillow's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PNG = (ROOT / "monai_ext/label/page/png.mjs").as_uri()
READ = f"""
import {{ readFileSync, writeFileSync }} from "node:fs";
import {{ decodePng, encodePng }} from "{PNG}";
const answers = [];
for (const path of process.argv.slice(1)) {{
  try {{
    const {{ width, height, pixels }} = await decodePng(new Uint8Array(readFileSync(path)));
    writeFileSync(path + ".again.png", await encodePng(Uint8Array.from(pixels), width, height));
    answers.push({{ width, height, pixels: [...pixels] }});
  }} catch (error) {{
    answers.push(error.message);
  }}
}}
console.log(JSON.stringify(answers));
"""


def node(*words: str) -> str:
    if shutil.which("node") is None:
        pytest.skip("the page's logic is tested where Node.js (18 or newer) is installed")
    done = subprocess.run(["node", *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_logic() -> None:
    assert "# pass 7" in node("--test", "tests/label/page/")


def test_masks_are_read_and_written_as_pillow_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(37), np.arange(53)) // 5  # rows that all of PNG's filters are good for
    masks = {
        "noise": Image.fromarray(rng.integers(0, 256, (37, 53), dtype=np.uint8)),
        "smooth": Image.fromarray(smooth.astype(np.uint8)),
        "one": Image.fromarray(np.array([[7]], np.uint8)),
        "bits": Image.fromarray(rng.integers(0, 2, (9, 13)).astype(bool)),
        "large": Image.fromarray((smooth * 999).astype(np.uint16)),
        "alpha": Image.fromarray(np.stack([smooth, smooth + 9], -1).astype(np.uint8), "LA"),
        "grey": Image.fromarray(np.repeat(smooth[..., None], 3, -1).astype(np.uint8)),
        "palette": Image.fromarray(rng.integers(0, 3, (9, 13), dtype=np.uint8), "P"),
    }
    masks["palette"].putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    expected = {name: np.asarray(mask).astype(int) for name, mask in masks.items()}
    for name in ("alpha", "grey"):
        expected[name] = expected[name][..., 0]
    for name, mask in masks.items():
        mask.save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in masks]
    for path, mask, answer in zip(
        paths, expected.values(), json.loads(node("--input-type=module", "-e", READ, *paths)), strict=True
    ):
        assert (answer["height"], answer["width"]) == mask.shape
        np.testing.assert_array_equal(np.reshape(answer["pixels"], mask.shape), mask)
        again = Image.open(f"{path}.again.png")
        assert again.mode == "L"
        np.testing.assert_array_equal(np.asarray(again), mask.astype(np.uint8))


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    Image.fromarray(colours).save(tmp_path / "picture.jpg")
    whole = (tmp_path / "colours.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "damaged.png").write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    (tmp_path / "empty.png").write_bytes(b"")
    names = ("colours.png", "picture.jpg", "cut.png", "damaged.png", "empty.png")
    answers = json.loads(node("--input-type=module", "-e", READ, *(str(tmp_path / name) for name in names)))
    expected = ("a colour picture", "no PNG", "cut off", "damaged", "no PNG")
    assert all(part in answer for part, answer in zip(expected, answers, strict=True)), answers
