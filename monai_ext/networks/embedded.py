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

import hashlib
from pathlib import Path
from types import MappingProxyType

# The base weights that come with the package, by name, and the sha256 of their files.
EMBEDDED_WEIGHTS = MappingProxyType({"micro": "818fdff6365e427e1a29d4a835276fc9568ed3c99b3397ae95937a61863df46f"})


def embedded_weights(name: str) -> Path:
    """
    The file of base weights that came with the package, unchanged.

    Args:
        name: a name of ``EMBEDDED_WEIGHTS``.

    Raises:
        FileNotFoundError: the package was installed without it.
        ValueError: the file is not the one that was shipped.

    Example:
        >>> embedded_weights("micro").name
        'sam2_micro.safetensors'
    """
    path = Path(__file__).with_name(f"sam2_{name}.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though it belongs to the package: install monai_ext again.")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != EMBEDDED_WEIGHTS[name]:
        raise ValueError(
            f"{path} is not the file that came with the package (its sha256 begins with {found[:8]}, not "
            f"{EMBEDDED_WEIGHTS[name][:8]}): install monai_ext again, or give weights of your own under another path."
        )
    return path
