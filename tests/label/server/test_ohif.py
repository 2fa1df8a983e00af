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

"""A CT in Orthanc, MONAI Label's server before it, and its viewer OHIF in a browser: click, see the mask, save it."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from annotator import browsing
from label_server import BASE, LabelServer

sys.path.append(str(Path(__file__).parents[2] / "data"))
from ct_phantoms import ct_phantom, write_series

PLUGINS = Path("/usr/share/orthanc/plugins")
SHAPE = (128, 96, 12)
# Everything in the labelmap of MONAI Label's panel: how many voxels have each number.
COUNTS = """() => {
  if (!window.services.segmentationService.getSegmentation("1")) return {};
  const volume = window.services.segmentationService.getLabelmapVolume("1");
  const counts = {};
  for (const value of volume?.voxelManager.getCompleteScalarDataArray() ?? []) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}"""


def _save_with_pydicom_2(dataset: pydicom.Dataset, path: Path, enforce_file_format: bool = True) -> None:
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    pydicom.dcmwrite(path, dataset, write_like_original=False)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A DICOM server of its own with one CT in it."""
    if shutil.which("Orthanc") is None or not (PLUGINS / "libOrthancDicomWeb.so").is_file():
        pytest.skip("OHIF is tested where Orthanc and its DICOMweb plugin are installed: `make label-system` does it")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        **dict.fromkeys(("StorageDirectory", "IndexDirectory"), str(folder)),
        **{"HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False},
        **{"Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "settings.json")], stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/instances", folder / "log")
        with pytest.MonkeyPatch.context() as patch:
            if pydicom.__version__ < "3":
                patch.setattr(pydicom.Dataset, "save_as", _save_with_pydicom_2)
            series = write_series(folder / "series", ct_phantom(SHAPE)[0])
        for path in series.iterdir():
            assert requests.post(f"{url}/instances", data=path.read_bytes(), timeout=60).ok
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def viewer(orthanc: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """OHIF in a browser, in the mode of MONAI Label, with its panel connected."""
    folder = tmp_path_factory.mktemp("dicomweb")
    words = ("--studies", f"{orthanc}/dicom-web", "--state", str(folder / "state"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(folder / "cache"))
        server = LabelServer(folder / "none", *words)
    try:
        server.wait(900)
        with browsing("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist") as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.set_default_timeout(180_000)
            page.goto(f"{server.url}/ohif/")
            page.click("text=Phantom")
            page.click("text=Confirm and Hide")
            page.click("button:has-text('MONAI Label')")
            page.wait_for_function("document.querySelectorAll('.cornerstone-canvas').length === 3")
            page.wait_for_function("document.body.innerText.includes('/12)')")  # the slices are there
            assert page.input_value("#monailabelServerURL") == f"{server.url}/"
            page.click(".monaiLabelPanel button.actionButton")
            page.wait_for_function(f"Object.keys(({COUNTS})()).length === 1")  # an empty labelmap
            yield page
    finally:
        server.kill()


def test_click_see_the_mask_and_save_it(viewer: Any, orthanc: str) -> None:
    viewer.click(".tab-label:has-text('Point Prompts')")
    viewer.select_option("#tab-3 ~ .tab-content select", BASE)
    viewer.click("#tab-3 ~ .tab-content tr.clickable-row:has-text('vessel')")
    box = viewer.locator(".cornerstone-canvas").first.bounding_box()
    viewer.mouse.click(box["x"] + 0.74 * box["width"], box["y"] + 0.51 * box["height"])
    with viewer.expect_response("**/infer/**") as answer:
        viewer.click("button[title='Run PointPrompts']")
    assert answer.value.ok
    (click,) = json.loads(answer.value.request.post_data.split("\r\n")[3])["foreground"]
    viewer.wait_for_function(f"Object.keys(({COUNTS})()).length === 2")
    (number,) = set(viewer.evaluate(COUNTS)) - {"0"}
    voxels = viewer.evaluate(COUNTS)[number]
    viewer.click(".monai-ext-save")
    viewer.wait_for_function("document.querySelector('.monaiLabelPanel [role=status]').textContent.startsWith('Saved')")
    (saved,) = _segmentations(orthanc)
    assert saved.SegmentSequence[0].SegmentLabel == "vessel"
    mask = saved.pixel_array
    heights = [f.PlanePositionSequence[0].ImagePositionPatient[2] for f in saved.PerFrameFunctionalGroupsSequence]
    frame = int(np.argmax(mask.any((1, 2))))
    assert mask.any((1, 2)).sum() == 1 and mask.sum() == voxels
    assert heights[frame] == 100 + 5 * click[2]  # where the phantom's slices begin, and their distance
    spleen = ct_phantom(SHAPE)[1][:, :, click[2]].T
    assert (spleen & (mask[frame] > 0)).sum() / (spleen | (mask[frame] > 0)).sum() > 0.7


def _segmentations(orthanc: str) -> list[pydicom.Dataset]:
    instances = requests.get(f"{orthanc}/instances", timeout=60).json()
    files = [requests.get(f"{orthanc}/instances/{name}/file", timeout=60).content for name in instances]
    return [d for d in (pydicom.dcmread(io.BytesIO(file)) for file in files) if d.Modality == "SEG"]


def _wait_for(url: str, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if requests.get(url, timeout=30).ok:
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-4000:])
