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

"""Words for what is outside the allow-list. Nothing is decided by them: what is not named here is shown as well."""

from __future__ import annotations

_PROGRAM = "It starts programs."
_CODE = "It runs text as code."
_NETWORK = "It speaks to other machines."
_PICKLE = "It may run code that a file holds."
_BUNDLE = "It downloads or runs other bundles."
_FILES = "It reads, writes or removes files."

# By the longest beginning.
DANGERS = {
    "os": "It acts on files, processes and the environment.",
    "posix": _PROGRAM,
    "nt": _PROGRAM,
    "pty": _PROGRAM,
    "os.system": _PROGRAM,
    "os.popen": _PROGRAM,
    "os.environ": "It reads the environment, where secrets are kept.",
    "subprocess": _PROGRAM,
    "multiprocessing": _PROGRAM,
    "eval": _CODE,
    "exec": _CODE,
    "compile": _CODE,
    "builtins": _CODE,
    "__import__": "It imports what a text names.",
    "importlib": "It imports what a text names.",
    "runpy": _CODE,
    "code": _CODE,
    "getattr": "It reaches attributes by a text, so nobody sees which.",
    "setattr": "It changes attributes by a text.",
    "globals": "It reaches every name.",
    "vars": "It reaches every name.",
    "locals": "It reaches every name.",
    "open": _FILES,
    "io": _FILES,
    "shutil": _FILES,
    "pathlib": _FILES,
    "tempfile": _FILES,
    "breakpoint": "It stops in a debugger.",
    "pdb": "It stops in a debugger.",
    "ctypes": "It calls machine code.",
    "cffi": "It calls machine code.",
    "socket": _NETWORK,
    "urllib": _NETWORK,
    "http": _NETWORK,
    "requests": _NETWORK,
    "ftplib": _NETWORK,
    "smtplib": _NETWORK,
    "pickle": _PICKLE,
    "dill": _PICKLE,
    "joblib": _PICKLE,
    "marshal": _PICKLE,
    "shelve": _PICKLE,
    "torch.load": _PICKLE,
    "torch.jit.load": _PICKLE,
    "torch.hub": "It downloads code and runs it.",
    "torch.ops.load_library": "It loads machine code.",
    "torch.classes.load_library": "It loads machine code.",
    "torch.utils.cpp_extension": "It compiles and loads machine code.",
    "numpy.load": _PICKLE,
    "numpy.ctypeslib": "It calls machine code.",
    "numpy.fromfile": _FILES,
    "numpy.save": _FILES,
    "monai.bundle": _BUNDLE,
    "monai.apps": "It downloads, unpacks or starts programs.",
    "monai.auto3dseg": "It writes and starts programs.",
    "monai.fl": _BUNDLE,
    "monai.utils": "It may import what a text names.",
    "monai.data": "It reads or writes files, some of them pickles.",
    "monai.networks.utils": "It converts or loads networks.",
    "webbrowser": _PROGRAM,
    "sys": "It changes the interpreter.",
    "gc": "It reaches every object.",
    "inspect": "It reaches every object.",
    "operator": "It reaches attributes by a text.",
    "functools": "It wraps calls.",
}


def danger(path: str) -> str:
    """
    What a name that is not allowed may do.

    Example:
        >>> danger("subprocess.Popen")
        'It starts programs.'
        >>> danger("scripts.net.Net")
        'It is not on the allow-list.'
    """
    parts = path.split(".")
    beginnings = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((DANGERS[name] for name in beginnings if name in DANGERS), "It is not on the allow-list.")
