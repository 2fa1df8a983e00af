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

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from label_pictures import draw_picture
from label_server import BASE, DISCS, NUCLEI, ROOT, LabelServer, png, sentence
from PIL import Image


def test_info_lists_every_bundle_and_what_is_clicked(server: LabelServer) -> None:
    info = server.get("/info/").json()
    bundles = {path.name for path in (ROOT / "bundles").glob("*_segmentation")}
    assert set(info["trainers"]) == bundles
    assert {NUCLEI, DISCS, BASE, f"{NUCLEI}_clicks"} <= set(info["models"])
    assert info["models"][NUCLEI]["type"] == "segmentation" and info["models"][NUCLEI]["labels"] == {"nucleus": 1}
    assert info["models"][BASE]["type"] == info["models"][f"{NUCLEI}_clicks"]["type"] == "deepgrow"
    assert {"uncertainty", "random", "first"} <= set(info["strategies"])


@pytest.fixture(scope="module")
def direct(server: LabelServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m monai.bundle run` writes for pictures of three formats."""
    bundle, folder = ROOT / "bundles" / NUCLEI, tmp_path_factory.mktemp("direct")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(bundle / "configs/inference.json")]
    command += ["--bundle_root", str(bundle), "--dataset_dir", str(server.studies / "tissue_[023].*")]
    subprocess.run(
        [*command, "--output_dir", str(folder), "--logging_file", "False"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    return folder


@pytest.mark.parametrize("image", ["tissue_0", "tissue_2", "tissue_3"])
def test_the_automatic_mask_is_that_of_the_bundle_pixel_for_pixel(
    server: LabelServer, image: str, direct: Path
) -> None:
    expected = np.asarray(Image.open(direct / f"{image}_mask.png")) > 0
    served = server.mask(NUCLEI, image)
    assert served.shape == (80, 96) and served.any() and np.array_equal(served > 0, expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii.gz", ".nrrd"])
def test_results_of_each_format_open_at_native_size(server: LabelServer, suffix: str, tmp_path: Path) -> None:
    expected = server.mask(NUCLEI, "tissue_0")
    answer = server.infer(NUCLEI, "tissue_0", result_extension=suffix)
    path = tmp_path / f"mask{suffix}"
    path.write_bytes(answer.content)
    if suffix == ".jpg":
        assert Image.open(path).size == (96, 80)
        return
    from monai_ext.label.mask_files import read_mask

    assert np.array_equal(read_mask(path), expected)


def test_clicks_boxes_and_labels(server: LabelServer) -> None:
    one = server.mask(BASE, "tissue_0", foreground=[[40, 40]])
    assert one.shape == (80, 96) and set(np.unique(one)) <= {0, 1} and one.any()
    two = server.mask(BASE, "tissue_0", foreground=[[40, 40]], background=[[5, 5]])
    assert two[5, 5] == 0
    box = server.mask(BASE, "tissue_0", roi=[20, 20, 60, 60])
    assert box.any() and np.array_equal(box, server.mask(BASE, "tissue_0", roi=[20, 60, 20, 60, 0, 0]))
    named = server.mask(f"{NUCLEI}_clicks", "tissue_0", foreground=[[40, 40]], label="Nucleus")
    assert np.array_equal(named, server.mask(f"{NUCLEI}_clicks", "tissue_0", foreground=[[40, 40]]))
    earlier = {"label": ("earlier.png", png(one), "image/png")}
    answer = server.infer(BASE, "tissue_0", files=earlier, foreground=[[40, 40]], background=[[5, 5]])
    assert answer.ok and Image.open(io.BytesIO(answer.content)).size == (96, 80)


BAD = [
    ("infer", BASE, "none", {"foreground": [[1, 1]]}, 404, "not in the study folder"),
    ("infer", BASE, "/etc/passwd", {"foreground": [[1, 1]]}, 400, "without slashes"),
    ("infer", BASE, "../elsewhere", {"foreground": [[1, 1]]}, 400, "without slashes"),
    ("infer", BASE, "linked", {"foreground": [[1, 1]]}, 404, "not in the study folder"),
    ("infer", NUCLEI, "linked", {}, 404, "not in the study folder"),
    ("infer", BASE, "cut", {"foreground": [[1, 1]]}, 400, "cut.png"),
    ("infer", NUCLEI, "cut", {}, 400, "cut.png"),
    ("infer", BASE, "", {"foreground": [[1, 1]]}, 400, "image must name"),
    ("infer", "none", "tissue_0", {}, 404, "model must be one of"),
    ("infer", "histology_gland_segmentation", "tissue_0", {}, 409, "no trained model yet"),
    ("infer", BASE, "tissue_0", {}, 400, "At least one click"),
    ("infer", BASE, "tissue_0", {"foreground": [[96, 1]]}, 400, "outside the picture"),
    ("infer", BASE, "tissue_0", {"foreground": [[1, 1]] * 10_000}, 413, "At most 100 clicks"),
    ("infer", BASE, "tissue_0", {"foreground": [[float("nan"), 1]]}, 400, "numbers of a picture"),
    (
        "infer",
        f"{NUCLEI}_clicks",
        "tissue_0",
        {"foreground": [[1, 1]], "label": "x"},
        400,
        "label must be one of nucleus",
    ),
    ("infer", BASE, "tissue_0", {"foreground": [[1, 1]], "result_extension": ".exe"}, 400, "result_extension"),
]


@pytest.mark.parametrize(("kind", "model", "image", "params", "status", "words"), BAD)
def test_bad_requests_get_a_sentence(
    server: LabelServer, kind: str, model: str, image: str, params: dict, status: int, words: str
) -> None:
    detail = sentence(server.infer(model, image, **params), status)
    assert words in detail and str(server.studies) not in detail


def test_a_path_inside_params_is_not_followed(server: LabelServer) -> None:
    secret = str(server.studies.parent / "elsewhere.png")
    given = json.dumps({"foreground": [[40, 40]], "image": secret, "earlier": secret, "model": NUCLEI})
    query = {"image": "tissue_0", "output": "image"}
    answer = requests.post(f"{server.url}/infer/{BASE}", params=query, data={"params": given}, timeout=60)
    expected = server.mask(BASE, "tissue_0", foreground=[[40, 40]])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)


@pytest.mark.parametrize("text", ["{", "[]", "5", "[" * 100_000, '{"foreground": [[1'])
def test_params_that_are_no_json(server: LabelServer, text: str) -> None:
    answer = requests.post(
        f"{server.url}/infer/{BASE}", params={"image": "tissue_0"}, data={"params": text}, timeout=60
    )
    assert "params must be" in sentence(answer, 400)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("PUT", f"/model/{NUCLEI}", 403, "without --uploads"),
        ("DELETE", f"/model/{NUCLEI}", 403, "not deleted"),
        ("POST", "/reload", 403, "Restart"),
        ("GET", "/proxy/dicom/wado/studies", 404, "no DICOMweb"),
        ("GET", "/datastore/image?image=../elsewhere", 400, "without slashes"),
        ("GET", "/datastore/image?image=linked", 404, "not in the study folder"),
        ("GET", "/datastore/image?image=none", 404, "not in the study folder"),
        ("GET", "/datastore/label?label=tissue_5&tag=final", 404, "no label"),
        ("GET", "/datastore/label?label=tissue_5&tag=../../x", 400, "without slashes"),
        ("PUT", "/datastore/label?image=tissue_5&tag=../../x", 400, "without slashes"),
        ("PUT", "/datastore/label?image=none", 404, "not in the study folder"),
        ("PUT", "/datastore/label?image=tissue_5", 400, "80 high"),
        ("PUT", "/datastore/image?image=../../x", 400, "without slashes"),
        ("PUT", "/datastore/image?image=tissue_0", 409, "already"),
        ("GET", "/logs/?logfile=../../../../etc/passwd", 400, "without slashes"),
        ("POST", "/train/none", 404, "model must be one of"),
        ("POST", "/activelearning/none", 404, "strategy must be one of"),
        ("GET", "/adapters/none", 404, "model must be one of"),
        ("PUT", f"/adapters/{NUCLEI}?version=99", 404, "Version 99 is not there"),
        ("PUT", f"/adapters/{NUCLEI}?version=x", 422, "version"),
        ("PUT", "/session/?uncompress=true", 400, "not unpacked"),
        ("GET", "/session/none", 404, "Not Found"),
        ("DELETE", f"/train/{NUCLEI}", 404, "not trained"),
    ],
)
def test_what_is_not_allowed_or_not_there(server: LabelServer, method: str, path: str, status: int, words: str) -> None:
    mask = png(np.zeros((4, 4), np.uint8))
    field = "files" if "/session" in path else "label" if "label" in path else "file"
    files = {field: ("label.png", mask, "image/png")} if method == "PUT" and "adapters" not in path else None
    answer = requests.request(method, f"{server.url}{path}", files=files, timeout=60)
    assert words in sentence(answer, status)


def test_a_request_that_is_too_large_is_refused_before_it_is_read(server: LabelServer) -> None:
    def endless():
        yield b"x"
        raise AssertionError("the server went on reading")

    headers = {"Content-Length": str(10**12), "Content-Type": "application/octet-stream"}
    answer = requests.put(f"{server.url}/datastore/image", data=iter([b"x"]), headers={**headers}, timeout=60)
    assert answer.status_code in (400, 413)


def test_saved_labels_are_there_at_once(server: LabelServer) -> None:
    mask = (np.arange(80 * 96).reshape(80, 96) % 2).astype(np.uint8)
    answer = server.save("tissue_4", mask, label_info=[{"name": "nucleus", "idx": 1}])
    assert answer.json() == {"image": "tissue_4", "label": "tissue_4"}
    back = server.get("/datastore/label", label="tissue_4", tag="final")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(back.content))), mask)
    objects = server.get("/datastore/", output="all").json()["objects"]
    assert objects["tissue_4"]["labels"]["final"]["info"]["label_info"] == [{"name": "nucleus", "idx": 1}]


def test_the_most_uncertain_picture_comes_first(server: LabelServer) -> None:
    answer = requests.post(f"{server.url}/activelearning/uncertainty", json={"model": NUCLEI}, timeout=300).json()
    info = server.get("/datastore/", output="all").json()["objects"]
    scores = {
        name: o["image"]["info"]["uncertainty_of_model"]["score"]
        for name, o in info.items()
        if "uncertainty_of_model" in o["image"]["info"]
    }
    assert answer["uncertainty"] == max(scores.values()) and answer["id"] in scores
    assert "/" not in answer["path"]


def test_training_goes_on_beside_inference_and_is_used_and_rolled_back(server: LabelServer) -> None:
    for number in (0, 1):
        discs = draw_picture(server.studies.parent / "again.png", size=(96, 80), seed=number)
        assert server.save(f"tissue_{number}", discs.astype(np.uint8)).ok
    before = server.mask(NUCLEI, "tissue_5")
    short = {"max_epochs": 1, "steps_per_epoch": 3, "batch_size": 1}
    started = requests.post(f"{server.url}/train/{NUCLEI}", json=short, timeout=60)
    assert started.ok, started.text
    twice = requests.post(f"{server.url}/train/{NUCLEI}", json=short, timeout=60)
    assert "A training is running" in sentence(twice, 409)
    clicks = 0
    while (task := server.get(f"/train/{NUCLEI}").json())["status"] in ("SUBMITTED", "RUNNING"):
        server.mask(BASE, "tissue_1", foreground=[[30, 30]])
        clicks += 1
        time.sleep(0.3)
    assert task["status"] == "DONE" and clicks, "\n".join(task["details"])
    versions = server.get(f"/adapters/{NUCLEI}").json()
    assert versions["current"] == 1 and set(versions["versions"]) == {"0", "1"}
    after = server.mask(NUCLEI, "tissue_5")
    assert server.get("/info/").json()["models"][NUCLEI]["version"] == 1
    assert requests.put(f"{server.url}/adapters/{NUCLEI}", params={"version": 0}, timeout=60).ok
    assert np.array_equal(server.mask(NUCLEI, "tissue_5"), before)
    assert requests.put(f"{server.url}/adapters/{NUCLEI}", params={"version": 1}, timeout=60).ok
    assert np.array_equal(server.mask(NUCLEI, "tissue_5"), after)


def test_nobody_gets_in_from_outside_without_a_password(studies: Path) -> None:
    command = [sys.executable, "-m", "monai_ext", "label", "--studies", str(studies), "--host", "0.0.0.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "lets others in: give --passwords FILE" in done.stderr
    assert json.dumps(done.stderr).count("\\n") == 1
