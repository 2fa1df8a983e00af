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

"""Bundles as an attacker would make them, one trick each, beside a plain bundle with none."""

from __future__ import annotations

import io
import json
import marshal
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

CANARY = "canary_of_the_inspection"
TOUCH = f"touch {CANARY}"
Maker = Callable[[Path], None]


class Trick(NamedTuple):
    """How a hostile bundle is made, and what the inspection must say of it."""

    name: str
    make: Maker
    level: str
    word: str


class Payload:
    """Makes the canary where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (TOUCH,)


def write_plain(folder: Path) -> Path:
    """A bundle with nothing to look at."""
    train = {
        "imports": ["$import torch"],
        "dataset_dir": "/workspace/data/plain",
        "output_dir": "$@bundle_root + '/eval'",
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "net": {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": [4, 8]},
        "run": ["$@trainer.run()"],
    }
    write(folder / "configs/train.json", json.dumps(train))
    write(folder / "configs/metadata.json", json.dumps({"schema": "https://project-monai.github.io/schema.json"}))
    write(folder / "LICENSE", "Apache License")
    write(folder / "docs/README.md", "# Plain")
    (folder / "models").mkdir()
    torch.save({"weight": torch.zeros(3)}, folder / "models/model.pt")
    return folder


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def file(name: str, content: str | bytes | Callable[[], bytes]) -> Maker:
    return lambda folder: write(folder / name, content() if callable(content) else content)


def config(**entries: Any) -> Maker:
    return file("configs/evil.json", json.dumps(entries))


def expression(text: str) -> Maker:
    return config(f="x", evil=f"${text}")


def target(name: Any, **arguments: Any) -> Maker:
    return config(evil={"_target_": name, **arguments})


def large(**entry: str) -> Maker:
    lines = "\n".join(f"    {key}: '{value}'" for key, value in entry.items())
    return file("large_files.yml", "large_files:\n  -\n" + lines)


def saved(content: object, **options: Any) -> Callable[[], bytes]:
    def save() -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, **options)
        return buffer.getvalue()

    return save


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def script(**files: str) -> Callable[[], bytes]:
    def save() -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), buffer, _extra_files=dict(files))
        return buffer.getvalue()

    return save


def link(name: str, to: str) -> Maker:
    def make(folder: Path) -> None:
        (folder / name).symlink_to(to)

    return make


def linked_member() -> bytes:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    return zipped((info, b"/etc/passwd"))


def exchanged_names() -> bytes:
    """Two harmless names on top of two others, and taken away before they are used."""
    names = ("os", "system", "collections", "OrderedDict")
    pushed = b"".join(b"\x8c" + bytes([len(name)]) + name.encode() for name in names)
    return b"\x80\x04" + pushed + b"00\x93\x8c\x02ls\x85R."


def exchanged_memory() -> bytes:
    """A harmless name in the memo that is exchanged for one that was just computed."""
    return b"\x80\x04\x8c\x0bcollections\x94\x8c\x06system\x94)q\x00h\x00h\x01\x93."


def protocol_zero() -> bytes:
    return f"cos\nsystem\n(S'{TOUCH}'\ntR.".encode()


def broken_pickle() -> bytes:
    return protocol_zero()[:-1] + b"\xff\xff"


def short_circuit(depth: int) -> str:
    return "[" * depth + "]" * depth


TARGETS = {
    "os.system": "starts programs",
    "subprocess.Popen": "starts programs",
    "builtins.eval": "runs text",
    "builtins.exec": "runs text",
    "eval": "runs text",
    "open": "files",
    "torch.load": "run code",
    "torch.hub.load": "downloads code",
    "torch.os.system": "allow-list",
    "monai.bundle.run": "bundles",
    "monai.bundle.ConfigParser": "bundles",
    "monai.apps.download_and_extract": "downloads",
    "download_and_extract": "downloads",
    "monai.utils.optional_import": "import",
    "monai.utils.module.importlib.import_module": "import",
    "monai.transforms.utils_create_transform_ims.download_and_extract": "allow-list",
    "monai.data.PersistentDataset": "pickles",
    "monai.transforms.TorchVision": "by its name",
    "MLFlowHandler": "server",
    "PerceptualLoss": "torch.hub",
    "MedicalNetPerceptualSimilarity": "allow-list",
    "monai.networks.blocks.text_embedding.TextEncoder": "allow-list",
    "numpy.load": "run code",
    "pickle.loads": "run code",
    "ctypes.CDLL": "machine code",
    "socket.create_connection": "machines",
    "urllib.request.urlopen": "machines",
    "shutil.rmtree": "files",
    "scripts.evil.Net": "allow-list",
    "evil": "allow-list",
    "os..system": "decided elsewhere",
    "$__import__('os').system": "decided elsewhere",
    "$'os.' + 'system'": "decided elsewhere",
    "@name": "decided elsewhere",
    "%other.json#name": "decided elsewhere",
    "monai.transforms.Compose.__init__": "allow-list",
}
EXPRESSIONS = {
    f"__import__('os').system('{TOUCH}')": "imports what a text",
    f"getattr(__import__('o' + 's'), 'sys' + 'tem')('{TOUCH}')": "text",
    "().__class__.__base__.__subclasses__()": "underscores",
    "torch.hub.load('evil/repo', 'net')": "downloads code",
    "torch.serialization.os.system('ls')": "allow-list",
    "torch": "whole module",
    "[torch, 1]": "whole module",
    "torch.load('models/model.pt', weights_only=False)": "run code",
    "np.load('a.npy', allow_pickle=True)": "run code",
    "monai.bundle.run(config_file='a.json')": "bundles",
    "monai.transforms.LoadImage('os.system')": "name of a class",
    "monai.transforms.LoadImage": "name of a class",
    "[c('ls') for c in [eval]]": "loop",
    "[x for x in range(3)]": "loop",
    "{k: v for k, v in @a.items()}": "loop",
    "lambda x: open(x)": "calls",
    "(lambda f: f('ls'))(eval)": "another expression",
    "f'{open(1)}'": "text",
    "'@f {__import__(1)}'": "text",
    "'{0.__class__}'.format(1)": "allow-list",
    "''.join(['o', 's'])": "allow-list",
    "(y := eval)('1')": "another meaning",
    "__builtins__['eval']('1')": "allow-list",
    "__local_refs": "allow-list",
    "exit()": "allow-list",
    "breakpoint()": "debugger",
    "\uff45\uff56\uff41\uff4c('1')": "runs text",
    "9 ** 9 ** 9 ** 9": "memory",
    "dict(**@x)": "not written here",
    "monai.networks.nets.DenseNet121(2, 1, 1, pretrained=True)": "loads weights",
    "@a[0]('ls')": "another expression",
    "@net.tofile('x')": "allow-list",
    "os.environ['SECRET']": "secrets",
    "'https://evil.example/x'": "address",
    "'/etc/passwd'": "absolute",
    "@bundle_root + '/../../x'": "leaves",
    "1 +": "cannot be parsed",
    "await x": "allow-list",
    "print(\0)": "cannot be parsed",
    "(" * 900 + ")" * 900: "cannot be parsed",
    "-" * 1900 + "1": "cannot be parsed",
    "[" + "1," * 2000 + "]": "length",
    "import torch; import os": "more than one",
    "import os, torch": "more than one",
    "import torch as len": "another meaning",
    "import numpy as torch": "another meaning",
    "import math as __builtins__": "another meaning",
    "import scripts.evil": "allow-list",
    "from scripts.evil import Net": "allow-list",
    "from . import evil": "allow-list",
    "from torch import load": "run code",
    "from os import system": "starts programs",
    "import subprocess as sp": "starts programs",
}
CONFIGS: dict[str, tuple[Maker, str]] = {
    "target by a path in a key": (config(**{"net#_target_": "os.system"}), "starts programs"),
    "target in a merged key": (config(**{"+net": {"_target_": "os.system"}}), "starts programs"),
    "target that is disabled": (config(evil={"_target_": "os.system", "_disabled_": True}), "starts programs"),
    "requirement": (config(evil={"_target_": "UNet", "_requires_": ["$eval('1')"]}), "runs text"),
    "disabled by an expression": (config(evil={"_target_": "UNet", "_disabled_": "$eval('1')"}), "runs text"),
    "debugger": (config(evil={"_target_": "UNet", "_mode_": "debug"}), "debugger"),
    "breakpoint": (config(evil={"_target_": "UNet", "_debug_": True}), "debugger"),
    "class handed on": (config(evil={"_target_": "LoadImage", "_mode_": "callable"}), "handed on"),
    "reader": (target("LoadImaged", keys="image", reader="scripts.evil.Reader"), "name of a class"),
    "one of several readers": (target("LoadImaged", keys="image", reader=["a", "os.system"]), "name of a class"),
    "reader by a path in a key": (config(**{"net#reader": "os.system"}), "name of a class"),
    "reader elsewhere": (target("LoadImaged", keys="image", reader="@name"), "name of a class"),
    "writer": (target("SaveImaged", keys="image", writer="os.system"), "name of a class"),
    "weights from elsewhere": (target("DenseNet121", pretrained=True), "downloaded or loaded"),
    "reference to a module": (config(imports=["$import os"], evil="$@imports#0.system('ls')"), "module"),
    "two meanings": (config(imports=["$import torch as x", "$import os as x"]), "something else"),
    "code in a key": (config(**{"a') + eval('1": {"b": "$@#c"}}), "become code"),
    "reference out of range": (config(evil="@###########x"), "outside"),
    "macro": (config(evil="%../../other.json#net"), "another file"),
    "home folder": (config(output_dir="~/.ssh"), "home folder"),
    "absolute path": (config(output_dir="/etc/cron.d"), "absolute"),
    "path that leaves": (config(output_dir="out/../../x"), "leaves"),
    "path behind the data": (config(dataset_dir="/workspace/data/../../etc"), "leaves"),
    "address": (config(tracking_uri="https://evil.example"), "address"),
    "shape": (
        file("configs/metadata.json", json.dumps({"a": {"spatial_shape": ["__import__('os').system('ls')"]}})),
        "formula",
    ),
    "import in the metadata": (file("configs/metadata.json", json.dumps({"a": "$import evil"})), "allow-list"),
    "key twice": (file("configs/a.json", '{"a": 1, "a": {"_target_": "os.system"}}'), "comes twice"),
    "not JSON": (file("configs/a.json", '{"a": '), "cannot be read"),
    "UTF-16": (file("configs/a.json", '{"a": 1}'.encode("utf-16")), "not known"),
    "byte order mark": (file("configs/a.json", b"\xef\xbb\xbf{}"), "not known"),
    "nested deep": (file("configs/a.json", short_circuit(500)), "deeper"),
    "nested without end": (file("configs/a.json", short_circuit(200_000)), "cannot be read"),
    "long number": (file("configs/a.json", "1" * 10_000), "cannot be read"),
    "long key": (file("configs/a.json", json.dumps({"a" * 100_000: 1})), "longer than"),
    "long reference": (config(evil="%" + "a.json" * 50_000), "length"),
    "large": (file("configs/a.json", b" " * 9_000_000), "too large"),
    "YAML target": (file("configs/a.yaml", "net:\n  _target_: os.system\n"), "starts programs"),
    "YAML in capitals": (file("more/a.YML", "net: $eval('1')"), "runs text"),
    "YAML object": (file("configs/a.yaml", f"a: !!python/object/apply:os.system ['{TOUCH}']"), "makes an object"),
    "YAML alias": (file("configs/a.yaml", "a: &a [1, 2]\nb: *a"), "alias"),
    "YAML laughs": (
        file("configs/a.yaml", "a0: &a0 [x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]" for n in range(60))),
        "alias",
    ),
    "YAML nested without end": (file("configs/a.yaml", short_circuit(90_000)), "deeper"),
    "YAML of two": (file("configs/a.yaml", "a: 1\n---\nb: 2"), "cannot be read"),
    "large file over http": (large(path="models/a.pt", url="http://dl.fbaipublicfiles.com/a"), "Without https"),
    "large file of another host": (large(path="models/a.pt", url="https://evil.example/a"), "evil.example"),
    "large file by a name before the host": (
        large(path="models/a.pt", url="https://dl.fbaipublicfiles.com@evil.example/a"),
        "evil.example",
    ),
    "large file without hash": (large(path="models/a.pt", url="https://dl.fbaipublicfiles.com/a"), "Without a hash"),
    "large file with MD5": (
        large(path="models/a.pt", url="https://dl.fbaipublicfiles.com/a", hash_val="0" * 32, hash_type="md5"),
        "forged",
    ),
    "expression in large_files.yml": (file("large_files.yml", "large_files: []\na: $eval('1')"), "runs text"),
    "large config": (large(path="configs/train.json", url="https://dl.fbaipublicfiles.com/a"), "Only models/"),
    "Python": (file("scripts/__init__.py", f"import os\nos.system('{TOUCH}')"), "starts programs"),
    "Python under another name": (file("scripts/a.py", "from os import system as s\ns('ls')"), "starts programs"),
    "Python that is none": (file("scripts/a.py", "def ("), "cannot be parsed"),
    "empty Python": (file("scripts/__init__.py", ""), "imports it"),
    "log to another machine": (
        file("configs/logging.conf", "[handler_a]\nclass=logging.handlers.SocketHandler\nargs=('evil.example', 1)"),
        "another machine",
    ),
    "log to a file": (file("configs/logging.conf", "[handler_a]\nclass=FileHandler\nargs=('a',)"), "writes to a file"),
    "log without a section": (file("configs/logging.conf", "class=os.system"), "broken"),
    "pickle": (file("data.pkl", pickle.dumps([1, 2], 2)), "trust"),
    "TorchScript": (file("models/model.ts", script()), "code of its own"),
    "config in TorchScript": (file("models/model.ts", script(**{"train.json": '{"a": "$eval(1)"}'})), "runs text"),
    "archive": (file("docs/a.zip", zipped(("a.md", b"#"))), "what for"),
    "archive of another kind": (file("docs/a.txt", b"\x1f\x8b\x08" + bytes(20)), "looked into"),
    "program": (file("run.sh", "#!/bin/sh\nls"), "can be run"),
    "packages": (file("requirements.txt", "evil"), "Installing"),
    "unknown file": (file("models/a.engine", b"\1\2\3"), "looked at"),
    "text that is none": (file("docs/a.md", b"\0\1\2"), "not known"),
    "picture that is none": (file("docs/a.png", b"<svg onload='x'>"), "looked at"),
    "safetensors that is none": (file("models/a.safetensors", struct.pack("<Q", 2**60)), "looked at"),
    "array that is none": (file("a.npy", b"\x93NUMPY\x01\x00\xff\xff{"), "header"),
    "link inside": (link("models/other.pt", "model.pt"), "target"),
}
REFUSALS: dict[str, tuple[Maker, str]] = {
    "weights that run code": (file("models/model.pt", saved({"a": Payload()})), "posix.system"),
    "old weights that run code": (
        file("models/model.pt", saved({"a": Payload()}, _use_new_zipfile_serialization=False)),
        "posix.system",
    ),
    "weights of a class": (file("models/model.pt", saved(torch.nn.ReLU())), "torch.nn.modules.activation.ReLU"),
    "weights with numbers of numpy": (file("models/model.pt", saved({"a": np.float64(1)})), "numpy"),
    "weights that were pickled": (file("models/model.pt", pickle.dumps(Payload())), "posix.system"),
    "weights of a new protocol": (file("models/model.pt", pickle.dumps({"a": 1}, 4)), "weights_only"),
    "weights as text": (file("models/model.pth", protocol_zero()), "os.system"),
    "weights that break": (file("models/model.pth", broken_pickle()), "os.system"),
    "empty weights": (file("models/model.pt", b""), "breaks"),
    "second pickle in weights": (
        file("models/model.pt", zipped(("a/data.pkl", b"\x80\x02N."), ("b/data.pkl", protocol_zero()))),
        "os.system",
    ),
    "hidden pickle in weights": (
        file("models/model.pt", zipped(("a/data.pkl", b"\x80\x02N."), ("a/more/x.pkl", protocol_zero()))),
        "os.system",
    ),
    "weights cut short": (file("models/model.pt", zipped(("a/data.pkl", protocol_zero()))[:-30]), "look into"),
    "pickle and archive": (file("models/model.pt", protocol_zero() + zipped(("a/data.pkl", b"\x80\x02N."))), "behind"),
    "archive and archive": (file("docs/a.zip", zipped(("a", b"1")) + zipped(("b", b"2"))), "bytes before"),
    "pickle": (file("data.pkl", pickle.dumps(Payload())), "posix.system"),
    "pickle without ending": (file("models/model", pickle.dumps(Payload())), "posix.system"),
    "pickle with exchanged names": (file("a.pkl", exchanged_names()), "decided while it loads"),
    "pickle with an exchanged memory": (file("a.pkl", exchanged_memory()), "decided while it loads"),
    "pickle behind a pickle": (file("a.pkl", pickle.dumps(1) + pickle.dumps(Payload())), "posix.system"),
    "pickle of a length that is none": (file("a.pkl", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f"), "breaks"),
    "pickle by the registry": (file("a.pkl", b"\x80\x02\x82\x01."), "decided while it loads"),
    "pickle of an instance": (file("a.pkl", b"(S'ls'\nios\nsystem\n."), "os.system"),
    "array of objects": (file("a.npy", objects), "posix.system"),
    "array that is a pickle": (file("a.npy", protocol_zero()), "os.system"),
    "arrays of objects": (file("a.npz", lambda: zipped(("a.npy", objects()))), "posix.system"),
    "log that runs code": (file("configs/logging.conf", "[handler_a]\nclass=eval\nargs=('1',)"), "as code"),
    "log with a class of its own": (file("configs/logging.conf", "[formatter_a]\nclass=evil.Formatter"), "as code"),
    "log with calls": (
        file("configs/logging.conf", f"[handler_a]\nclass=StreamHandler\nargs=(os.system('{TOUCH}'),)"),
        "as code",
    ),
    "log with more arguments": (
        file("configs/logging.conf", "[handler_a]\nclass=StreamHandler\nkwargs={'a': eval('1')}"),
        "as code",
    ),
    "log by a default": (file("configs/logging.conf", "[DEFAULT]\nclass=eval\n[handler_a]\nlevel=INFO"), "as code"),
    "large file outside": (large(path="../../x.pt", url="https://dl.fbaipublicfiles.com/a"), "outside"),
    "large file in the root": (large(path="/etc/x", url="https://dl.fbaipublicfiles.com/a"), "outside"),
    "link outside": (link("data", "/etc"), "leads out"),
    "link above": (link("docs/up", "../../.."), "leads out"),
    "link to itself": (link("loop", "loop"), "leads out"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "device"),
    "machine code": (file("lib.txt", b"\x7fELF" + bytes(100)), "machine code"),
    "compiled Python": (file("scripts/a.pyc", b"\0" * 16 + marshal.dumps(compile("1", "a", "eval"))), "machine code"),
    "in the place of a library": (file("nibabel/__init__.py", "x = 1"), "takes the place"),
    "in the place of this package": (file("monai_ext/__init__.py", "x = 1"), "takes the place"),
    "in the place of a module": (file("copy.py", "x = 1"), "takes the place"),
    "archives in archives": (
        file("a.zip", zipped(("b.zip", zipped(("c.zip", zipped(("d.zip", zipped(("e", b"1"))))))))),
        "that deep",
    ),
    "zip bomb": (file("a.zip", zipped(("a.txt", bytes(200_000_000)))), "zip bomb"),
    "name that leaves the archive": (file("a.zip", zipped(("../../a", b"1"))), "leaves"),
    "name of another system": (file("a.zip", zipped(("C:\\a", b"1"))), "leaves"),
    "link in an archive": (file("a.zip", linked_member), "link"),
    "name twice in an archive": (file("a.zip", zipped(("a.md", b"1"), ("A.md", b"2"))), "twice"),
}
TRICKS = [
    *(Trick(f"target {name}", target(name, x=1), "look", word) for name, word in TARGETS.items()),
    *(Trick(f"expression {text[:60]!a}", expression(text), "look", word) for text, word in EXPRESSIONS.items()),
    *(Trick(name, make, "look", word) for name, (make, word) in CONFIGS.items()),
    *(Trick(f"refused: {name}", make, "refused", word) for name, (make, word) in REFUSALS.items()),
]
