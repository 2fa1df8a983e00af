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

import difflib
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from monai_ext.networks.embedded import EMBEDDED_WEIGHTS, embedded_weights

__all__ = [
    "OFFICIAL_WEIGHTS",
    "OfficialWeights",
    "WeightsMismatchError",
    "check_size",
    "find_weights",
    "load_base",
    "read_state_dict",
]

FOLDER_VARIABLE = "MONAI_EXT_WEIGHTS"
SHOWN_KEYS = 12
PATCH_EMBED = "image_encoder.trunk.patch_embed.proj.weight"
BLOCK = re.compile(r"image_encoder\.trunk\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class OfficialWeights:
    """One published SAM 2.1 checkpoint: its sha256, its size in words and, where published, in bytes."""

    sha256: str
    size: str
    bytes: int | None = None


OFFICIAL_WEIGHTS = MappingProxyType(
    {
        "sam2.1_hiera_tiny": OfficialWeights(
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", "156 MB", 156_008_466
        ),
        "sam2.1_hiera_small": OfficialWeights(
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", "about 184 MB"
        ),
        "sam2.1_hiera_base_plus": OfficialWeights(
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", "about 324 MB"
        ),
        "sam2.1_hiera_large": OfficialWeights(
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", "898 MB", 898_083_611
        ),
    }
)


class WeightsMismatchError(ValueError):
    """
    The weights in a file are not those of the network.

    The message shows the first keys; the attributes ``missing`` (in the network only), ``unexpected`` (in the file
    only) and ``misshapen`` (with both shapes) hold all of them.
    """

    def __init__(self, path: Path, missing: list[str], unexpected: list[str], misshapen: list[str], hint: str) -> None:
        self.missing, self.unexpected, self.misshapen = missing, unexpected, misshapen
        groups = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        parts = "; ".join(_some(name, keys) for name, keys in groups.items() if keys)
        super().__init__(f"{path} does not fit the network: {parts}. {hint}")


def weights_folder() -> Path:
    """The folder that downloads go to: ``$MONAI_EXT_WEIGHTS`` if set, else the user's cache."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder).expanduser()
    return _cache_folder()


def official_weights(name: str) -> OfficialWeights:
    """The table's row for ``name``; a ValueError with all names and near ones if there is none."""
    if name in OFFICIAL_WEIGHTS:
        return OFFICIAL_WEIGHTS[name]
    known = [*EMBEDDED_WEIGHTS, *OFFICIAL_WEIGHTS]
    near = difflib.get_close_matches(name, known, n=1) or [other for other in known if name in other]
    suggestion = f" Did you mean '{near[0]}'?" if near and name else ""
    raise ValueError(f"weights must be a path or one of {', '.join(known)}, not '{name}'.{suggestion}")


def check_size(size: str, weights: str | os.PathLike[str] | None) -> None:
    """
    Refuse named weights that are of another size than the network, before any file is opened.

    Args:
        size: a size of the network, such as ``tiny``.
        weights: a name of ``EMBEDDED_WEIGHTS`` or ``OFFICIAL_WEIGHTS``; paths and None pass.

    Raises:
        ValueError: both do not belong together; names the weights of this size.

    Example:
        >>> check_size("tiny", "sam2.1_hiera_tiny")
        >>> check_size("tiny", "micro")
        Traceback (most recent call last):
        ...
        ValueError: weights must be 'sam2.1_hiera_tiny' for size 'tiny', not 'micro', which belong to size 'micro'.
    """
    sizes = {name.removeprefix("sam2.1_hiera_"): name for name in (*EMBEDDED_WEIGHTS, *OFFICIAL_WEIGHTS)}
    for own, name in sizes.items():
        if weights == name and size in sizes and size != own:
            raise ValueError(
                f"weights must be '{sizes[size]}' for size '{size}', not '{name}', which belong to size '{own}'."
            )


def find_weights(weights: str | os.PathLike[str], *, bundle_root: str | os.PathLike[str] | None = None) -> Path:
    """
    Find the file of base weights on this machine; nothing is ever downloaded.

    A path is used as it is. ``micro`` is the base that comes with the package. An official name is looked up as
    ``NAME.pt`` in the bundle's ``models/base``, then in the folder ``$MONAI_EXT_WEIGHTS``, then in the user's cache
    (``~/.cache/monai_ext``, or below ``$XDG_CACHE_HOME``).

    Args:
        weights: a path, or a name of ``EMBEDDED_WEIGHTS`` or ``OFFICIAL_WEIGHTS``.
        bundle_root: folder of the bundle; None takes the working directory.

    Raises:
        FileNotFoundError: there is no such file; for an official name the message says how to get it.
        ValueError: neither a path nor a known name; or the embedded file is not the one that was shipped.

    Example:
        >>> import tempfile
        >>> bundle = Path(tempfile.mkdtemp())
        >>> (bundle / "models" / "base").mkdir(parents=True)
        >>> (bundle / "models" / "base" / "sam2.1_hiera_tiny.pt").touch()
        >>> find_weights("sam2.1_hiera_tiny", bundle_root=bundle).relative_to(bundle).as_posix()
        'models/base/sam2.1_hiera_tiny.pt'
    """
    if weights in EMBEDDED_WEIGHTS:
        return embedded_weights(str(weights))
    if weights not in OFFICIAL_WEIGHTS:
        return _existing_file(weights)
    folders = list(dict.fromkeys([Path(bundle_root or ".") / "models" / "base", weights_folder(), _cache_folder()]))
    for folder in folders:
        if (path := folder / f"{weights}.pt").is_file():
            return path
    raise FileNotFoundError(
        f"The base weights '{weights}' ({OFFICIAL_WEIGHTS[str(weights)].size}) are in none of "
        f"{', '.join(map(str, folders))}: run `python -m monai_ext weights {weights}` to download them, "
        f"or copy {weights}.pt into one of these folders."
    )


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """
    Read tensors by name from a checkpoint, on the CPU, without ever running code from the file.

    Args:
        path: a PyTorch file in SAM 2's official format ``{"model": state_dict}`` or holding a bare dict of tensors,
            or a ``.safetensors`` file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is empty, damaged, holds Python objects, or is no dict of tensors; the message names the file.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "base.pt"
        >>> torch.save({"model": {"weight": torch.ones(2)}}, file)
        >>> read_state_dict(file)
        {'weight': tensor([1., 1.])}
    """
    path = _existing_file(Path(path))
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy or download it again.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"{path} must hold a dict of tensors, not {content if content == {} else type(content).__name__}."
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path} must hold tensors by name, not a {type(value).__name__} under {key!r}.")
    return content


def load_base(module: nn.Module, path: str | os.PathLike[str], *, ignore: tuple[str, ...] = ()) -> None:
    """
    Load base weights strictly: every key and shape is checked before the first number is copied.

    Args:
        module: the network; it stays as it was if anything is wrong.
        path: a file that ``read_state_dict`` reads; numbers are cast to the network's precision.
        ignore: prefixes of keys to set aside, in the file and in the network.

    Raises:
        OSError: the file cannot be opened.
        WeightsMismatchError: keys are missing, unexpected or misshapen.
        ValueError: the file cannot be read, or holds NaN or infinite values.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "base.pt"
        >>> torch.save({"model": {"weight": torch.ones(1, 2), "memory.bias": torch.ones(3)}}, file)
        >>> network = nn.Linear(2, 1, bias=False)
        >>> load_base(network, file, ignore=("memory.",))
        >>> network.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    given = {key: value for key, value in read_state_dict(path).items() if not key.startswith(ignore)}
    wanted = {key: value for key, value in module.state_dict().items() if not key.startswith(ignore)}
    _check_keys(path, given, wanted)
    # Cast before looking for infinities: a large float32 number may become one in half precision.
    cast = {key: given[key].to(value.dtype) for key, value in wanted.items()}
    if broken := [key for key, value in cast.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"{path} holds NaN or infinite values: {_some('bad', broken)}. Copy or download it again.")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(cast[key])


def _check_keys(path: Path, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    misshapen = [
        f"{key} {_form(given[key])} for {_form(value)}"
        for key, value in wanted.items()
        if key in given and _form(given[key]) != _form(value)
    ]
    if missing or unexpected or misshapen:
        raise WeightsMismatchError(path, missing, unexpected, misshapen, _size_hint(given, wanted))


def _size_hint(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    (width, blocks), (own_width, own_blocks) = _trunk(given), _trunk(wanted)
    if not blocks or (width, blocks) == (own_width, own_blocks):
        return "Give the weights of this very network, or none."
    return (
        f"They are weights of another size (a trunk of {blocks} blocks that starts with {width} channels, while the "
        f"network has {own_blocks} blocks and {own_width} channels): choose size and weights that belong together."
    )


def _form(value: Tensor) -> str:
    # Quantised whole numbers would be cast without a word, and make no sense as weights.
    return f"{tuple(value.shape)}{'' if value.is_floating_point() else f' {value.dtype}'}"


def _trunk(state: dict[str, Tensor]) -> tuple[int, int]:
    width = state[PATCH_EMBED].shape[0] if PATCH_EMBED in state and state[PATCH_EMBED].ndim else 0
    return width, len({match[1] for key in state if (match := BLOCK.match(key))})


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own text advises weights_only=False, which would run whatever the file holds.
        if found := re.search(r"(?:GLOBAL|global:?) ([\w.]+\.\w+)", str(error)):
            reason = f"it holds the Python object {found[1]}, and only tensors are read, since objects may run code"
            raise ValueError(f"{path} is refused: {reason}. Save its state dict instead.") from error
        raise _damaged(path, error) from error
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except PermissionError:
        raise
    except Exception as error:  # SafetensorError is an Exception directly
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or no weights file ({type(error).__name__}): copy or download it again.")


def _existing_file(weights: str | os.PathLike[str]) -> Path:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise FileNotFoundError(f"The weights must be a file, not the folder {path}.")
    if isinstance(weights, str) and len(path.parts) < 2 and path.suffix not in (".pt", ".pth", ".safetensors"):
        official_weights(weights)
    raise FileNotFoundError(f"The weights file {path} does not exist: check the path.")


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monai_ext"


def _some(name: str, keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"{len(keys)} {name} ({', '.join(keys[:SHOWN_KEYS])}{more})"
