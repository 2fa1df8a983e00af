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

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from label_pictures import draw_picture
from label_server import DISCS, NUCLEI, ROOT, LabelServer, sentence
from monailabel.client import MONAILabelClient

PEOPLE = {"admin": "a long password", "ann": "another one"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server that asks for passwords and takes adapters."""
    folder = tmp_path_factory.mktemp("closed")
    draw_picture(folder / "studies/tissue_0.png")
    people = folder / "people.txt"
    people.write_text("".join(f"{name}:{password}\n" for name, password in PEOPLE.items()))
    people.chmod(0o600)
    running = LabelServer(folder / "studies", "--passwords", str(people), "--uploads", "--max-request", "8")
    try:
        yield running.wait()
    finally:
        running.kill()


def headers(server: LabelServer, name: str) -> dict[str, str]:
    token = MONAILabelClient(server.url).auth_token(name, PEOPLE[name])
    return {"Authorization": f"{token['token_type']} {token['access_token']}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/info/"),
        ("GET", "/datastore/?output=all"),
        ("GET", "/datastore/image?image=tissue_0"),
        ("POST", f"/infer/{NUCLEI}?image=tissue_0"),
        ("POST", f"/infer/wsi/{NUCLEI}?image=tissue_0"),
        ("POST", f"/train/{NUCLEI}"),
        ("GET", f"/train/{NUCLEI}"),
        ("GET", f"/adapters/{NUCLEI}"),
        ("PUT", f"/adapters/{NUCLEI}?version=0"),
        ("POST", "/activelearning/random"),
    ],
)
def test_nothing_without_a_token(closed: LabelServer, method: str, path: str) -> None:
    for token in ({}, {"Authorization": "Bearer x.y.z"}):
        answer = requests.request(method, f"{closed.url}{path}", headers=token, timeout=60)
        assert answer.status_code == 401, (path, answer.text)


def test_monai_labels_client_logs_in(closed: LabelServer) -> None:
    client = MONAILabelClient(closed.url)
    assert client.auth_enabled() and not client.auth_valid_token()
    client.update_auth(client.auth_token("ann", PEOPLE["ann"]))
    assert client.auth_valid_token() and "models" in client.info()


def test_a_wrong_password(closed: LabelServer) -> None:
    for name, password in (("ann", "wrong"), ("nobody", ""), ("", "")):
        answer = requests.post(f"{closed.url}/auth/token", data={"username": name, "password": password}, timeout=60)
        assert answer.status_code in (401, 422), answer.text


def test_only_admin_trains_and_changes_versions(closed: LabelServer) -> None:
    for method, path in (("POST", f"/train/{NUCLEI}"), ("PUT", f"/adapters/{NUCLEI}?version=0")):
        answer = requests.request(method, f"{closed.url}{path}", headers=headers(closed, "ann"), timeout=60)
        assert answer.status_code == 403, answer.text
    train = requests.post(f"{closed.url}/train/{NUCLEI}", headers=headers(closed, "admin"), json={}, timeout=60)
    assert "at least two pictures" in sentence(train, 409)


def upload(server: LabelServer, content: bytes) -> requests.Response:
    files = {"file": ("model.pt", content)}
    return requests.put(f"{server.url}/model/{NUCLEI}", headers=headers(server, "admin"), files=files, timeout=120)


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/ran_by_an_upload"),))


def test_uploads_are_tensors_that_fit_or_nothing(closed: LabelServer) -> None:
    models = [ROOT / "bundles" / name / "models/model.pt" for name in (NUCLEI, DISCS)]
    assert upload(closed, models[0].read_bytes()).json()["current"] == 1
    assert "other labels or adapter settings" in sentence(upload(closed, models[1].read_bytes()), 400)
    assert "The file" in sentence(upload(closed, pickle.dumps(Evil())), 400)
    assert not Path("/tmp/ran_by_an_upload").exists()
    assert "at most 8 MB" in sentence(upload(closed, b"0" * 9 * 1024**2), 413)


def test_other_sites_are_kept_out(closed: LabelServer) -> None:
    token = headers(closed, "admin")
    other = requests.get(f"{closed.url}/info/", headers={**token, "Origin": "http://evil.example"}, timeout=60)
    assert "Pages of other sites" in sentence(other, 403)
    own = requests.get(f"{closed.url}/info/", headers={**token, "Origin": closed.url}, timeout=60)
    assert own.ok
    rebound = requests.get(f"{closed.url}/info/", headers={**token, "Host": "evil.example"}, timeout=60)
    assert rebound.status_code == 400
