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
MONAI Label's server under load: how fast a second click is, many clients at once, and a server that is killed.

    .venv-label/bin/python -m tests.benchmarks.label_server IMAGES --requests 2000 --clients 8 --kills 20

IMAGES is a folder of pictures, which are copied. The report is one line of JSON for each part.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image

from monai_ext.label.cli import SUFFIXES, _paths, server_settings
from monai_ext.networks.weights import read_state_dict

NUCLEI = "histology_nuclei_segmentation"
PICTURES = tuple(f".{suffix}" for suffix in SUFFIXES if suffix in ("png", "jpg", "jpeg", "tif", "tiff"))


class ForkedServer:
    """The server as a fork of this process, which has imported everything: restarting it takes a moment."""

    def __init__(self, studies: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        parser = argparse.ArgumentParser()
        for name, value in (("bundles", "bundles"), ("state", None), ("passwords", None)):
            parser.add_argument(f"--{name}", default=value)
        args = parser.parse_args([])
        args.studies, args.host, args.port, args.uploads = str(studies), "127.0.0.1", self.port, False
        args.memory, args.disk, args.max_request = 256, 256, 64
        os.environ.update(_paths(server_settings(args)))
        self.url, self.child = f"http://127.0.0.1:{self.port}", 0

    def start(self) -> float:
        """Until it answers; returns the seconds that took."""
        began = time.monotonic()
        self.child = os.fork()
        if not self.child:
            os.setsid()
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            import uvicorn

            from monai_ext.label.app.server import app

            uvicorn.run(app, host="127.0.0.1", port=self.port, log_level="critical", access_log=False)
            os._exit(0)
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.url}/info/", timeout=60).ok:
                    return time.monotonic() - began
            assert not os.waitpid(self.child, os.WNOHANG)[0], "the server did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)

    def click(self, model: str, image: str, points: list[list[int]]) -> requests.Response:
        return requests.post(
            f"{self.url}/infer/{model}",
            params={"image": image, "output": "image"},
            data={"params": json.dumps({"foreground": points})},
            timeout=600,
        )

    def save(self, image: str, mask: np.ndarray) -> requests.Response:
        file = io.BytesIO()
        Image.fromarray(mask).save(file, "PNG")
        files = {"label": ("label.png", file.getvalue(), "image/png")}
        return requests.put(f"{self.url}/datastore/label", params={"image": image}, files=files, timeout=600)


def sizes_of(studies: Path) -> dict[str, tuple[int, int]]:
    return {path.stem: Image.open(path).size for path in sorted(studies.iterdir()) if path.suffix.lower() in PICTURES}


def second_click(server: ForkedServer, sizes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Seconds from request to mask of the first click on an image and of four that follow."""
    first, second = [], []
    warm = next(iter(sizes))
    server.click("sam2_micro", warm, [[1, 1]])  # loads the network
    for image, (width, height) in list(sizes.items())[1:]:
        points: list[list[int]] = []
        for number in range(5):
            points.append([width // 2 + 3 * number, height // 2])
            began = time.monotonic()
            assert server.click("sam2_micro", image, points).ok
            (second if number else first).append(time.monotonic() - began)
    one, other = statistics.median(first), statistics.median(second)
    return {"images": len(sizes) - 1, "first": round(one, 4), "second": round(other, 4), "ratio": round(other / one, 3)}


def load(
    server: ForkedServer, sizes: dict[str, tuple[int, int]], count: int, clients: int, seed: int = 0
) -> dict[str, Any]:
    """Mixed requests from many clients; every answer must be what it should be."""
    process, statuses, wrong = psutil.Process(server.child), Counter(), []
    memory, numbers, lock = [], iter(range(count)), threading.Lock()

    def client(own: int) -> None:
        draw = random.Random(seed * 1000 + own)
        while True:
            with lock:
                if (number := next(numbers, None)) is None:
                    return
            image = draw.choice(list(sizes))
            width, height = sizes[image]
            spot = [draw.randrange(width), draw.randrange(height)]
            kind = draw.choices(
                ["click", "list", "info", "save", "bad", "next", "automatic"], [60, 10, 5, 10, 10, 4, 1]
            )[0]
            expected = 200
            if kind == "click":
                answer = server.click("sam2_micro", image, [spot])
            elif kind == "automatic":
                answer = server.click(NUCLEI, image, [])
            elif kind == "save":
                answer = server.save(image, np.full((height, width), draw.randrange(2), np.uint8))
            elif kind == "bad":
                answer, expected = server.click("sam2_micro", image, [[width + 5, 0]]), 400
            elif kind == "next":
                answer = requests.post(f"{server.url}/activelearning/random", json={}, timeout=600)
            else:
                answer = requests.get(
                    server.url + {"list": "/datastore/?output=all", "info": "/info/"}[kind], timeout=600
                )
            with lock:
                statuses[f"{kind} {answer.status_code}"] += 1
                if answer.status_code != expected:
                    wrong.append((kind, answer.status_code, answer.text[:200]))
                if number % max(1, count // 20) == 0:
                    memory.append(process.memory_info().rss // 1024**2)

    began = time.monotonic()
    threads = [threading.Thread(target=client, args=(own,)) for own in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = round(time.monotonic() - began, 1)
    return {"requests": count, "wrong": wrong[:5], "answers": dict(statuses), "seconds": seconds, "memory_mb": memory}


def kills(
    server: ForkedServer, studies: Path, sizes: dict[str, tuple[int, int]], count: int, seed: int = 0
) -> dict[str, Any]:
    """Kill the server while labels are saved and an adapter is tuned; what was said to be saved must be there."""
    draw, saved, problems, restarts = random.Random(seed), {}, [], []
    for number in range(count):
        pending: dict[str, int] = {}
        running = threading.Event()
        running.set()

        def annotate(own: int, running: threading.Event = running, pending: dict[str, int] = pending) -> None:
            hand = random.Random(seed + own)
            images = list(sizes)[own::3]
            while running.is_set() and images:
                image = hand.choice(images)
                value = hand.randrange(1, 256)
                pending[image] = value
                with contextlib.suppress(requests.RequestException):
                    if server.save(image, np.full(sizes[image][::-1], value, np.uint8)).ok:
                        saved[image] = value

        threads = [threading.Thread(target=annotate, args=(own,)) for own in range(3)]
        for thread in threads:
            thread.start()
        with contextlib.suppress(requests.RequestException):
            short = {"max_epochs": 1, "steps_per_epoch": 1, "batch_size": 1}
            requests.post(f"{server.url}/train/{NUCLEI}", json=short, timeout=60)
        time.sleep(draw.uniform(0.2, 3))
        server.kill()
        running.clear()
        for thread in threads:
            thread.join()
        problems += [f"kill {number}: {problem}" for problem in damages(studies, saved, pending)]
        restarts.append(round(server.start(), 2))
        listed = requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]
        problems += [
            f"kill {number}: {image} is not listed" for image in saved if "final" not in listed[image]["labels"]
        ]
    return {"kills": count, "saved": len(saved), "problems": problems[:5], "restart_seconds": restarts}


def damages(studies: Path, saved: dict[str, int], pending: dict[str, int]) -> list[str]:
    """What is wrong with the files that a killed server left."""
    found = []
    try:
        json.loads((studies / "datastore_v2.json").read_text())
    except ValueError as error:
        found.append(f"the index is damaged: {error}")
    for image, value in saved.items():
        pixels = np.asarray(Image.open(studies / "labels/final" / f"{image}.png"))
        if not (pixels == pixels[0, 0]).all() or pixels[0, 0] not in (value, pending.get(image)):
            found.append(f"the label of {image} is not what was saved")
    for model in studies.glob(".monai_ext/adapters/*/[0-9]*/model.pt"):
        read_state_dict(model)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder, "studies")
        studies.mkdir()
        for path in sorted(args.images.iterdir()):
            if path.suffix.lower() in PICTURES:
                shutil.copy(path, studies)
        sizes = sizes_of(studies)
        server = ForkedServer(studies)
        import monai_ext.label.app.server  # noqa: F401  after the settings, before the first fork

        for part in ("start", "second_click", "load", "kills"):
            if part == "start":
                report: Any = {"seconds": round(server.start(), 2)}
            elif part == "second_click":
                report = second_click(server, sizes)
            elif part == "load":
                report = load(server, sizes, args.requests, args.clients)
            else:
                report = kills(server, studies, sizes, args.kills)
            print(json.dumps({part: report}), flush=True)  # noqa: T201
        server.kill()


if __name__ == "__main__":
    sys.exit(main())
