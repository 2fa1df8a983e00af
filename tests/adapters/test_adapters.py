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

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from torch import nn

from monai_ext.adapters import (
    SALT,
    Adapter,
    AdapterLayer,
    BottleneckMLP,
    DepthwiseSeparable,
    DilatedDepthwise,
    DoRA,
    LoRA,
    PromptBridge,
    SharedRefactoring,
    SingularValues,
)
from monai_ext.adapters.base import inject
from monai_ext.networks import ClassTokens, SAM2Segmenter
from monai_ext.networks.sam2 import sam2_modules


class Toy(nn.Module):
    """A convolution, a block of Hiera, a fused qkv that changes the width, as its transition blocks do, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.block = MultiScaleBlock(4, 4, num_heads=1)
            self.qkv = nn.Linear(4, 3 * 8)
            self.proj = nn.Linear(8, 5, bias=False)
            self.pool = nn.MaxPool2d(2)
            self.class_tokens = ClassTokens(2, torch.randn(1, 256))

    def forward(self, x):
        x = self.block(self.conv(x).permute(0, 2, 3, 1)).flatten(1, 2)
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(torch.tanh(q * k) + v)


# One row a method: how it is declared for Toy, and whether it can be merged.
METHODS = {
    "LoRA": (lambda **kw: LoRA(targets=["conv", "qkv", "proj"], rank=2, **kw), True),
    "LoRA of q and v": (lambda **kw: LoRA(targets=["qkv"], rank=2, parts="qv", **kw), True),
    "LoRA of k": (lambda **kw: LoRA(targets=["qkv"], rank=2, parts="k", **kw), True),
    "LoRA with dropout": (lambda **kw: LoRA(targets=["conv", "qkv"], rank=2, dropout=0.5, **kw), True),
    "rsLoRA": (lambda **kw: LoRA(targets=["conv", "qkv"], rank=3, rank_stabilized=True, **kw), True),
    "DoRA": (lambda **kw: DoRA(targets=["conv", "qkv", "proj"], rank=2, **kw), True),
    "singular values": (lambda **kw: SingularValues(targets=["conv", "qkv", "proj"], **kw), True),
    "bottleneck": (lambda **kw: BottleneckMLP(targets=["block"], width=3, **kw), False),
    "dilated depthwise": (lambda **kw: DilatedDepthwise(targets=["block"], **kw), False),
    "depthwise separable": (lambda **kw: DepthwiseSeparable(targets=["conv"], **kw), False),
    "shared refactoring": (lambda **kw: SharedRefactoring(targets=["*norm?"], rank=3, **kw), False),
    "prompt bridge": (lambda **kw: PromptBridge(targets=["block"], width=3, **kw), False),
    "SALT": (lambda **kw: SALT(targets=["conv", "qkv", "proj"], rank=2, leading=0.4, **kw), True),
}


def toy(adapter: Adapter, dtype=torch.float32):
    net = Toy().to(dtype)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # A is drawn: the same whatever test ran before
        torch.manual_seed(0)
        wrappers = inject(net, [adapter])
    for wrapper in wrappers.values():
        wrapper.active = adapter.name
    return net, wrappers


def move(wrappers, scale=0.3):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for wrapper in wrappers.values():
            for parameter in wrapper.adapters.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def images(dtype=torch.float32):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_identity_at_initialisation(self, method):
        net, _ = toy(METHODS[method][0]())
        plain = Toy()
        assert torch.equal(net.eval()(images()), plain(images()))
        assert torch.equal(net.train()(images()), plain(images()))
        with torch.no_grad():
            assert torch.equal(net(images()), plain(images()))

    def test_every_parameter_gets_a_gradient_and_nothing_else_does(self, method):
        net, wrappers = toy(METHODS[method][0]())
        move(wrappers)
        net(images()).square().sum().backward()
        for name, parameter in net.named_parameters():
            if ".adapters." in name:
                assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name
            else:
                assert parameter.grad is None, name

    def test_parameters_are_registered_and_follow(self, method):
        net, _ = toy(METHODS[method][0]())
        names = [name for name, _ in net.named_parameters() if ".adapters.default." in name]
        assert names
        net.to(torch.float64)
        assert all(p.dtype == torch.float64 for p in net.parameters())
        net.to("meta")
        assert all(p.device.type == "meta" for p in net.parameters())

    @pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
    def test_merge_and_unmerge(self, method, dtype, tolerance):
        if not METHODS[method][1]:
            return
        net, wrappers = toy(METHODS[method][0](), dtype)
        move(wrappers)
        net.eval()
        with torch.no_grad():
            before = net(images(dtype))
            for wrapper in wrappers.values():
                wrapper.add_delta(1)
                wrapper.active = None
            merged = net(images(dtype))
            for wrapper in wrappers.values():
                wrapper.active = "default"
                wrapper.add_delta(-1)
            after = net(images(dtype))
        assert not torch.equal(before, Toy().to(dtype)(images(dtype)))
        torch.testing.assert_close(merged, before, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(after, before, atol=tolerance, rtol=tolerance)

    def test_deep_copy(self, method):
        net, wrappers = toy(METHODS[method][0]())
        other = copy.deepcopy(net)
        move(wrappers)
        assert not torch.equal(net.eval()(images()), other.eval()(images()))

    def test_save_and_load(self, method):
        net, wrappers = toy(METHODS[method][0]())
        move(wrappers)
        other, _ = toy(METHODS[method][0]())
        other.load_state_dict(net.state_dict())
        assert torch.equal(net.eval()(images()), other.eval()(images()))

    def test_traced_as_the_zoo_exports(self, method, tmp_path):
        """The tracer runs the network twice and wants the same both times; what it keeps must be its own operations."""
        net, wrappers = toy(METHODS[method][0]())
        move(wrappers)
        with torch.no_grad():
            torch.jit.trace(net.eval(), images()).save(tmp_path / "net.ts")
            traced, eager = torch.jit.load(tmp_path / "net.ts")(images()), net(images())
        torch.testing.assert_close(traced, eager, atol=1e-5, rtol=1e-5)

    def test_inactive_adapters_do_nothing(self, method):
        net, wrappers = toy(METHODS[method][0]())
        move(wrappers)
        for wrapper in wrappers.values():
            wrapper.active = None
        assert torch.equal(net(images()), Toy()(images()))

    def test_construction_touches_nothing(self, method):
        adapter = METHODS[method][0]()
        settings_before = adapter.describe()
        toy(adapter)
        toy(adapter)
        assert adapter.describe() == settings_before

    def test_output_and_gradients_are_those_of_the_formula(self, method):
        """Against autograd through the weights of the formula in float64, for input and parameters."""
        net, wrappers = toy(METHODS[method][0](), torch.float64)
        move(wrappers)
        if not METHODS[method][1]:
            return
        if "dropout" in method:
            net.eval()
        x = images(torch.float64).requires_grad_()
        net(x).square().sum().backward()
        reference = copy.deepcopy(net)
        y = x.detach().clone().requires_grad_()
        weights, copies = {}, {}
        for name, wrapper in wrappers.items():
            layer = wrapper.adapters["default"]
            copies[name] = {key: p.detach().clone().requires_grad_() for key, p in layer.named_parameters()}
            matrix = written_out(layer, wrapper.base.weight.detach().flatten(1), copies[name])
            weights[f"{name}.weight"] = matrix.view_as(wrapper.base.weight)
            setattr(reference, name, wrapper.base)
        torch.func.functional_call(reference, weights, (y,)).square().sum().backward()
        torch.testing.assert_close(net(x), torch.func.functional_call(reference, weights, (y,)), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(x.grad, y.grad)
        for name, parameters in copies.items():
            for key, parameter in parameters.items():
                torch.testing.assert_close(wrappers[name].adapters["default"].get_parameter(key).grad, parameter.grad)


def written_out(layer, weight, p):
    """The adapted weight, as the method's paper writes it."""
    if "lora_a" in p:
        rows = torch.cat([torch.arange(i, j) for i, j in getattr(layer, "rows", [(0, len(weight))])])
        update = layer.scale * p["lora_b"] @ p["lora_a"].flatten(1)
        moved = weight + torch.zeros_like(weight).index_copy(0, rows, update)
        if "magnitude" not in p:
            return moved
        return p["magnitude"][:, None] * moved / moved.detach().norm(dim=1, keepdim=True)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    k = len(p["scale"])
    sigma = torch.diag(torch.cat([torch.relu(p["scale"] * s[:k] + p["shift"]), s[k:]]))
    if "x" in p:
        sigma = sigma + nn.functional.pad(p["x"] @ p["y"], (k, 0, k, 0))
    return u @ sigma @ vt


def test_scale_of_the_update():
    base = nn.Linear(4, 4)
    assert LoRA(targets=["x"], rank=4, alpha=6).layer(base).scale == 1.5
    assert LoRA(targets=["x"], rank=4, alpha=6, rank_stabilized=True).layer(base).scale == 3


def test_singular_values_that_were_clipped_come_back():
    """A plain ReLU would leave them at zero for ever."""
    base = nn.Linear(4, 4, bias=False, dtype=torch.float64).requires_grad_(False)
    layer = SingularValues(targets=["x"]).layer(base)
    with torch.no_grad():
        layer.shift.fill_(-100.0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1.0)
    x = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(300):
        optimizer.zero_grad()
        (layer(base, x) - base(x)).square().sum().backward()
        optimizer.step()
    assert (layer.scale * layer.factors(base)[1] + layer.shift > 0).all()


@pytest.mark.parametrize("method", ["singular values", "SALT"])
def test_the_gradient_reaches_all_singular_values_at_the_start(method):
    net, wrappers = toy(METHODS[method][0]())
    net(images()).square().sum().backward()
    for wrapper in wrappers.values():
        for name, parameter in wrapper.adapters["default"].named_parameters():
            assert name == "x" or (parameter.grad != 0).float().mean() > 0.99, name  # X waits for Y, as LoRA's A for B


@pytest.mark.parametrize("method", ["singular values", "SALT"])
def test_factors_follow_and_are_not_saved(method):
    net, wrappers = toy(METHODS[method][0]())
    net(images())
    buffers = {name for name, _ in net.named_buffers()}
    assert len(buffers) == 9 and not buffers & set(net.state_dict())
    net.to(torch.float64)
    assert all(buffer.dtype == torch.float64 for buffer in net.buffers())
    kept = [wrapper.adapters["default"].u for wrapper in wrappers.values()]
    net(images(torch.float64))
    assert all(a is wrapper.adapters["default"].u for a, wrapper in zip(kept, wrappers.values(), strict=True))


@pytest.mark.parametrize(
    ("size", "count"), [("tiny", 37632), ("small", 49920), ("base_plus", 86016), ("large", 218880)]
)
def test_number_of_singular_values_in_the_trunk(size, count):
    targets = ["*trunk*attn.qkv", "*trunk*attn.proj", "*trunk*mlp.layers.*", "*trunk.blocks.*.proj"]
    trunk = nn.ModuleDict({"image_encoder": sam2_modules(size)["image_encoder"]}).to("meta")
    inject(trunk, [SingularValues(targets=targets)])
    assert sum(p.numel() for name, p in trunk.named_parameters() if ".adapters." in name) == count


def test_an_evaluation_forms_the_weights_once_and_notices_every_change():
    base = nn.Linear(6, 4).requires_grad_(False)
    layer = SingularValues(targets=["x"]).layer(base)
    with torch.no_grad():
        first = layer._weight(base)
        assert layer._weight(base) is first
        layer.scale.mul_(2)
        assert not torch.equal(layer._weight(base), first)
        other, _ = toy(SingularValues(targets=["qkv"]))
        plain = Toy()
        plain.qkv.weight.mul_(-3)
        other(images())
        state = {key.replace("qkv.", "qkv.base."): value for key, value in plain.state_dict().items()}
        other.load_state_dict(state, strict=False)
        u, s, vt = other.qkv.adapters["default"].factors(other.qkv.base)
        torch.testing.assert_close(u * s @ vt, plain.qkv.weight)
        assert torch.equal(other(images()), plain(images()))


@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("parts", ["q", "qv", "kv", "qkv"])
def test_parts_of_narrow_and_wide_layers_learn_as_the_branch(width, parts):
    base = nn.Linear(width, 3 * width, dtype=torch.float64).requires_grad_(False)
    layer = LoRA(targets=["x"], rank=1, parts=parts).layer(base)
    nn.init.normal_(layer.lora_b, generator=torch.Generator().manual_seed(0))
    x = torch.randn(9, width, dtype=torch.float64, requires_grad=True)
    rows = torch.cat([torch.arange(i, j) for i, j in layer.rows])
    low = layer.scale * (x @ layer.lora_a.T @ layer.lora_b.T)
    branch = base(x) + torch.zeros(9, 3 * width, dtype=torch.float64).index_copy(1, rows, low)
    weight = torch.randn_like(branch)
    parameters = [x, layer.lora_a, layer.lora_b]
    expected = torch.autograd.grad((branch * weight).sum(), parameters)
    for one, two in zip(torch.autograd.grad((layer(base, x) * weight).sum(), parameters), expected, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("parts", ["q", "k", "v", "qv", "qk", "kv", "qkv"])
def test_exactly_the_chosen_thirds_change(parts):
    """Of a layer whose width changes: slicing by the input's width adapts half of q and v (25benjaminli/sam2lora)."""
    net, wrappers = toy(LoRA(targets=["qkv"], rank=2, parts=parts))
    move(wrappers)
    x = torch.randn(5, 4)
    changed = (net.qkv(x) != net.qkv.base(x)).any(0)
    expected = torch.cat([torch.full((8,), part in parts) for part in "qkv"])
    assert torch.equal(changed, expected)
    with torch.no_grad():
        assert torch.equal((net.qkv(x) != net.qkv.base(x)).any(0), expected)


def assert_same_function(one, two, parameters):
    """Two outputs are equal, and so are their gradients to all parameters."""
    torch.testing.assert_close(one, two)
    weight = torch.randn_like(one)
    gradients = (torch.autograd.grad((output * weight).sum(), parameters) for output in (one, two))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 40),  # narrow layers form g^T x, wide ones thin products
    out=st.integers(1, 60),
    rank=st.integers(1, 9),
    rows=st.integers(1, 6),
    bias=st.booleans(),
    frozen=st.booleans(),
)
def test_the_fast_form_equals_the_branch(n, out, rank, rows, bias, frozen):
    torch.manual_seed(0)
    base = nn.Linear(n, out, bias=bias, dtype=torch.float64).requires_grad_(not frozen)
    layer = LoRA(targets=["x"], rank=rank).layer(base)
    with torch.no_grad():
        layer.lora_b.normal_()
    x = torch.randn(2, rows, n, dtype=torch.float64, requires_grad=True)
    parameters = [x, layer.lora_a, layer.lora_b, *(p for p in base.parameters() if p.requires_grad)]
    fast = layer(base, x)
    branch = base(x) + layer.scale * (x @ layer.lora_a.T @ layer.lora_b.T)
    assert_same_function(fast, branch, parameters)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 24),  # few tokens of wide layers go through the factors, many of narrow ones do not
    out=st.integers(2, 24),
    tokens=st.integers(1, 64),
    bias=st.booleans(),
    frozen=st.booleans(),
    first=st.booleans(),  # of the first layer of a network the input needs no gradient
    method=st.sampled_from([SingularValues(targets=["x"]), SALT(targets=["x"], rank=2, leading=0.4)]),
)
def test_singular_values_learn_as_if_the_weight_were_formed(n, out, tokens, bias, frozen, first, method):
    torch.manual_seed(0)
    base = nn.Linear(n, out, bias=bias, dtype=torch.float64).requires_grad_(not frozen)
    layer = method.layer(base)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))  # some values are clipped
    x = torch.randn(2, tokens, n, dtype=torch.float64, requires_grad=not first)
    parameters = [p for p in [x, *layer.parameters(), *base.parameters()] if p.requires_grad]
    formed, fast = F.linear(x, base.weight + layer.change(base), base.bias), layer(base, x)
    assert_same_function(fast, formed, parameters)


def test_autocast_runs_the_branch_in_half_precision():
    """W' rounded to bfloat16 would lose an update this small; the branch keeps it."""
    base = nn.Linear(8, 8).requires_grad_(False)
    layer = LoRA(targets=["x"], rank=1, alpha=1).layer(base)
    with torch.no_grad():
        base.weight.fill_(1.0)
        base.bias.zero_()
        layer.lora_a.fill_(1e-4)
        layer.lora_b.fill_(1.0)
    x = torch.cat([torch.ones(1, 4), -torch.ones(1, 4)], 1) + 1e-1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(base, x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"targets": "qkv"}, "targets must be a list of patterns"),
        ({"targets": []}, "targets must be a list of patterns"),
        ({"targets": ["qkv"], "rank": 0}, "rank must be a whole number of at least 1, not 0"),
        ({"targets": ["qkv"], "dropout": 1.0}, "dropout must be"),
        ({"targets": ["qkv"], "parts": "qx"}, "parts must name thirds"),
        ({"targets": ["qkv"], "name": "a.b"}, "name must be a word without dots"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**arguments)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DoRA(targets=["x"], rank=0), "rank must be a whole number of at least 1, not 0"),
        (lambda: SALT(targets=["x"], rank=1.5), "rank must be a whole number of at least 1, not 1.5"),
        (lambda: SALT(targets=["x"], leading=1), "leading must be above 0 and below 1, not 1"),
        (lambda: BottleneckMLP(targets=["x"], width=0), "width must be a whole number of at least 1, not 0"),
        (lambda: SALT(targets=["x"]).layer(nn.Linear(1, 3)), "at least two singular values"),
    ],
)
def test_settings_of_other_methods_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "adapters, error, message",
    [
        ([LoRA(targets=["qvk"])], ValueError, "'qvk' matches no module. Near names: qkv"),
        ([LoRA(targets=["qkv"]), LoRA(targets=["pool"])], TypeError, "pool: LoRA adapts Linear and Conv2d"),
        ([BottleneckMLP(targets=["qkv"])], TypeError, "qkv: BottleneckMLP adapts blocks .*, not Linear"),
        ([DilatedDepthwise(targets=["conv"])], TypeError, "conv: DilatedDepthwise adapts blocks .*, not Conv2d"),
        ([DepthwiseSeparable(targets=["qkv"])], TypeError, "qkv: DepthwiseSeparable adapts Conv2d, not Linear"),
        ([SALT(targets=["block"])], TypeError, "block: SALT adapts Linear and Conv2d without groups"),
        ([LoRA(targets=["proj"], parts="qv")], ValueError, "proj: parts='qv' needs a fused qkv layer, not one with 5"),
        ([LoRA(targets=["conv"], parts="qv")], ValueError, "conv: parts='qv' is for fused qkv layers"),
        ([LoRA(targets=["qkv"]), LoRA(targets=["q*"])], ValueError, "two adapters named 'default' match 'qkv'"),
    ],
)
def test_errors_come_before_anything_changes(adapters, error, message):
    net = Toy()
    before = list(net.state_dict())
    with pytest.raises(error, match=message):
        inject(net, adapters)
    assert list(net.state_dict()) == before


def test_a_method_that_cannot_be_merged_says_so():
    class Shift(Adapter):
        def layer(self, base):
            class Layer(AdapterLayer):
                def forward(self, base, x):
                    return base(x)

            return Layer()

    _, wrappers = toy(Shift(targets=["qkv"]))
    with pytest.raises(TypeError, match="cannot be merged"):
        wrappers["qkv"].add_delta(1)


@pytest.mark.parametrize("children", [{"conv": nn.Conv2d(3, 4, 1)}, {"0": nn.Conv2d(3, 4, 1)}])
def test_children_of_a_sequence(children):
    """By number or by name, as in SAM 2's neck; their order stays."""
    net = nn.Sequential(OrderedDict(children, relu=nn.ReLU()))
    wrappers = inject(net, [LoRA(targets=list(children))])
    assert list(net) == [*wrappers.values(), net.relu]


def test_json_builds_it():
    config = {"adapter": {"_target_": "monai_ext.adapters.LoRA", "targets": ["*qkv"], "rank": 4, "parts": "qv"}}
    adapter = ConfigParser(config).get_parsed_content("adapter")
    assert adapter.alpha == 8
    assert adapter.describe() == {
        "method": "LoRA",
        "targets": ["*qkv"],
        "name": "default",
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.0,
        "rank_stabilized": False,
        "parts": "qv",
    }


def test_equal_to_hf_peft():
    """The same model, targets and values: outputs and gradients."""
    peft = pytest.importorskip("peft", reason="HF PEFT, a test extra, is not installed")
    ours, wrappers = toy(LoRA(targets=["qkv", "proj", "conv"], rank=3, alpha=5))
    move(wrappers)
    theirs = peft.inject_adapter_in_model(
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=["qkv", "proj", "conv"], lora_dropout=0.0), Toy()
    )
    with torch.no_grad():
        for name, wrapper in wrappers.items():
            layer, other = wrapper.adapters["default"], theirs.get_submodule(name)
            other.lora_A["default"].weight.copy_(layer.lora_a)
            other.lora_B["default"].weight.copy_(layer.lora_b.view_as(other.lora_B["default"].weight))
    for net in (ours, theirs):
        net(images()).square().sum().backward()
    torch.testing.assert_close(ours(images()), theirs(images()), atol=1e-5, rtol=1e-5)
    for name, wrapper in wrappers.items():
        layer, other = wrapper.adapters["default"], theirs.get_submodule(name)
        torch.testing.assert_close(layer.lora_a.grad, other.lora_A["default"].weight.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            layer.lora_b.grad.view_as(other.lora_B["default"].weight),
            other.lora_B["default"].weight.grad,
            atol=1e-5,
            rtol=1e-4,
        )


def test_blocks_of_one_width_share_their_projections():
    targets = ["image_encoder.trunk.blocks.*.norm[12]"]
    settings = {"size": "micro", "weights": "micro", "adapters": [SharedRefactoring(targets=targets, rank=4)]}
    net, other = SAM2Segmenter(**settings), SAM2Segmenter(**settings, seed=1)
    layers = [module.adapters["default"] for module in net._adapted.values()]
    assert (
        len({id(layer.down) for layer in layers}) == 3 + 4
    )  # widths before attention, where the last stage's one block still has the third's, and the MLP
    trained = [name for name in net.trained_state_dict() if name.endswith("down")]
    assert len(trained) == 3 + 4
    with torch.no_grad():
        for layer in layers:
            layer.scale.fill_(0.1)
        other.load_state_dict(net.trained_state_dict())
        x = torch.rand(1, 3, 32, 32)
        assert torch.equal(net.eval()(x), other.eval()(x))
    copied = [module.adapters["default"] for module in copy.deepcopy(net)._adapted.values()]
    assert len({id(layer.down) for layer in copied}) == 3 + 4


def test_the_bridge_carries_the_labels_token_to_the_encoder():
    bridge = PromptBridge(targets=["image_encoder.trunk.blocks.?"], width=4)
    net = SAM2Segmenter(size="micro", weights="micro", labels=["disc", "cup"], adapters=[bridge])
    for module in net._adapted.values():
        nn.init.normal_(module.adapters["default"].up.weight, generator=torch.Generator().manual_seed(0))
    net.encode(torch.rand(1, 3, 32, 32)).features.square().sum().backward()
    assert net.class_tokens.weight.grad.abs().sum() > 0
    assert not [key for key in net.trained_state_dict() if "tokens" in key and ".adapters." in key]
    twin = copy.deepcopy(net)
    assert all(module.adapters["default"].tokens[0] is twin.class_tokens for module in twin._adapted.values())
