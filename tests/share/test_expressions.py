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

import ast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from monai_ext.share.allowed import ATTRIBUTES, BUILTINS, EXPRESSIONS, GLOBALS
from monai_ext.share.components import permission
from monai_ext.share.expressions import judge_expression, read_import

IMPORTS = {"os": "os", "subprocess": "subprocess", "dist": "torch.distributed", "glob": "glob"}
BAD = [
    *("os.system", "subprocess.run", "eval", "exec", "open", "getattr", "__import__", "torch.load", "torch.hub.load"),
    *("monai.bundle.run", "np.load", "torch.serialization.os.popen", "glob.os.system", "dist.os.execv", "os.path.join"),
]
# How a call may be hidden inside something that looks harmless.
HIDING = [
    *(
        "{}",
        "[{}]",
        "({}, 1)",
        "{{'a': {}}}",
        "{{{}: 1}}",
        "{} + 1",
        "not {}",
        "-{}",
        "1 if {} else 2",
        "2 if 1 else {}",
    ),
    *("@net or {}", "1 < {} < 2", "len([{}])", "dict(a={})", "@net({})", "@net.run({})", "torch.zeros({}).shape"),
    *("[1, 2][{}]", "[1][{}:]", "lambda x: {}", "[x for x in {}]", "{{x: {} for x in @net}}", "f'{{{}}}'", "[*{}]"),
    *("@out + '/x' + str({})", "torch.device('cuda', {})", "({}).shape", "({})[0]", "max([1], key={})", "sorted({})"),
]


def calls() -> st.SearchStrategy[str]:
    names = st.sampled_from(BAD) | st.from_regex(r"[a-z_]{2,8}(\.[a-z_]{2,8}){0,2}", fullmatch=True).filter(is_bad)
    arguments = st.sampled_from(["", "'ls'", "1, 2", "@net", "a=1", "*@net"])
    return st.builds("{}({})".format, names, arguments)


def is_bad(name: str) -> bool:
    """Whether a dotted name is none that is allowed, nor one with allowed attributes behind it."""
    try:
        ast.parse(f"{name}()")
    except SyntaxError:
        return False
    root, *attributes = name.split(".")
    if root in BUILTINS:
        return not set(attributes) <= ATTRIBUTES
    path = [{**GLOBALS, **IMPORTS}.get(root, root), *attributes]
    return not any(permission(".".join(path[:count])) for count in range(1, len(path) + 1))


@settings(max_examples=150, deadline=None)
@given(st.recursive(calls(), lambda inner: st.builds(str.format, st.sampled_from(HIDING), inner), max_leaves=6))
@example("'@f {__import__(1)}'")
def test_a_call_of_what_is_not_allowed_is_found_wherever_it_stands(text: str) -> None:
    assert judge_expression("a::b", f"${text}", IMPORTS)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="@#$%'\"()[]{}.,:;+-* \n\\_abcdefxu01", max_size=40))
def test_any_text_is_judged_without_an_error(text: str) -> None:
    assert isinstance(judge_expression("a::b", f"${text}", {}), list)
    read_import(f"$import {text}")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="@#'\"()[]{}.+ abf_", max_size=30))
def test_what_is_allowed_evaluates_as_it_was_read(text: str) -> None:
    """MONAI changes the text before it evaluates it; what passed must hold no name but references then."""
    if not judge_expression("a::b", f"${text}", {}):
        parser = ConfigParser({"a": {"b": f"${text}"}, "f": 1, "": 2})
        try:
            parser.get_parsed_content("a::b")
        except (KeyError, ValueError, RuntimeError, SyntaxError) as error:
            assert not isinstance(error.__cause__, NameError)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "@image_size * 2",
            "[int(@image_size * 1.42)] * 2",
            "@device.type == 'cuda'",
            "lambda x: 1 - x",
            "@loader(None)",
        ),
        *("torch.device('cuda' if torch.cuda.is_available() else 'cpu')", "[@device] if @device.type else None"),
        *("@output_dir + '/overlays' + ('' if @mode == 'none' else '_' + @mode)", "@train#trainer.run()", "@#c + 1"),
        *("np.float32", "monai.handlers.from_engine(['pred', 'label'])", "dist.destroy_process_group()"),
        *EXPRESSIONS,
    ],
)
def test_what_bundles_need_is_allowed(text: str) -> None:
    assert judge_expression("a::b", f"${text}", IMPORTS) == []


@pytest.mark.parametrize("text", [text for text in EXPRESSIONS if "(" in text])
def test_a_whole_expression_is_allowed_only_as_it_stands(text: str) -> None:
    assert judge_expression("a", f"${text} ", IMPORTS) and judge_expression("a", f"$[{text}]", IMPORTS)


@pytest.mark.parametrize(
    "text", ["import torch", "import torch.distributed as dist", "from monai.losses import DiceLoss"]
)
def test_allowed_imports(text: str) -> None:
    found = read_import(f"${text}")
    assert found is not None and found[2] == ""


def test_no_import() -> None:
    assert read_import("$@important + 1") is None and read_import("$[1]") is None
