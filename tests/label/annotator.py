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

"""A person at the page: what they see and do, through a browser."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested where playwright is installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage")


@contextmanager
def browsing(*flags: str) -> Iterator[Any]:
    """A browser without windows."""
    if CHROMIUM is None:
        pytest.skip("the page is tested where Chromium is installed: `make label-system` does it")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        yield browser
        browser.close()


class Annotator:
    """One person with a browser of their own."""

    def __init__(self, browser: Any, url: str) -> None:
        # Playwright waits by eval(), which the page forbids.
        self.context = browser.new_context(viewport={"width": 1200, "height": 700}, bypass_csp=True)
        self.url = url
        self.page = None
        self.errors: list[str] = []
        self.reload()

    def reload(self, *, crash: bool = False) -> None:
        """Open the page anew; with ``crash`` nothing is asked before."""
        if self.page is not None:
            self.page.close(run_before_unload=not crash)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(self.url)
        self.page.wait_for_function("document.querySelector('#pictures button')")

    def open(self, image: str) -> None:
        self.page.click(f"#pictures button[data-id='{image}']")
        self.page.wait_for_function("id => document.title.includes(id)", arg=image)
        with Image.open(io.BytesIO(self._fetch(f"../datastore/image?image={image}"))) as picture:
            self.width, self.height = picture.size

    def tool(self, name: str) -> None:
        self.page.check(f"input[name=tool][value={name}]")

    def label(self, name: str) -> None:
        self.page.get_by_label(name, exact=False).first.check()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where the middle of a pixel is on the screen, while the whole picture is shown."""
        box = self.page.locator("#canvas").bounding_box()
        scale = min(box["width"] / self.width, box["height"] / self.height)
        left = box["x"] + (box["width"] - self.width * scale) / 2
        top = box["y"] + (box["height"] - self.height * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def click(self, x: int, y: int, button: str = "left") -> None:
        self.page.mouse.click(*self.at(x, y), button=button)
        self.page.wait_for_function("!document.querySelector('#status').textContent.includes('at work')")

    def drag(self, *points: tuple[int, int]) -> None:
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point))
        self.page.mouse.up()
        self.page.wait_for_function("!document.querySelector('#status').textContent.includes('at work')")

    def colour(self, x: int, y: int) -> tuple[int, ...]:
        """What is seen at a pixel of the picture."""
        self.page.mouse.move(2, 2)  # without the cursor
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        left, top = self.at(x, y)
        clip = {"x": round(left) - 1, "y": round(top) - 1, "width": 3, "height": 3}
        shot = Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")
        return tuple(int(value) for value in np.asarray(shot)[1, 1])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def save(self) -> None:
        self.press("Control+s")
        self.wait_status("is saved")

    def wait_status(self, text: str) -> None:
        self.page.wait_for_function("t => document.querySelector('#status').textContent.includes(t)", arg=text)

    def wait_draft(self, image: str) -> None:
        self.page.wait_for_selector(f"#pictures button[data-id='{image}'] .unsaved")

    @property
    def error(self) -> str:
        self.page.wait_for_selector("#error:not([hidden])")
        return self.page.text_content("#error-text")

    def _fetch(self, path: str) -> bytes:
        code = "async (p) => [...new Uint8Array(await (await fetch(p)).arrayBuffer())]"
        return bytes(self.page.evaluate(code, path))
