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
The server: MONAI Label's own application, with our routes before its own and a guard before all of them.

MONAI Label's endpoints stay as they are, and its clients (3D Slicer, QuPath, CVAT, OHIF) know no difference:

- ``GET /info/``: models (``type`` segmentation or deepgrow, ``labels`` by name with numbers), trainers, strategies.
- ``GET /datastore/?output=all``, ``GET /datastore/image?image=ID``, ``GET /datastore/label?label=ID&tag=final``,
  ``PUT /datastore/label?image=ID&tag=final`` with the file ``label`` and, in the field ``params``,
  ``{"label_info": [{"name": ..., "idx": ...}]}``, which says what the mask's numbers mean.
- ``POST /infer/{model}?image=ID&output=image`` with the field ``params``, JSON: ``foreground`` and ``background`` are
  lists of ``[x, y]``, ``roi`` is ``[x0, y0, x1, y1]``, ``label`` a name, ``result_extension`` as ``.png``; x is the
  column and y the row of the upright picture. A model that segments by itself answers with the numbers of ``/info/``,
  one that is clicked with 0 and 1. An earlier mask may come as the file ``label``: the clicks then mend it.
- ``POST /activelearning/{strategy}``; ``POST /train/{model}`` with JSON ``{"max_epochs": ..., "steps_per_epoch":
  ...}``; ``GET /train/`` says how it goes, ``DELETE /train/`` stops it.

Ours:

- ``GET`` and ``DELETE /train/{model}``: the same of one model.
- ``GET /adapters/{model}``: the versions of its adapter and which is in use. ``PUT /adapters/{model}?version=N`` takes
  one into use; 0 is the shipped one.
- ``GET /annotate/``: the page.

What cannot be answered gets a 4xx whose ``detail`` is one sentence.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from monailabel.app import app
from monailabel.config import settings
from monailabel.endpoints import activelearning as their_activelearning
from monailabel.endpoints import session as their_session
from monailabel.endpoints import train as their_train
from monailabel.endpoints.infer import ResultType, send_response
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.endpoints.wsi_infer import ResultType as OutlineType
from monailabel.endpoints.wsi_infer import WSIInput
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import tasks
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from monai_ext.label.app import browser
from monai_ext.label.app.limits import BodyLimit
from monai_ext.label.app.login import PasswordLogin, accept_keycloak
from monai_ext.label.app.outlines import outline_answer
from monai_ext.label.app.tasks import ClickTask
from monai_ext.label.app.uploads import store_adapter, uploaded
from monai_ext.label.mask_files import read_mask
from monai_ext.label.outlines import read_outlines
from monai_ext.label.refusal import RequestRefused
from monai_ext.label.studies import check_name
from monai_ext.label.tuning import read_settings

logger = logging.getLogger(__name__)

# Pictures that fit into memory; a slide and a volume are looked at when they are used.
SHOWN = (".png", ".jpg", ".jpeg", ".bmp")
PAGE = Path(__file__).parents[1] / "page"
UPLOADS = os.environ.get("MONAI_EXT_LABEL_UPLOADS", "") == "true"
LIMIT = int(os.environ.get("MONAI_EXT_LABEL_MAX_MB", "512")) * 1024**2
PASSWORDS = os.environ.get("MONAI_EXT_LABEL_PASSWORDS", "")
HOSTS = os.environ.get("MONAI_EXT_LABEL_HOSTS", "*").split(",")
# What our tasks read from a request; a client may not set the rest, `image` least of all.
PARAMETERS = ("foreground", "background", "roi", "label", "result_extension")

USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))

router = APIRouter(strict_content_type=False)  # QuPath sends JSON without saying so
_training = threading.Lock()


@router.post("/infer/wsi_v2/{model}")
def infer_outlines(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    file: UploadFile = File(None),
    wsi: str = Form("{}"),
    output: OutlineType | None = None,
    user: User = USER,
) -> Any:
    """Outlines of a region, as QuPath asks for them with a picture of its own."""
    path = _image_path(background_tasks, image, session_id, file)
    return _outlines(background_tasks, model, path, WSIInput(**_json(wsi, "wsi")), output)


@router.post("/infer/wsi/{model}")
def infer_outlines_of_image(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    wsi: WSIInput = WSIInput(),
    output: OutlineType | None = None,
    user: User = USER,
) -> Any:
    """Outlines of a region, as QuPath asks for them of an image that the server has."""
    return _outlines(background_tasks, model, _image_path(background_tasks, image, session_id, None), wsi, output)


@router.post("/infer/{model}")
def infer(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),
    label: UploadFile = File(None),
    output: ResultType | None = None,
    user: User = USER,
) -> Any:
    """A mask, by itself or from clicks; MONAI Label's own would hold up all other users while it runs."""
    given = _json(params, "params")
    task = _task(model)
    if output == ResultType.dicom_seg:
        raise RequestRefused("DICOM segmentations are not sent: run the bundle for them, or ask for .nii.gz.")
    path = _image_path(background_tasks, image, session_id, file)
    request = {"image": str(path), **{key: given[key] for key in PARAMETERS if key in given}}
    if label is not None:
        request["earlier"] = str(uploaded(background_tasks, label))
    if given.get("output") in ("json", "asap", "dsa"):  # CVAT's detector asks in its parameters
        return outline_answer(background_tasks, model, task, request, (0, 0), 0.0, None)
    result, answer = task(request)
    if given.get("save_label") is True and image:
        # Before the answer: a client that has its answer may rely on it.
        tag = check_name(str(given.get("label_tag", "original")), "label_tag")
        app_instance().datastore().save_label(image, result, tag, {"model": model, "params": answer})
    return send_response(app_instance().datastore(), {"file": result, "params": answer}, output, background_tasks)


@router.post("/activelearning/{strategy}")
def next_sample(strategy: str, params: dict | None = None, user: User = USER) -> Any:
    """What to label next; looking at pictures takes a while, which MONAI Label's own would let all others wait for."""
    known = app_instance()._strategies
    if strategy not in known:
        raise RequestRefused(f"strategy must be one of {', '.join(known)}, not {strategy!r}.", 404)
    found = their_activelearning.sample(strategy, params, user.username)
    return {**found, "path": os.path.basename(found["path"])} if found.get("path") else found


@router.put("/datastore/")
@router.put("/datastore/image")
def add_image(
    background_tasks: BackgroundTasks,
    image: str | None = None,
    params: str = Form("{}"),
    file: UploadFile = File(...),
    user: User = ANNOTATOR,
) -> Any:
    """A new image, looked at before it is kept."""
    store = app_instance().datastore()
    path = uploaded(background_tasks, file)
    name = check_name(image or Path(file.filename or "").name.removesuffix("".join(path.suffixes)))
    if name in store.list_images():
        raise RequestRefused(f"There is an image {name!r} already: give this one another name.", 409)
    allowed = [pattern.removeprefix("*") for pattern in settings.MONAI_LABEL_DATASTORE_FILE_EXT]
    if not path.name.endswith(tuple(allowed)):
        raise RequestRefused(
            f"An image must be {', '.join(sorted(set(map(str.lower, allowed))))}, not {path.suffix!r}."
        )
    if path.name.lower().endswith(SHOWN):
        app_instance().shelf.digests.picture(path)
    return {"image": store.add_image(name, str(path), {**_json(params, "params"), "user": user.username})}


@router.put("/datastore/label")
def save_label(
    background_tasks: BackgroundTasks,
    image: str,
    params: str = Form("{}"),
    tag: str = "final",
    label: UploadFile = File(...),
    user: User = ANNOTATOR,
) -> Any:
    """A label, looked at before it replaces the one that was there."""
    instance = app_instance()
    given = _json(params, "params")
    path = uploaded(background_tasks, label)
    source = _study_image(image)
    if source.name.lower().endswith(SHOWN):
        size = instance.shelf.digests.picture(source)[1]
        (read_outlines if path.suffix.lower() == ".xml" else read_mask)(path, size)
    saved = instance.datastore().save_label(image, str(path), tag or "final", {**given, "user": user.username})
    return {**(instance.on_save_label(image, saved) or {}), "image": image, "label": saved}


@router.post("/train/")
@router.post("/train/{model}")
def train(
    model: str = "", params: dict | None = None, run_sync: bool = False, enqueue: bool = False, user: User = ADMIN
) -> Any:
    """Tune an adapter in a process of its own."""
    instance = app_instance()
    if model not in instance._trainers:
        raise RequestRefused(f"model must be one of {', '.join(instance._trainers)}, not {model!r}.", 404)
    settings_given = read_settings(params or {})
    count = len(instance.datastore().datalist())
    if count < 2:
        raise RequestRefused(
            f"Training needs labels saved as final for at least two pictures, one to validate on; there are {count}.",
            409,
        )
    with _training:
        if any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks("train")):
            raise RequestRefused(
                "A training is running: wait for its end (GET /train/) or stop it (DELETE /train/).", 409
            )
        instance.shelf.bundles[model].versions.clean()
        return their_train.run_model(model, settings_given, False, False)


@router.get("/train/{model}")
def train_status(model: str, user: User = USER) -> Any:
    """How the last training of a model goes."""
    own = [task for task in tasks("train") if task["request"].get("model") == model]
    if not own:
        raise RequestRefused(f"{model!r} was not trained since the server was started.", 404)
    return own[-1]


@router.delete("/train/{model}")
def train_stop(model: str, user: User = ADMIN) -> Any:
    """Stop the training of a model."""
    if train_status(model)["status"] not in ("SUBMITTED", "RUNNING"):
        raise RequestRefused(f"No training of {model!r} is running.", 409)
    return their_train.stop()


@router.get("/adapters/{model}")
def adapter_versions(model: str, user: User = USER) -> Any:
    """The versions of an adapter."""
    return _bundle(model).versions.describe()


@router.put("/adapters/{model}")
def use_adapter(model: str, version: int, user: User = ADMIN) -> Any:
    """Take a version into use: the way back, too."""
    versions = _bundle(model).versions
    versions.use(version)
    return versions.describe()


@router.put("/model/{model}")
def upload_model(background_tasks: BackgroundTasks, model: str, file: UploadFile, user: User = ADMIN) -> Any:
    """A trained part from elsewhere; off unless the server was started with --uploads."""
    if not UPLOADS:
        raise RequestRefused("Models cannot be uploaded here: the server was started without --uploads.", 403)
    return store_adapter(_bundle(model), uploaded(background_tasks, file))


@router.delete("/model/{model}")
def delete_model(model: str, user: User = ADMIN) -> Any:
    """MONAI Label's way to delete a model's file."""
    raise RequestRefused("Models are not deleted: take another version into use (PUT /adapters/MODEL?version=N).", 403)


@router.post("/reload", include_in_schema=False)
def reload() -> Any:
    """MONAI Label's way to build the application anew, which anybody could call."""
    raise RequestRefused("Restart the server to reload it.", 403)


@router.put("/session/")
def create_session(
    background_tasks: BackgroundTasks,
    uncompress: bool = False,
    expiry: int = 0,
    files: list[UploadFile] = File(...),
    user: User = USER,
) -> Any:
    """An image for this session only, as 3D Slicer sends what is not on the server; archives are not unpacked."""
    if uncompress:
        raise RequestRefused("Archives are not unpacked: send the files themselves.")
    return their_session.create_session(background_tasks, False, min(expiry, 24 * 3600), files)


@router.get("/annotate", include_in_schema=False)
def annotate() -> Response:
    """The page has its files beside it."""
    return RedirectResponse("/annotate/")


def _task(model: str) -> Any:
    models = app_instance()._infers
    if model not in models:
        raise RequestRefused(f"model must be one of {', '.join(models)}, not {model!r}.", 404)
    return models[model]


def _bundle(model: str) -> Any:
    bundles = app_instance().shelf.bundles
    if model not in bundles:
        raise RequestRefused(f"model must be one of {', '.join(bundles)}, not {model!r}.", 404)
    return bundles[model]


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"{name} must be JSON: {error}.") from error
    if not isinstance(value, dict):
        raise RequestRefused(f"{name} must be a JSON object, not {type(value).__name__}.")
    return value


def _image_path(background_tasks: BackgroundTasks, image: str, session_id: str, file: UploadFile | None) -> Path:
    """Where the image of a request lies: sent with it, of a session, or in the study folder; nowhere else."""
    if file is not None and file.filename:
        return uploaded(background_tasks, file)
    if session_id:
        session = app_instance().sessions().get_session(check_name(session_id, "session_id"))
        if session is None:
            raise RequestRefused("The session is over: send the image again.", 404)
        return Path(session.image)
    if not image:
        raise RequestRefused("image must name an image of the study folder, or an image must be sent as file.")
    return _study_image(image)


def _study_image(image: str) -> Path:
    store = app_instance().datastore()
    uri = store.get_image_uri(check_name(image))
    if not uri:
        raise RequestRefused(
            f"The image {image!r} is not in the study folder: GET /datastore/?output=all lists them.", 404
        )
    return Path(uri)


def _outlines(
    background_tasks: BackgroundTasks, model: str, path: Path, wsi: WSIInput, output: OutlineType | None
) -> Any:
    task = _task(model)
    params = wsi.params or {}
    request = {"image": str(path), **{key: params[key] for key in PARAMETERS if key in params}}
    location, size = wsi.location or (0, 0), wsi.size or (0, 0)
    if len(location) != 2 or len(size) != 2 or min(*location, *size) < 0:
        raise RequestRefused("location and size must be two whole numbers each, not negative.")
    region = (*location, *size) if min(size) > 0 else None
    if isinstance(task, ClickTask):
        region = None if path.suffix.lower() in (".png", ".jpg", ".jpeg") else region
    kind = (output or OutlineType.dsa).value
    return outline_answer(background_tasks, model, task, request, region, float(wsi.min_poly_area or 0), kind)


async def _guard(request: Request, call_next: Any) -> Response:
    """Names that lead nowhere else, before any of MONAI Label's own endpoints sees them."""
    try:
        query, origin = request.query_params, request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            raise RequestRefused("Pages of other sites may not use this server: open its own page, /annotate/.", 403)
        for key in ("image", "id", "label", "tag", "session_id", "logfile"):
            if value := query.get(key):
                check_name(value, key)
        if request.url.path.startswith("/proxy/") and not settings.MONAI_LABEL_STUDIES.startswith("http"):
            raise RequestRefused("There is no DICOMweb server behind this one.", 404)
        if request.url.path.startswith("/datastore/image") and request.method in ("GET", "HEAD") and query.get("image"):
            _study_image(query["image"])
        if request.url.path == "/datastore/label" and request.method in ("GET", "DELETE"):
            name, tag = query.get("label") or query.get("id") or "", query.get("tag") or "final"
            if not app_instance().datastore().get_label_uri(name, tag):
                raise RequestRefused(f"There is no label {name!r} saved as {tag!r}.", 404)
    except RequestRefused as error:
        return _refused(request, error)
    return await call_next(request)


def _refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, getattr(error, "status", 400))


def _unsaved(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s", request.url.path, error)
    reason = getattr(error, "strerror", None) or type(error).__name__
    return JSONResponse({"detail": f"The server could not write or read a file ({reason}); nothing was changed."}, 507)


def _theirs(request: Request, error: Exception) -> JSONResponse:
    sentence = str(getattr(error, "msg", error))
    return JSONResponse({"detail": sentence}, 404 if "not found" in sentence or "is not in" in sentence else 400)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    problems: list[dict[str, Any]] = getattr(error, "errors", list)()
    places = "; ".join(f"{'.'.join(map(str, p['loc'][1:]))}: {p['msg']}" for p in problems[:3])
    return JSONResponse({"detail": f"The request does not fit {request.url.path}: {places}."}, 422)


def _assemble() -> None:
    """Our routes first, so that they answer where MONAI Label has one of the same name."""
    theirs = list(app.router.routes)
    app.include_router(router)
    app.include_router(browser.router)
    if PASSWORDS:
        login = PasswordLogin(Path(PASSWORDS))

        @app.post("/auth/token")
        def token(username: str = Form(), password: str = Form()) -> dict[str, str]:
            return login.token(username, password)

    elif settings.MONAI_LABEL_AUTH_ENABLE:
        accept_keycloak()
    if PAGE.is_dir():
        app.mount("/annotate", StaticFiles(directory=PAGE, html=True), name="annotate")
    ours = [route for route in app.router.routes if route not in theirs]
    app.router.routes[:] = ours + theirs
    # MONAI Label lets the scripts of every web site read its answers, and its trainings fail with a list of sites.
    app.user_middleware[:] = [each for each in app.user_middleware if each.cls is not CORSMiddleware]
    app.middleware("http")(_guard)
    app.add_middleware(BodyLimit, limit=LIMIT)
    # A name of another site that leads to this machine would get its scripts past the browser.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(MONAILabelException, _theirs)
    app.add_exception_handler(OSError, _unsaved)
    app.add_exception_handler(RequestValidationError, _invalid)


_assemble()
