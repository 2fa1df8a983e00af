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

import hmac
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import HTTPException
from jwt.algorithms import RSAAlgorithm
from monailabel.config import settings
from monailabel.endpoints.user import auth

HOURS = 12


class PasswordLogin:
    """
    Names and passwords for MONAI Label's own login, without a Keycloak server.

    MONAI Label's clients ask for a name and a password, get a token and send it with every request; which roles a
    request needs, MONAI Label says. Here the tokens are signed by this server, with a key that lives as long as it.

    Args:
        path: a file with a line ``name:password`` for each person; ``admin`` may do everything, others may annotate.

    Raises:
        ValueError: the file holds no such lines, or others may read it.
    """

    def __init__(self, path: Path) -> None:
        self.passwords = read_passwords(path)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        verify = jwt.PyJWK({**public, "alg": "RS256"})
        # MONAI Label asks a realm for its key; and to PyJWT 2 a key that names no algorithm is none.
        auth.get_public_key = lambda realm: verify

    def token(self, name: str, password: str) -> dict[str, str]:
        """What MONAI Label's clients send from now on."""
        expected = self.passwords.get(name, "")
        if not hmac.compare_digest(expected.encode(), password.encode()) or not expected:
            time.sleep(1)  # a second for each guess
            raise HTTPException(401, "The name or the password is wrong.", {"WWW-Authenticate": "Bearer"})
        roles = [settings.MONAI_LABEL_AUTH_ROLE_USER, settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR]
        if name == "admin":
            roles += [settings.MONAI_LABEL_AUTH_ROLE_REVIEWER, settings.MONAI_LABEL_AUTH_ROLE_ADMIN]
        payload: dict[str, Any] = {"exp": int(time.time()) + HOURS * 3600, "realm_access": {"roles": roles}}
        payload |= {settings.MONAI_LABEL_AUTH_TOKEN_USERNAME: name}
        return {"access_token": jwt.encode(payload, self._key, algorithm="RS256"), "token_type": "bearer"}


def accept_keycloak() -> None:
    """Let the key of MONAI Label's realm say its algorithm: PyJWT 2 takes no other, and nobody would get in."""
    fetch = auth.get_public_key

    def key(realm: str) -> jwt.PyJWK:
        public = load_pem_public_key(fetch(realm).encode())
        return jwt.PyJWK({**RSAAlgorithm.to_jwk(public, as_dict=True), "alg": "RS256"})

    auth.get_public_key = key


def read_passwords(path: Path) -> dict[str, str]:
    """The lines ``name:password`` of a file that only its owner may read."""
    if not path.is_file():
        raise ValueError(f"{path} is not there: write a line name:password for each person into it.")
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path} can be read by others: chmod 600 it.")
    lines = [line.strip().partition(":") for line in path.read_text().splitlines() if line.strip()]
    if not lines or any(not name or len(password) < 8 for name, _, password in lines):
        raise ValueError(f"{path} must hold lines name:password, passwords of at least 8 characters.")
    return {name: password for name, _, password in lines}
