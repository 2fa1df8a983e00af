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

"""A stand-in for the server of MONAI Label: its REST interface over a folder, and a model that paints discs."""

from __future__ import annotations

import email
import io
import json
import mimetypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

PAGE = Path(__file__).parents[2] / "monai_ext/label/page"
RADIUS = 12
LABELS = {"optic disc": 1, "optic cup": 2}


class StandIn(ThreadingHTTPServer):
    """Serves the page and the pictures of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.labels: dict[str, dict] = {}
        self.requests: list[dict] = []
        self.delay = 0.0
        self.problem = ""
        self.password = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/annotate/"

    def label_path(self, image: str) -> Path:
        return self.folder / "labels" / f"{image}.png"

    def saved(self, image: str) -> np.ndarray:
        return np.asarray(Image.open(self.label_path(image)))

    def save(self, image: str, content: bytes, info: dict) -> None:
        self.label_path(image).parent.mkdir(exist_ok=True)
        self.label_path(image).write_bytes(content)
        self.labels[image] = {**info, "ts": int(time.time()), "name": f"{image}.png"}


@contextmanager
def serving(folder: Path) -> Iterator[StandIn]:
    """A server for the pictures in a folder, stopped when the block ends."""
    server = StandIn(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def painted(shape: tuple[int, int], params: dict) -> np.ndarray:
    """The stand-in's answer: the box and a disc around each click on the object, less those off it."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    if "roi" in params:
        x0, y0, x1, y1 = params["roi"]
        mask |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    for name, value in (("foreground", True), ("background", False)):
        for cx, cy in params.get(name, []):
            mask[(x - cx) ** 2 + (y - cy) ** 2 <= RADIUS**2] = value
    return mask.astype(np.uint8)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self._route()

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args: object) -> None:
        pass

    def _route(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in url.path.split("/") if part]
        server = self.server
        allowed = not server.password or self.headers.get("Authorization") == "Bearer pass"
        match self.command, parts:
            case "POST", ["auth", "token"]:
                right = parse_qs(body.decode())["password"] == [server.password]
                answer = {"access_token": "pass"} if right else {"detail": "The password is wrong."}
                self._json(answer, 200 if right else 401)
            case _, [first, *_] if first != "annotate" and not allowed:
                self._json({"detail": "Not authenticated"}, 401)
            case "GET", ["annotate", *rest]:
                path = PAGE.joinpath(*rest or ["index.html"])
                kind = mimetypes.guess_type(path)[0] or "text/javascript"
                self._send(path.read_bytes(), kind)
            case "GET", ["info"]:
                models = {
                    "discs": {"type": "segmentation", "dimension": 2, "labels": LABELS},
                    "vessels": {"type": "segmentation", "dimension": 2, "labels": {"vessel": 1}},
                    "clicks": {"type": "deepgrow", "dimension": 2, "labels": {}},
                    "organs": {"type": "segmentation", "dimension": 3, "labels": {"liver": 1}},
                }
                names = {"name": "stand-in", "models": models, "strategies": {"first": {}}, "trainers": {"discs": {}}}
                self._json(names)
            case "GET", ["datastore"]:
                self._json({"objects": {path.stem: self._object(path) for path in self._images()}})
            case "GET", ["datastore", "image"]:
                path = next(path for path in self._images() if path.stem == query["image"])
                self._send(path.read_bytes(), mimetypes.guess_type(path)[0] or "")
            case "GET", ["datastore", "label", "info"]:
                self._json(server.labels.get(query["label"], {}))
            case "GET", ["datastore", "label"]:
                self._send(server.label_path(query["label"]).read_bytes(), "image/png")
            case "PUT", ["datastore", "label"] if server.problem:
                self._json({"detail": server.problem}, 409)
            case "PUT", ["datastore", "label"]:
                form = self._form(body)
                server.save(query["image"], form["label"], json.loads(form["params"]))
                self._json({"image": query["image"], "label": query["image"]})
            case "POST", ["infer", model]:
                params = json.loads(self._form(body)["params"])
                server.requests.append(params)
                self._infer(model, query["image"], params)
            case "POST", ["activelearning", "first"]:
                left = [path.stem for path in self._images() if path.stem not in server.labels]
                self._json({"id": left[0]} if left else {})
            case _:
                self._json({"detail": f"{self.command} {url.path} is not known."}, 404)

    def _images(self) -> list[Path]:
        return sorted(path for path in self.server.folder.iterdir() if path.is_file())

    def _object(self, path: Path) -> dict:
        info = self.server.labels.get(path.stem)
        return {"image": {"ext": path.suffix}, "labels": {"final": {"info": info}} if info else {}}

    def _infer(self, model: str, image: str, params: dict) -> None:
        time.sleep(self.server.delay)
        if self.server.problem:
            self._json({"detail": self.server.problem}, 400)
            return
        path = next(path for path in self._images() if path.stem == image)
        with Image.open(path) as picture:
            shape = picture.height, picture.width
        if model == "discs":  # the whole picture: a label for each half
            mask = np.ones(shape, np.uint8)
            mask[shape[0] // 2 :] = 2
        else:
            mask = painted(shape, params)
        file = io.BytesIO()
        Image.fromarray(mask).save(file, "PNG", compress_level=1)
        self._send(file.getvalue(), "image/png")

    def _form(self, body: bytes) -> dict[str, bytes]:
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = email.message_from_bytes(kind + body).get_payload()
        return {str(p.get_param("name", header="content-disposition")): p.get_payload(decode=True) for p in parts}

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
