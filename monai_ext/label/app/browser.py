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

"""What browsers need beside MONAI Label's own routes: pictures that they can show, and a way to save in OHIF."""

from __future__ import annotations

import io
from pathlib import Path

import monailabel.endpoints
import numpy as np
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from PIL import Image

from monai_ext.data.reader import PhotographReader
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.studies import check_name, inside

SAVE = Path(__file__).parents[1] / "ohif/save.js"

router = APIRouter()


@router.get("/annotate/picture", include_in_schema=False)
def picture(image: str, user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))) -> Response:  # noqa: B008
    """An image as a PNG of 8 bits, upright, as the models see it: browsers show no TIFF."""
    store = app_instance().datastore()
    uri = store.get_image_uri(check_name(image))
    if not uri:
        raise RequestRefused(f"The image {image!r} is not in the study folder.", 404)
    path = inside(uri, store._datastore_path)
    app_instance().shelf.digests.picture(path)  # refuses what is too large before it is decoded
    try:
        pixels, _ = PhotographReader().get_data(path)
    except ValueError as error:
        raise RequestRefused(str(error).replace(str(path), Path(path).name)) from error
    file = io.BytesIO()
    Image.fromarray((pixels.swapaxes(0, 1) * 255).round().astype(np.uint8)).save(file, "PNG", compress_level=1)
    return Response(file.getvalue(), media_type="image/png")


@router.get("/ohif/app-config.js", include_in_schema=False)
def ohif_configuration() -> Response:
    """OHIF's own configuration, and what its panel lacks."""
    theirs = Path(monailabel.endpoints.__file__).parent / "static/ohif/app-config.js"
    return Response(f"{theirs.read_text()}\n{SAVE.read_text()}", media_type="text/javascript")
