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

"""A real server on this machine, in a process of its own, and a client for it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

ROOT = Path(__file__).parents[3]
NUCLEI = "histology_nuclei_segmentation"
DISCS = "fundus_disc_cup_segmentation"
BASE = "sam2_micro"
OURS = ("monai_ext", "label")


class LabelServer:
    """`python -m monai_ext label` on a folder of images."""

    def __init__(self, studies: Path, *words: str, command: tuple[str, ...] = OURS, cwd: Path = ROOT) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.studies, self.url = studies, f"http://127.0.0.1:{self.port}"
        self.log = studies.parent / f"{studies.name}-{self.port}.log"
        command = (sys.executable, "-m", *command, "--studies", str(studies), "--port", str(self.port), *words)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def wait(self, seconds: float = 600) -> LabelServer:
        """Until the server answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                if requests.get(f"{self.url}/openapi.json", timeout=5).ok:
                    return self
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.2)
        raise AssertionError(f"no answer in {seconds} s:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """As a power cut would, its trainings too."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path: str, **query: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", params=query, timeout=300)

    def infer(
        self, model: str, image: str, *, output: str = "image", files: Any = None, **params: Any
    ) -> requests.Response:
        return requests.post(
            f"{self.url}/infer/{model}",
            params={"image": image, "output": output},
            data={"params": json.dumps(params)},
            files=files,
            timeout=300,
        )

    def mask(self, model: str, image: str, **params: Any) -> np.ndarray:
        """The mask of an inference that must succeed."""
        answer = self.infer(model, image, **params)
        assert answer.ok, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    def save(self, image: str, mask: np.ndarray, tag: str = "final", **params: Any) -> requests.Response:
        return requests.put(
            f"{self.url}/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": json.dumps(params)},
            files={"label": ("label.png", png(mask), "image/png")},
            timeout=60,
        )


def png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def sentence(answer: requests.Response, status: int) -> str:
    """The one sentence of an answer that must have this status."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    detail = answer.json()["detail"]
    assert isinstance(detail, str) and "Traceback" not in detail and len(detail) < 800
    return detail
