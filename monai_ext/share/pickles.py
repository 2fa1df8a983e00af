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

import pickletools
from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import IO, Any

from monai_ext.share.allowed import WEIGHTS, WEIGHTS_OPERATIONS
from monai_ext.share.dangers import danger
from monai_ext.share.finding import LOOK, OK, REFUSED, Finding

LONGEST = 5_000_000
LARGEST_VALUE = 100_000_000
_MAGIC = 0x1950A86A20F9469CFC6C
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_MEMO = ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")
_NOT_NAMED = "something that is decided while it loads"


def inspect_pickle(file: str, stream: IO[bytes], *, weights: bool, script: bool = False) -> Iterator[Finding]:
    """
    What a pickle would import; its operations are listed, none is done.

    Args:
        file: path for the findings.
        stream: at the pickle's start; several may follow each other.
        weights: whether it must be what ``torch.load(weights_only=True)`` takes.
        script: whether it belongs to TorchScript, whose classes lie in the same archive and whose loader knows more.

    Example:
        >>> import io, pickle
        >>> [(f.level, f.what) for f in inspect_pickle("a.pkl", io.BytesIO(pickle.dumps(print)), weights=False)]
        [('refused', 'builtins.print'), ('look', 'a pickle')]
    """
    legacy, count, names = False, 0, set()
    try:
        while count == 0 or not _at_end(stream):
            unknown = set()
            for operation, argument, name in _operations(stream):
                legacy = legacy or (weights and count == 0 and argument == _MAGIC)
                if weights and not script and operation not in WEIGHTS_OPERATIONS:
                    unknown.add(operation)
                if name is not None and name not in names:
                    names.add(name)
                    yield _judge(file, name, script)
            if unknown:
                what = ", ".join(sorted(unknown)[:5])
                yield Finding(REFUSED, file, "", what, "torch.load(weights_only=True) refuses such operations.")
            count += 1
            if legacy and count == 5:
                break
        if not weights:
            yield Finding(LOOK, file, "", "a pickle", "Whoever loads it must trust it; use safetensors or JSON.")
    except (ValueError, OverflowError, MemoryError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        yield Finding(REFUSED, file, "", "a broken pickle", f"It runs up to where it breaks: {reason}.")


def _judge(file: str, name: str, script: bool) -> Finding:
    allowed = name in WEIGHTS or (script and name.startswith(("__torch__.", "torch.jit._pickle.")))
    if allowed:
        return Finding(OK, file, "", name, "")
    why = "It takes names that nobody can see." if name == _NOT_NAMED else danger(name)
    return Finding(REFUSED, file, "", name, f"The pickle imports it when it is loaded. {why}")


def _operations(stream: IO[bytes]) -> Iterator[tuple[str, Any, str | None]]:
    """Name and argument of each operation of one pickle, and the global that it imports."""
    memo: dict[Any, str | None] = {}
    pushed: list[str | None] = [None, None]
    # pickletools asks for these three only.
    reader: Any = SimpleNamespace(read=_limited(stream.read), readline=_limited(stream.readline), tell=stream.tell)
    for operation, argument, _ in islice(pickletools.genops(reader), LONGEST):
        name = operation.name
        imported = None
        if name in ("GLOBAL", "INST"):
            imported = ".".join(str(argument).split(" ", 1))
        elif name == "STACK_GLOBAL":
            imported = _NOT_NAMED if None in pushed[-2:] else ".".join(map(str, pushed[-2:]))
        elif name in ("EXT1", "EXT2", "EXT4"):
            imported = _NOT_NAMED
        yield name, argument, imported
        if name in _MEMO:
            memo[len(memo) if name == "MEMOIZE" else argument] = pushed[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(argument))
        elif name != "FRAME":
            # Only two texts right before count: what lies deeper may have been exchanged.
            pushed.append(str(argument) if name in _TEXTS else None)
        del pushed[:-2]
        if name == "STOP":
            return
    raise ValueError(f"it has more than {LONGEST:,} operations")


def _limited(read: Callable[[int], bytes]) -> Callable[..., bytes]:
    """Read no more than fits into the memory, whatever a pickle says of its sizes."""

    def read_some(size: int = LARGEST_VALUE) -> bytes:
        if size > LARGEST_VALUE:
            raise ValueError(f"a value of {size:,} bytes")
        return read(size)

    return read_some


def _at_end(stream: IO[bytes]) -> bool:
    place = stream.tell()
    ended = not stream.read(1)
    stream.seek(place)
    return ended
