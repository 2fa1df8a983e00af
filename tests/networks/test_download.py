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

import hashlib
import multiprocessing
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

from monai_ext.networks import download, weights
from monai_ext.networks.download import download_weights

NAME = "sam2.1_hiera_tiny"
CONTENT = random.Random(0).randbytes(100_000)


class Server(ThreadingHTTPServer):
    """A real server of one file, which misbehaves as told; it notes the Range of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True  # does it understand Range?
        self.length = True  # does it tell Content-Length?
        self.statuses: list[int] = []  # answer the first requests with these errors
        self.cuts: list[int] = []  # drop the first connections after so many bytes
        self.shifts: list[int] = []  # begin the first continued answers so many bytes earlier than asked
        self.pause = 0.0
        self.requests: list[str | None] = []

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that were killed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/092824"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, content = self.server, self.server.content
        asked = self.headers["Range"]
        server.requests.append(asked)
        if server.statuses or self.path != f"/092824/{NAME}.pt":
            return self.send_error(server.statuses.pop(0) if server.statuses else 404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if start and server.shifts:
            start -= server.shifts.pop(0)
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:][: server.cuts.pop(0) if server.cuts else None]
        for first in range(0, len(body), 2000):
            self.wfile.write(body[first : first + 2000])
            time.sleep(server.pause)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks and no waiting; the table names our own content."""
    monkeypatch.setattr(download, "CHUNK", 1000)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    tell(monkeypatch, len(CONTENT))


def tell(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    row = weights.OfficialWeights(hashlib.sha256(CONTENT).hexdigest(), "100 kB", size)
    monkeypatch.setattr(weights, "OFFICIAL_WEIGHTS", MappingProxyType({NAME: row}))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "base" / f"{NAME}.pt"


@pytest.fixture
def part(target: Path) -> Path:
    target.parent.mkdir(parents=True)
    return target.with_name(f"{NAME}.pt.part")


def whole(target: Path) -> bool:
    return target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


class TestWhole:
    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("length", [True, False])
    def test_download(self, server: Server, target: Path, known: bool, length: bool, monkeypatch: pytest.MonkeyPatch):
        tell(monkeypatch, len(CONTENT) if known else None)
        server.length = length
        assert download_weights(NAME, target.parent, base_url=server.url + "/") == target
        assert whole(target)
        assert server.requests == [None]

    def test_goes_where_it_will_be_found(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("MONAI_EXT_WEIGHTS", raising=False)
        cached = download_weights(NAME, base_url=server.url)
        assert cached == tmp_path / "cache" / "monai_ext" / f"{NAME}.pt" == weights.find_weights(NAME)
        monkeypatch.setenv("MONAI_EXT_WEIGHTS", str(tmp_path / "own"))
        own = download_weights(NAME, base_url=server.url)
        assert own == tmp_path / "own" / f"{NAME}.pt" == weights.find_weights(NAME)

    def test_right_file_is_left_alone(self, server: Server, target: Path):
        target.parent.mkdir(parents=True)
        target.write_bytes(CONTENT)
        assert download_weights(NAME, target.parent, base_url=server.url) == target
        assert server.requests == []

    @pytest.mark.parametrize(("content", "words"), [(b"mine", "4 bytes, not 100,000"), (bytes(100_000), "sha256")])
    def test_other_file_there_is_kept(self, server: Server, target: Path, content: bytes, words: str):
        target.parent.mkdir(parents=True)
        target.write_bytes(content)
        with pytest.raises(ValueError, match=f"not the official file \\({words}.*move or delete it"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert target.read_bytes() == content and server.requests == []

    def test_unknown_name(self, server: Server, tmp_path: Path):
        with pytest.raises(ValueError, match=f"one of micro, {NAME}, not 'tinny'"):
            download_weights("tinny", tmp_path / "a", base_url=server.url)
        assert not (tmp_path / "a").exists()


class TestInterrupted:
    @pytest.mark.parametrize("known", [True, False])
    def test_cut_connection_continues(self, server: Server, target: Path, known: bool, monkeypatch: pytest.MonkeyPatch):
        tell(monkeypatch, len(CONTENT) if known else None)
        server.cuts = [30_500, 20_000, 10]
        assert whole(download_weights(NAME, target.parent, base_url=server.url))
        assert server.requests == [None, "bytes=30500-", "bytes=50500-", "bytes=50510-"]

    def test_earlier_run_is_continued(self, server: Server, target: Path, part: Path):
        part.write_bytes(CONTENT[:70_000])
        assert whole(download_weights(NAME, target.parent, base_url=server.url))
        assert server.requests == ["bytes=70000-"]

    def test_server_without_range_starts_over(self, server: Server, target: Path, part: Path):
        part.write_bytes(CONTENT[:70_000])
        server.ranges, server.cuts = False, [80_000]
        assert whole(download_weights(NAME, target.parent, base_url=server.url))
        assert server.requests == ["bytes=70000-", "bytes=80000-"]

    def test_server_that_continues_elsewhere_starts_over(self, server: Server, target: Path, part: Path):
        part.write_bytes(CONTENT[:70_000])
        server.shifts = [100]
        assert whole(download_weights(NAME, target.parent, base_url=server.url))
        assert server.requests == ["bytes=70000-", None]

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("extra", [0, 5])
    def test_part_is_as_long_or_longer(
        self, server: Server, target: Path, part: Path, known: bool, extra: int, monkeypatch: pytest.MonkeyPatch
    ):
        tell(monkeypatch, len(CONTENT) if known else None)
        part.write_bytes(CONTENT + bytes(extra))
        assert whole(download_weights(NAME, target.parent, base_url=server.url))

    def test_gives_up_when_nothing_new_comes(self, server: Server, target: Path):
        server.cuts = [500] + [0] * 100
        with pytest.raises(OSError, match=r"Could not download http.*the connection was cut.*by hand"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert not target.exists()
        assert len(server.requests) == 1 + download.ATTEMPTS

    def test_server_that_recovers(self, server: Server, target: Path):
        server.statuses = [503, 500]
        assert whole(download_weights(NAME, target.parent, base_url=server.url))

    def test_killed_at_any_moment(self, server: Server, target: Path, part: Path):
        server.pause = 0.001
        start = multiprocessing.get_context("fork").Process
        kills = 0
        for moment in sorted(random.Random(1).sample(range(len(CONTENT)), 10)):
            process = start(target=download_weights, args=(NAME, target.parent), kwargs={"base_url": server.url})
            process.start()
            while process.is_alive() and not (part.exists() and part.stat().st_size >= moment):
                time.sleep(0.0005)
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            assert not target.exists() or target.read_bytes() == CONTENT
        assert kills >= 5
        assert whole(download_weights(NAME, target.parent, base_url=server.url))


class TestRefused:
    @pytest.mark.parametrize("known", [True, False])
    def test_wrong_content_is_deleted(self, server: Server, target: Path, known: bool, monkeypatch: pytest.MonkeyPatch):
        tell(monkeypatch, len(CONTENT) if known else None)
        server.content = bytes(len(CONTENT))
        with pytest.raises(ValueError, match=r"sha256 .* was deleted: try again"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert not list(target.parent.iterdir())

    def test_broken_part_is_deleted_and_the_next_run_succeeds(self, server: Server, target: Path, part: Path):
        part.write_bytes(bytes(70_000))
        with pytest.raises(ValueError, match="was deleted"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert whole(download_weights(NAME, target.parent, base_url=server.url))

    def test_wrong_size_is_refused_before_anything_is_written(self, server: Server, target: Path, part: Path):
        part.write_bytes(CONTENT[:50])
        server.content, server.ranges = b"<html>please sign in</html>", False
        with pytest.raises(ValueError, match="offers 27 bytes, not 100,000"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert part.read_bytes() == CONTENT[:50] and not target.exists()

    @pytest.mark.parametrize("status", [403, 404])
    def test_refusal_of_the_server_is_not_asked_twice(self, server: Server, target: Path, status: int):
        server.statuses = [status] * 9
        with pytest.raises(OSError, match=rf"{NAME}\.pt \(the server answered {status} .*MONAI_EXT_WEIGHTS"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert len(server.requests) == 1

    def test_unreachable(self, target: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(OSError, match=r"Could not download http.*refused") as caught:
            download_weights(NAME, target.parent, base_url=url)
        assert f"by hand to {target}" in str(caught.value) and "MONAI_EXT_WEIGHTS" in str(caught.value)
        assert not list(target.parent.iterdir())


class TestDisk:
    def test_file_in_place_of_the_folder(self, server: Server, tmp_path: Path):
        (tmp_path / "file").touch()
        for folder in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(OSError, match=f"The folder {folder} cannot be made .*choose another"):
                download_weights(NAME, folder, base_url=server.url)
        assert server.requests == []

    def test_too_little_space_is_told_at_the_start(self, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 99_999, 99_999))
        with pytest.raises(OSError, match="too little space for 100,000 bytes"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert not list(target.parent.iterdir())

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
    def test_full_while_writing(self, server: Server, target: Path, part: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(download, "CHUNK", 50_000)
        part.symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"part could not be written \(No space left on device\): free some"):
            download_weights(NAME, target.parent, base_url=server.url)
        assert not target.exists()
        assert len(server.requests) == 1
