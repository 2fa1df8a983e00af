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

"""A stand-in for the Hugging Face hub on this machine: the few addresses that an upload and a download need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_the_stand_in"
COMMIT = "0" * 40
BINARY = (".pt", ".safetensors", ".png", ".jpg")


@dataclass
class Repository:
    """Files by path, commits so far, and what was there when a tag was set."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    tags: dict[str, dict[str, bytes]] = field(default_factory=dict)


@dataclass
class Hub:
    """What the server knows, and how it is to fail: a status, or 0 to hang up, by a pattern of ``METHOD path``."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def use_hub(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library take another address for the hub, the older way to upload, and no time between tries."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    # The newer way to upload goes to another server.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        request = f"{self.command} {self.path.partition('?')[0]}"
        self.hub.requests.append(request)
        body = self._body()
        for pattern, status in self.hub.failures.items():
            if re.search(pattern, request):
                if not status:
                    self.close_connection = True
                    self.connection.close()
                    return
                return self._answer(status, {"error": "as the test wants it"})
        upload = re.fullmatch(r"PUT /lfs/(\w+)", request)
        if upload:
            assert hashlib.sha256(body).hexdigest() == upload[1]
            self.hub.blobs[upload[1]] = body
            return self._answer(200, {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        resolved = re.fullmatch(r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/[^/]+/(.+)", request)
        if resolved:
            return self._send(200, self.hub.repositories[resolved[1]].files[resolved[2]])
        return self._answer(*self._api(request, body))

    def _api(self, request: str, body: bytes) -> tuple[int, Any]:
        hub = self.hub
        if request == "POST /api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            known = name in hub.repositories
            hub.repositories.setdefault(
                name, Repository(wanted.get("visibility") == "private" or wanted.get("private"))
            )
            return (409 if known else 200), {"url": f"{hub.url}/{name}", "name": name}
        if request == "POST /api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        actions = "refs|preupload|info|commit|tag|revision|tree"
        found = re.fullmatch(rf"(?:GET|POST) (?:/api/models)?/([^/]+/[^/]+?)(?:\.git)?/({actions})(/.*)?", request)
        if not found or found[1] not in hub.repositories:
            return 404, {"error": "there is no such thing"}
        repository, action = hub.repositories[found[1]], found[2]
        if action == "refs":
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": COMMIT} for tag in repository.tags]
            return 200, {"branches": [], "converts": [], "tags": tags}
        if action == "revision":
            return 200, {"id": found[1], "sha": COMMIT}
        if action == "tree":
            files = repository.files.items()
            return 200, [{"type": "file", "path": path, "size": len(data), "oid": _id(data)} for path, data in files]
        if action == "commit":
            return 200, self._commit(repository, body)
        content = json.loads(body)
        if action == "preupload":
            return 200, {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(BINARY) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in content["files"]
                ]
            }
        if action == "info":
            upload = {"upload": {"href": f"{hub.url}/lfs/%s", "header": {}}}
            objects = [
                {**wanted, "actions": json.loads(json.dumps(upload) % wanted["oid"])} for wanted in content["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        repository.tags[content["tag"]] = dict(repository.files)
        return 200, {}

    def _commit(self, repository: Repository, body: bytes) -> dict[str, Any]:
        new = {}
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                new[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                new[entry["value"]["path"]] = self.hub.blobs[entry["value"]["oid"]]
            elif entry["key"] == "deletedFile":
                del repository.files[entry["value"]["path"]]
        repository.files |= new
        repository.commits += 1
        return {"success": True, "commitUrl": f"{self.hub.url}/x/y/commit/1", "commitOid": COMMIT}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{_id(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _id(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
