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

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import push_to_hf_hub

from monai_ext.share.contents import shared_files
from monai_ext.share.model_card import model_card
from monai_ext.share.pack import require_sound

CARD_ON_HUB = "README.md"


def push_bundle(
    bundle: str | os.PathLike[str], repository: str, *, evaluation: str | os.PathLike[str] | None = None
) -> str:
    """
    Check a bundle and upload it to the Hugging Face hub with its model card, the version as a tag.

    A repository that does not exist is made, private. ``$HF_ENDPOINT`` names another hub than huggingface.co.

    Args:
        bundle: its folder; not changed.
        repository: ``OWNER/NAME``.
        evaluation: a ``summary_<mode>.json`` whose scores the model card shows; None takes the metadata's.

    Returns:
        the repository's address.

    Raises:
        ValueError: the bundle is not in order, or the repository's name is none; nothing was uploaded.
        FileExistsError: the repository has this version; nothing was uploaded.
        ImportError: huggingface_hub is not installed.
        OSError: no access, no connection, or no space for the copy that is uploaded. The hub shows a version only
            when it is whole; the same command can be given again.
    """
    try:
        from huggingface_hub import HfApi, get_token
    except ImportError as error:
        raise ImportError("Publishing needs huggingface_hub: pip install 'monai_ext[share]'.") from error
    bundle = Path(bundle).resolve()
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise ValueError(f"--hf must be OWNER/NAME, not {repository!r}.")
    version = require_sound(bundle)
    card = model_card(bundle, evaluation=evaluation)
    if get_token() is None:
        raise PermissionError("There is no token for the Hugging Face hub: run `hf auth login`, or set HF_TOKEN.")
    with _staged(bundle) as folder, _hub_errors(repository):
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        if any(tag.name == version for tag in api.list_repo_refs(repository).tags):
            raise FileExistsError(
                f"{repository} has version {version} already: raise `version` in metadata.json and say in `changelog` "
                "what changed; nothing was uploaded."
            )
        # MONAI would make a card of docs/README.md alone. Ours goes first: the tag, which comes last, then has all.
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo=CARD_ON_HUB, repo_id=repository)
        push_to_hf_hub(
            repository,
            bundle.name,
            str(folder),
            version=version,
            ignore_patterns=[CARD_ON_HUB],
            delete_patterns=["*/*"],  # files of an earlier version
            commit_message=f"{bundle.name} {version}",
        )
        return f"{api.endpoint}/{repository}"


@contextmanager
def _staged(bundle: Path) -> Iterator[Path]:
    """A copy of what is shared, in a folder of its own: MONAI uploads all it finds, and writes beside it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in shared_files(bundle):
                target = Path(folder, bundle.name, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle / name, target)
        except OSError as error:
            raise OSError(
                f"{bundle} could not be copied to {folder} for uploading ({error.strerror}): free some space, or set "
                "TMPDIR to a folder that has some; nothing was uploaded."
            ) from error
        yield Path(folder)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Failures of the hub in one sentence; its libraries have no class of errors in common."""
    from huggingface_hub.errors import HFValidationError

    again = "Its versions are whole or not there; give the command again"
    try:
        yield
    except FileExistsError:
        raise
    except HFValidationError as error:
        raise ValueError(f"--hf {repository} is no name of a repository: {_line(error)}") from error
    except Exception as error:
        status = _status(error)
        if status in (401, 403):
            raise PermissionError(
                f"The hub refused access to {repository} ({status}): run `hf auth login` with a token that may write "
                "there, or set HF_TOKEN."
            ) from error
        if status in (409, 412):
            raise OSError(f"{repository} was changed by somebody else just now ({status}). {again}.") from error
        if status == 413 or status == 507:
            raise OSError(f"The hub has no room for a file of {repository} ({status}): ask its owner.") from error
        if status is not None:
            raise OSError(f"The hub answered {status} for {repository} ({_line(error)}). {again} later.") from error
        if isinstance(error, OSError) or _is_network(error):
            raise ConnectionError(
                f"The hub could not be reached ({_line(error)}): look at the connection and at HF_ENDPOINT. {again}."
            ) from error
        raise


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of an error, or of what caused it."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if response is not None:
            return response.status_code
        error = error.__cause__
    return None


def _is_network(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            return True
        error = error.__cause__
    return False


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
