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
The requests of MONAI Label's own clients, as their sources in MONAI Label 0.8.5 send them.

3D Slicer (plugins/slicer/MONAILabel) and CVAT (plugins/cvat) use MONAI Label's client; QuPath (plugins/qupath,
MonaiLabelClient.java and RequestUtils.java) writes its requests itself.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import requests
from label_server import BASE, NUCLEI, LabelServer
from monailabel.client import MONAILabelClient
from PIL import Image

from monai_ext.label.mask_files import read_mask, write_mask


@pytest.fixture
def client(server: LabelServer, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server.url, str(tmp_path), "user-xyz")


RESULT = {"result_extension": ".nrrd", "result_dtype": "uint8"}


class TestSlicer:
    """MONAILabelLogic in MONAILabel.py: results are asked for as .nrrd of uint8."""

    def test_connecting(self, client: MONAILabelClient) -> None:
        info = client.info()
        assert all({"type", "labels", "dimension", "config"} <= set(model) for model in info["models"].values())
        assert not client.auth_enabled()
        assert set(client.datastore()["objects"]) >= {"tissue_0"}

    def test_next_sample(self, client: MONAILabelClient) -> None:
        sample = client.next_sample("random", {})
        assert sample["id"] in client.datastore()["objects"]

    def test_automatic_segmentation(self, server: LabelServer, client: MONAILabelClient) -> None:
        file, params = client.infer(NUCLEI, "tissue_0", {**RESULT})
        assert params["label_names"] == {"nucleus": 1}
        assert np.array_equal(read_mask(Path(file)), server.mask(NUCLEI, "tissue_0"))

    def test_smart_edit(self, server: LabelServer, client: MONAILabelClient) -> None:
        params = {"label": "nucleus", "foreground": [[40, 40, 0]], "background": [], "slice": 0, **RESULT}
        file, answer = client.infer(BASE, "tissue_0", params)
        assert answer["label_names"] == {"nucleus": 1}
        assert np.array_equal(read_mask(Path(file)), server.mask(BASE, "tissue_0", foreground=[[40, 40]]))
        roi = {
            "label": "x",
            "foreground": [],
            "background": [],
            "roi": [20, 60, 20, 60, 0, 0],
            "slice": 0,
            **RESULT,
        }
        file, _ = client.infer(BASE, "tissue_0", roi)
        assert np.array_equal(read_mask(Path(file)), server.mask(BASE, "tissue_0", roi=[20, 20, 60, 60]))

    def test_an_image_of_its_own(self, server: LabelServer, client: MONAILabelClient) -> None:
        session = client.create_session(str(server.studies / "tissue_0.png"))["session_id"]
        assert client.get_session(session)
        file, _ = client.infer(NUCLEI, "mine", {**RESULT}, session_id=session)
        assert np.array_equal(read_mask(Path(file)), server.mask(NUCLEI, "tissue_0"))
        client.remove_session(session)

    def test_submitting_a_label(self, client: MONAILabelClient, tmp_path: Path) -> None:
        mask = np.zeros((80, 96), np.uint8)
        mask[:9] = 1
        write_mask(mask, tmp_path / "label.nii.gz")
        params = {"label_info": [{"name": "nucleus", "idx": 1}]}
        assert client.save_label("tissue_5", str(tmp_path / "label.nii.gz"), "final", params)["label"] == "tissue_5"
        assert np.array_equal(read_mask(Path(client.download_label("tissue_5", "final"))), mask)

    def test_training_status(self, client: MONAILabelClient) -> None:
        assert client.train_status(check_if_running=True) in (True, False)


class TestCVAT:
    """interactor.py and detector.py: the picture comes with the request, as JPEG."""

    @pytest.fixture
    def picture(self, server: LabelServer, tmp_path: Path) -> str:
        path = tmp_path / "cvat.jpg"
        Image.open(server.studies / "tissue_0.png").save(path)
        return str(path)

    def test_interactor(self, client: MONAILabelClient, picture: str) -> None:
        for params in (
            {"output": "mask", "foreground": [[40, 40]], "background": [[5, 5]]},
            {"output": "mask", "foreground": [], "background": [], "roi": [20, 20, 60, 60]},
        ):
            file, _ = client.infer(model=BASE, image_id="", file=picture, params=params)
            mask = np.array(Image.open(file)).astype(np.uint8)
            assert mask.shape == (80, 96) and mask.any()

    def test_tracker(self, client: MONAILabelClient, picture: str) -> None:
        file, _ = client.infer(model=BASE, image_id="", file=picture, params={"roi": [20, 20, 60, 60]})
        assert np.array(Image.open(file)).any()

    def test_detector(self, server: LabelServer, client: MONAILabelClient, picture: str) -> None:
        _, answer = client.infer(model=NUCLEI, image_id="", file=picture, params={"output": "json"})
        answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
        shapes = [
            np.array(contour, int).flatten().tolist()
            for found in answer["annotations"]
            for element in found["annotation"]["elements"]
            for contour in element["contours"]
        ]
        assert shapes and all(len(shape) >= 8 for shape in shapes)


class TestQuPath:
    """MonaiLabelClient.java: JSON for images that the server has, multipart for a region that is sent."""

    def request(self, **params: object) -> dict:
        return {
            "level": 0,
            "location": [0, 0],
            "size": [0, 0],
            "tile_size": [1024, 1024],
            "min_poly_area": 30,
            "params": {"foreground": [], "background": [], "max_workers": 1, **params},
        }

    def polygons(self, answer: requests.Response) -> list[np.ndarray]:
        """As updateAnnotations reads them."""
        assert answer.ok, answer.text
        found = []
        for annotation in ElementTree.fromstring(answer.text).iter("Annotation"):
            assert annotation.get("Name") and re.fullmatch("#[0-9a-fA-F]{6}", annotation.get("Color", ""))
            points = [(float(c.get("X")), float(c.get("Y"))) for c in annotation.iter("Coordinate")]
            found.append(np.array(points))
        return found

    def test_whether_an_image_is_there(self, server: LabelServer) -> None:
        assert requests.head(f"{server.url}/datastore/image", params={"image": "tissue_0"}, timeout=60).ok
        missing = requests.head(f"{server.url}/datastore/image", params={"image": "other"}, timeout=60)
        assert missing.status_code == 404

    def test_an_image_of_the_server(self, server: LabelServer) -> None:
        url = f"{server.url}/infer/wsi/{NUCLEI}?output=asap&image=tissue_0"
        # Java sends no Content-Type.
        whole = self.polygons(requests.post(url, data=json.dumps(self.request()), timeout=300))
        assert whole and all(p.min() >= 0 and p[:, 0].max() <= 96 and p[:, 1].max() <= 80 for p in whole)
        region = {**self.request(), "location": [20, 10], "size": [60, 60]}
        part = self.polygons(requests.post(url, data=json.dumps(region), timeout=300))
        assert all(p[:, 0].min() >= 20 and p[:, 0].max() <= 80 and p[:, 1].min() >= 10 for p in part)

    def test_clicks(self, server: LabelServer) -> None:
        url = f"{server.url}/infer/wsi/{BASE}?output=asap&image=tissue_0"
        (polygon, *_) = self.polygons(requests.post(url, json=self.request(foreground=[[40, 40]]), timeout=300))
        rows, columns = np.nonzero(server.mask(BASE, "tissue_0", foreground=[[40, 40]]))
        assert polygon[:, 0].min() >= columns.min() and polygon[:, 1].max() <= rows.max() + 1

    def test_a_region_that_is_sent(self, server: LabelServer) -> None:
        url = f"{server.url}/infer/wsi_v2/{NUCLEI}?output=asap"
        files = {"file": ("patch.png", (server.studies / "tissue_0.png").read_bytes())}
        answer = requests.post(url, files=files, data={"wsi": json.dumps(self.request())}, timeout=300)
        assert self.polygons(answer)

    def test_submitting_outlines(self, server: LabelServer) -> None:
        xml = b'<?xml version="1.0"?><ASAP_Annotations><Annotations/></ASAP_Annotations>'
        url = f"{server.url}/datastore/label?image=tissue_3"
        files = {"label": ("annotations.xml", xml)}
        assert requests.put(url, files=files, data={"params": "{}"}, timeout=60).json()["label"] == "tissue_3"
        image = {"file": ("patch.png", (server.studies / "tissue_1.png").read_bytes())}
        url = f"{server.url}/datastore/image?image=patch_1"
        assert requests.put(url, files=image, data={"params": "{}"}, timeout=60).json() == {"image": "patch_1"}
