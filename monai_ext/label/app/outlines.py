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

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse
from monailabel.utils.others.generic import get_mime_type, remove_file
from monailabel.utils.others.pathology import create_asap_annotations_xml, create_dsa_annotations_json
from PIL import Image

from monai_ext.data.reader import PhotographReader
from monai_ext.data.slide import Slide
from monai_ext.label.contours import contour_elements
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.studies import MAX_PIXELS

COLOURS = ((230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230))
WRITERS = {"asap": create_asap_annotations_xml, "dsa": create_dsa_annotations_json}


def outline_answer(
    background_tasks: BackgroundTasks,
    model: str,
    task: Any,
    request: dict[str, Any],
    region: tuple[int, ...] | None,
    smallest: float,
    output: str | None,
) -> Any:
    """
    What a model finds, as outlines in pixels of the whole image.

    Args:
        background_tasks: remove the files afterwards.
        model: its name.
        task: the model.
        request: with ``image``, and prompts in pixels of the whole image.
        region: x, y, width and height of the part to look at; None for all of it.
        smallest: objects of fewer pixels are left out.
        output: ``asap`` or ``dsa`` for a file, else JSON.
    """
    offset = (0, 0)
    if region is not None and len(region) == 4:
        request, offset = _cut(background_tasks, request, region)
    mask, affine = task.mask(request)
    if affine is not None:
        raise RequestRefused("Outlines are given of pictures and slides, not of volumes.")
    names = task.labels if mask.max() > 1 or len(task.labels) == 1 else {request.get("label") or "object": 1}
    elements = contour_elements(mask, names, offset=offset, smallest=smallest)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    found = {"annotation": {"name": model, "elements": elements, "labels": colours}}
    whole = (*offset, *mask.shape[::-1])
    answer = {
        "name": f"MONAILabel Annotations - {model}",
        "description": task.description,
        "model": model,
        "location": whole[:2],
        "size": whole[2:],
        "annotations": [found],
        "latencies": {},
    }
    if output not in WRITERS:
        return json.loads(json.dumps(answer))
    path, _ = WRITERS[output](answer)
    background_tasks.add_task(remove_file, path)
    return FileResponse(path, media_type=get_mime_type(path), filename=os.path.basename(path))


def _cut(
    background_tasks: BackgroundTasks, request: dict[str, Any], region: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, int]]:
    """The part of the image as a file of its own, with the prompts moved into it."""
    x, y, width, height = region
    if width * height > MAX_PIXELS:
        raise RequestRefused(f"A region may have at most {MAX_PIXELS // 10**6} million pixels.", 413)
    pixels = _pixels(Path(request["image"]), x, y, width, height)
    handle, path = tempfile.mkstemp(suffix=".png")
    os.close(handle)
    background_tasks.add_task(remove_file, path)
    Image.fromarray(pixels).save(path, compress_level=1)
    clicks = {key: request[key] for key in ("foreground", "background") if request.get(key)}
    moved = {key: [[point[0] - x, point[1] - y] for point in points] for key, points in clicks.items()}
    return {**request, **moved, "image": path}, (x, y)


def _pixels(path: Path, x: int, y: int, width: int, height: int) -> np.ndarray:
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
        picture = np.moveaxis(PhotographReader().get_data(path)[0], -1, 0).swapaxes(1, 2)
    else:
        slide = Slide(path)
        bottom, right = min(y + height, slide.size[0]), min(x + width, slide.size[1])
        picture = slide.read(y, x, bottom - y, right - x) if bottom > y and right > x else np.zeros((3, 0, 0))
        x = y = 0
    part = picture[:, y : y + height, x : x + width]
    if not part.size:
        raise RequestRefused("The region lies outside the image.")
    return np.ascontiguousarray(np.round(np.moveaxis(part, 0, -1) * 255).astype(np.uint8))
