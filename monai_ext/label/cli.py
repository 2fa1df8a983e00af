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

"""The command `python -m monai_ext label`: MONAI Label's server on a folder of images, in an environment of its own."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

from monai_ext.label import environment

SERVER = "monai_ext.label.app.server:app"
LOCAL = ("127.0.0.1", "localhost")
SUFFIXES = ("nii.gz", "nii", "nrrd", "jpg", "jpeg", "png", "tif", "tiff", "bmp", "svs", "xml")


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``label`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "label",
        help="annotate in MONAI Label, 3D Slicer, QuPath, CVAT or a browser (makes .venv-label, about 8 GB, once)",
        description="Starts MONAI Label's server with every bundle as a model, and a page to click in. Nothing is "
        "downloaded while it runs.",
    )
    parser.add_argument("--studies", required=True, help="the folder of images, or the address of a DICOMweb server")
    parser.add_argument("--host", default=LOCAL[0], help="address to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("--bundles", default=str(environment.CHECKOUT / "bundles"), help="the folder of the bundles")
    parser.add_argument("--state", help="where tuned adapters and embeddings go (default: STUDIES/.monai_ext)")
    parser.add_argument("--passwords", metavar="FILE", help="lines name:password; needed beyond this machine")
    parser.add_argument("--uploads", action="store_true", help="let clients upload adapters (off by default)")
    parser.add_argument("--memory", type=int, default=1024, help="MB of pictures and embeddings in memory (1024)")
    parser.add_argument("--disk", type=int, default=4096, help="MB of embeddings on disk (4096)")
    parser.add_argument("--max-request", type=int, default=512, metavar="MB", help="largest request (512)")
    parser.set_defaults(run=_label)


def _label(args: argparse.Namespace) -> int:
    settings = server_settings(args)
    if importlib.util.find_spec("monailabel") is None:
        python = environment.make_environment()
        os.execve(python, [str(python), "-m", "monai_ext", *sys.argv[1:]], _paths(dict(os.environ)))
    os.environ.update(_paths(settings))
    import uvicorn

    print(f"Open http://{args.host}:{args.port}/annotate/ (Ctrl+C ends the server)", flush=True)
    # MONAI Label keeps its trainings in one process.
    uvicorn.run(SERVER, host=args.host, port=args.port, log_level="info", access_log=False, timeout_keep_alive=30)
    return 0


def server_settings(args: argparse.Namespace) -> dict[str, str]:
    """
    The environment variables that MONAI Label reads its settings from.

    Raises:
        ValueError: something does not fit; nothing was started.
        FileNotFoundError: a folder is missing.
    """
    remote = args.studies.startswith(("http://", "https://"))
    studies = args.studies if remote else str(Path(args.studies).expanduser().resolve())
    if not remote and not Path(studies).is_dir():
        raise FileNotFoundError(f"{studies} is no folder: give the folder with the images to annotate.")
    if not Path(args.bundles).is_dir():
        raise FileNotFoundError(f"{args.bundles} is no folder: give the folder with the bundles.")
    keycloak = os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true")
    if args.host not in LOCAL and not (args.passwords or keycloak):
        raise ValueError(
            f"--host {args.host} lets others in: give --passwords FILE with lines name:password, or set "
            "MONAI_LABEL_AUTH_ENABLE and MONAI_LABEL_AUTH_REALM_URI to use Keycloak."
        )
    if args.passwords and not Path(args.passwords).is_file():
        raise FileNotFoundError(f"{args.passwords} is not there: write a line name:password for each person into it.")
    state = str(Path(args.state).expanduser().resolve()) if args.state else ""
    state = state or (str(Path("runs/label").resolve()) if remote else str(Path(studies, ".monai_ext")))
    conf = {"bundles": str(Path(args.bundles).resolve()), "state": state}
    conf |= {"memory": str(args.memory), "disk": str(args.disk)}
    patterns = [f"*.{suffix}" for name in SUFFIXES for suffix in (name, name.upper())]
    return {
        "MONAI_LABEL_APP_DIR": str(Path(__file__).with_name("app")),
        "MONAI_LABEL_STUDIES": studies,
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_SERVER_PORT": str(args.port),
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(patterns),
        "MONAI_LABEL_SESSION_PATH": str(Path(state, "sessions")),
        "MONAI_LABEL_AUTH_ENABLE": str(bool(args.passwords or keycloak)).lower(),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_EXT_LABEL_HOSTS": ",".join(LOCAL) if args.host in LOCAL else "*",
        "MONAI_EXT_LABEL_PASSWORDS": str(Path(args.passwords).resolve()) if args.passwords else "",
        "MONAI_EXT_LABEL_UPLOADS": str(args.uploads).lower(),
        "MONAI_EXT_LABEL_MAX_MB": str(args.max_request),
    }


def _paths(environ: dict[str, str]) -> dict[str, str]:
    """The processes of trainings import this very package."""
    before = environ.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(environment.CHECKOUT), before]))}
