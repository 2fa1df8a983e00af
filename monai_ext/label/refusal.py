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


class RequestRefused(ValueError):
    """
    A request that cannot be answered, in one sentence for the person who made it.

    Args:
        sentence: what came, what was expected and what to do.
        status: the HTTP status: 400 bad input, 404 not there, 409 not now, 413 too large, 403 not allowed.

    Example:
        >>> RequestRefused("The image 'a' is not in the study folder.", 404).status
        404
    """

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status
