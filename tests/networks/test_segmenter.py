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
import io

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.utils import copy_model_state
from torch import nn

from monai_ext.adapters import LoRA
from monai_ext.networks import SIZES, SAM2Segmenter

TARGETS = ["*trunk*attn.qkv", "sam_mask_decoder.transformer.*attn*_proj"]


def micro(**kwargs) -> SAM2Segmenter:
    return SAM2Segmenter(**{"size": "micro", "labels": ["vessel"], **kwargs}).eval()


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> str:
    """Base weights of size micro, in the official file format, with parts that only video uses."""
    path = tmp_path_factory.mktemp("base") / "micro.pt"
    state = {k: v for k, v in micro(seed=7).state_dict().items() if k not in ("fingerprint", "class_tokens.weight")}
    torch.save({"model": {**state, "memory_encoder.fuser.weight": torch.zeros(2), "no_obj_ptr": torch.zeros(1)}}, path)
    return str(path)


def adapted(base: str, **kwargs) -> SAM2Segmenter:
    return micro(weights=base, **{"adapters": [LoRA(targets=TARGETS, rank=4)], **kwargs})


def disturbed(net: SAM2Segmenter) -> SAM2Segmenter:
    """As if trained: everything trainable moved."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


def picture(batch: int = 1, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


PROMPTS = {
    "automatic": {},
    "one click": {"points": torch.tensor([[[20.0, 30.0]]]), "point_labels": torch.tensor([[1]])},
    "clicks": {"points": torch.tensor([[[20.0, 30.0], [5.0, 6.0]]]), "point_labels": torch.tensor([[1, 0]])},
    "box": {"boxes": torch.tensor([[10.0, 5.0, 60.0, 50.0]])},
    "mask": {"masks": torch.linspace(-4, 4, 16 * 24).reshape(1, 1, 16, 24)},
    "all": {
        "points": torch.tensor([[[20.0, 30.0]]]),
        "point_labels": torch.tensor([[1]]),
        "boxes": torch.tensor([[10.0, 5.0, 60.0, 50.0]]),
        "masks": torch.linspace(-4, 4, 16 * 24).reshape(1, 1, 16, 24),
    },
}


@pytest.mark.parametrize("height, width", [(1, 1), (31, 33), (64, 96), (100, 37)])
@pytest.mark.parametrize("enlarge", [1, 2, 3])
def test_any_image_size(height, width, enlarge):
    with torch.no_grad():
        assert micro(enlarge=enlarge)(picture(1, height, width)).shape == (1, 1, height, width)


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("labels", [["vessel"], ["disc", "cup"]])
def test_batch_equals_its_items_alone(name, labels):
    net = disturbed(micro(labels=labels, train=["*"]))
    images = picture(3)
    prompts = {
        key: torch.cat([value, value + 1 if value.is_floating_point() else value, value])
        for key, value in PROMPTS[name].items()
    }
    with torch.no_grad():
        together = net(images, **prompts)
        alone = [net(images[i : i + 1], **{k: v[i : i + 1] for k, v in prompts.items()}) for i in range(3)]
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_each_label_has_its_own_prompts():
    net = disturbed(micro(labels=["disc", "cup"], train=["*"]))
    image = picture()
    points = torch.tensor([[[[10.0, 10.0]], [[50.0, 40.0]]]])
    kinds = torch.ones(1, 2, 1, dtype=torch.long)
    with torch.no_grad():
        both = net(image, points=points, point_labels=kinds)
        first = net(image, points=points[:, 0], point_labels=kinds[:, 0])
        second = net(image, points=points[:, 1], point_labels=kinds[:, 1])
    torch.testing.assert_close(both[:, 0], first[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[:, 1], second[:, 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("chunk", [1, 2, 3, 9])
def test_labels_in_chunks_are_the_labels_together(name, chunk):
    labels = [f"label {number}" for number in range(5)]
    together, apart = (disturbed(micro(labels=labels, label_chunk=size)) for size in (None, chunk))
    prompts = {key: value.expand(2, *value.shape[1:]) for key, value in PROMPTS[name].items()}
    with torch.no_grad():
        torch.testing.assert_close(apart(picture(2), **prompts), together(picture(2), **prompts), rtol=1e-4, atol=1e-4)


def test_training_and_evaluation_take_the_same_decoder_path():
    net = disturbed(micro(train=["*"]))
    image = picture()
    with torch.no_grad():
        torch.testing.assert_close(net.train()(image), net.eval()(image))
    assert micro(dynamic_multimask=True).sam_mask_decoder.dynamic_multimask_via_stability


def test_multimask_takes_the_mask_with_the_best_predicted_iou():
    net = micro(multimask=True)
    embedding = net.encode(picture())
    with torch.no_grad():
        _, iou = net.decode(embedding, **PROMPTS["one click"])
        net.multimask = False
        _, single = net.decode(embedding, **PROMPTS["one click"])
    assert iou.shape == single.shape == (1, 1)
    assert iou != single


def test_prompts_may_carry_metadata() -> None:
    """MONAI's transforms make MetaTensors, whose indexing would stumble over the choice among the masks."""
    net = SAM2Segmenter(size="micro", multimask=True).eval()
    prompts = {"points": torch.tensor([[[9.0, 9.0]]]), "point_labels": torch.ones(1, 1)}
    with torch.no_grad():
        plain = net(torch.ones(1, 3, 32, 32), **prompts)
        given = net(MetaTensor(torch.ones(1, 3, 32, 32)), **{key: MetaTensor(value) for key, value in prompts.items()})
    assert torch.equal(plain, given) and not isinstance(given, MetaTensor)


def test_candidates_are_what_decode_chooses_from() -> None:
    net = disturbed(micro(train=["*"]))
    embedding = net.encode(picture(2)).repeat(2)
    prompts = {"points": torch.rand(4, 1, 2, 2) * 40, "point_labels": torch.ones(4, 1, 2)}
    candidates = net.candidates(embedding, **prompts)
    assert candidates.logits.shape[:3] == (4, 1, 4) and candidates.object_score.shape == (4, 1)
    logits, iou = net.decode(embedding, **prompts)
    assert torch.equal(candidates.logits[:, :, 0], logits) and torch.equal(candidates.iou[..., 0], iou)
    net.multimask = True
    logits, iou = net.decode(embedding, **prompts)
    best = candidates.iou[..., 1:].argmax(-1) + 1
    assert torch.equal(iou[:, 0], candidates.iou[range(4), 0, best[:, 0]])
    assert torch.equal(logits[:, 0], candidates.logits[range(4), 0, best[:, 0]])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": "huge"}, "size must be one of micro, tiny, small, base_plus, large, not 'huge'"),
        ({"labels": []}, "labels must be different names"),
        ({"labels": ["a", "a"]}, "labels must be different names"),
        ({"labels": [""]}, "labels must be different names"),
        ({"enlarge": 0}, "enlarge must be a whole number"),
        ({"label_chunk": 0}, "label_chunk must be a whole number of at least 1, or None, not 0"),
        ({"train": ["*decodr*"]}, r"train: '\*decodr\*' matches no parameter"),
        ({"adapters": [LoRA(targets=["*trunk*attn.kqv"])]}, r"'\*trunk\*attn.kqv' matches no module. Near names:.*qkv"),
        ({"adapters": [LoRA(targets=["*qkv"]), LoRA(targets=["*trunk*qkv"])]}, "two adapters named 'default'"),
    ],
)
def test_settings_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        micro(**arguments)


@pytest.mark.parametrize(
    "prompts, message",
    [
        ({"points": torch.zeros(1, 1, 2)}, "together"),
        ({"points": torch.zeros(1, 2), "point_labels": torch.ones(1)}, "points must be"),
        ({"points": torch.zeros(1, 2, 2), "point_labels": torch.ones(1, 3)}, "point_labels must be"),
        ({"points": torch.zeros(1, 1, 2), "point_labels": torch.full((1, 1), 7)}, "point_labels must be 1, 0"),
        ({"points": torch.full((1, 1, 2), torch.nan), "point_labels": torch.ones(1, 1)}, "finite"),
        ({"boxes": torch.zeros(2, 4)}, "boxes must be"),
        ({"masks": torch.zeros(1, 3, 8, 8)}, "masks must be"),
    ],
)
def test_prompts_that_do_not_fit(prompts, message):
    with pytest.raises(ValueError, match=message):
        micro()(picture(), **prompts)


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_images_that_do_not_fit(image):
    with pytest.raises(ValueError, match=r"image must be floats \(B, 3, H, W\)"):
        micro()(image)


def test_construction_touches_no_random_state_and_is_reproducible():
    before = torch.random.get_rng_state()
    one, two = micro(adapters=[LoRA(targets=TARGETS)]), micro(adapters=[LoRA(targets=TARGETS)])
    assert torch.equal(before, torch.random.get_rng_state())
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(one.no_mem_embed, micro(seed=1).no_mem_embed)


@pytest.mark.parametrize("name", PROMPTS)
def test_adapters_change_nothing_before_training(base, name):
    with torch.no_grad():
        assert torch.equal(adapted(base)(picture(), **PROMPTS[name]), micro(weights=base)(picture(), **PROMPTS[name]))


def test_only_what_is_meant_trains_and_gets_a_gradient(base):
    net = adapted(base, train=["sam_mask_decoder.conv_s0.*"]).train()
    names = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert all(
        ".adapters." in n or n.startswith("sam_mask_decoder.conv_s0.") or n == "class_tokens.weight" for n in names
    )
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # A of a fresh LoRA has no gradient until B has moved
        optimizer.zero_grad()
        net(picture()).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("size, per_rank", [("tiny", 29920), ("small", 36064), ("base_plus", 54000), ("large", 120208)])
def test_parameters_of_the_published_placement(size, per_rank):
    net = SAM2Segmenter(size=size, adapters=[LoRA(targets=TARGETS, rank=1)])
    assert sum(p.numel() for name, p in net.named_parameters() if ".adapters." in name) == per_rank


def test_merged_equals_unmerged_and_is_plain_sam2(base):
    net, plain = disturbed(adapted(base)), micro(weights=base)
    image = picture(2)
    with torch.no_grad():
        before = net(image)
        names = set(net.state_dict())
        net.merge()
        merged = net(image)
        assert set(net.state_dict()) == set(plain.state_dict())
        net.merge()
        assert torch.equal(net(image), merged)
        torch.testing.assert_close(merged, before, atol=1e-5, rtol=1e-5)
        net.unmerge()
        net.unmerge()
        assert set(net.state_dict()) == names
        torch.testing.assert_close(net(image), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("action", ["activate", "trained_state_dict", "load_state_dict"])
def test_a_merged_network_says_so(base, action):
    net = adapted(base)
    net.merge()
    with pytest.raises(RuntimeError, match=r"merged; call unmerge\(\)"):
        getattr(net, action)(*({"activate": ["default"], "load_state_dict": [{}]}.get(action, [])))


def test_named_adapters_are_switched_without_rebuilding(base):
    one, two = LoRA(targets=TARGETS, rank=2, name="one"), LoRA(targets=["*trunk*attn.qkv"], rank=3, name="two")
    net = micro(weights=base, adapters=[one, two])
    image = picture()
    with torch.no_grad():
        for name in ("one", "two"):
            net.activate(name)
            disturbed(net)
        answers = {}
        for name in ("one", "two", None):
            net.activate(name)
            answers[name] = net(image)
        net.activate("one")
        assert torch.equal(net(image), answers["one"])
    assert not torch.equal(answers["one"], answers["two"])
    assert not torch.equal(answers["one"], answers[None])
    with pytest.raises(ValueError, match=r"one of the network's adapters \(one, two\), not 'three'"):
        net.activate("three")


def test_the_saved_part_is_small_safe_and_complete(base):
    net = disturbed(adapted(base))
    file = io.BytesIO()
    torch.save(net.trained_state_dict(), file)
    file.seek(0)
    part = torch.load(file, weights_only=True)
    assert all(".adapters." in key or key in ("class_tokens.weight", "fingerprint") for key in part)
    other = adapted(base)
    for strict in (True, False):
        other.load_state_dict(part, strict=strict)
    with torch.no_grad():
        assert torch.equal(other(picture()), net(picture()))
    other = adapted(base)
    copy_model_state(other, part)
    with torch.no_grad():
        assert torch.equal(other(picture()), net(picture()))
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    with torch.no_grad():
        assert torch.equal(other(picture()), net(picture()))


def test_without_base_weights_everything_is_saved():
    net = micro(train=["*"], adapters=[LoRA(targets=TARGETS)])
    assert set(net.trained_state_dict()) == set(net.state_dict())
    other = micro(train=["*"], adapters=[LoRA(targets=TARGETS)], seed=5)
    other.load_state_dict(disturbed(net).trained_state_dict())
    with torch.no_grad():
        assert torch.equal(other(picture()), net(picture()))


@pytest.fixture(scope="module")
def other_base(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("base") / "other.pt"
    state = {k: v for k, v in micro(seed=8).state_dict().items() if k not in ("fingerprint", "class_tokens.weight")}
    torch.save({"model": state}, path)
    return str(path)


WRONG_FILES = {
    "other base": (lambda b, o: adapted(o).trained_state_dict(), "other base weights"),
    "other rank": (lambda b, o: adapted(b, adapters=[LoRA(targets=TARGETS, rank=5)]).trained_state_dict(), "shape"),
    "other alpha": (
        lambda b, o: adapted(b, adapters=[LoRA(targets=TARGETS, rank=4, alpha=1)]).trained_state_dict(),
        "adapter settings",
    ),
    "other labels": (lambda b, o: adapted(b, labels=["disc"]).trained_state_dict(), "other labels"),
    "more labels": (lambda b, o: adapted(b, labels=["disc", "cup"]).trained_state_dict(), "class_tokens.weight is"),
    "renamed key": (
        lambda b, o: {k.replace("lora_a", "lora_A"): v for k, v in adapted(b).trained_state_dict().items()},
        "not this network's",
    ),
    "a key less": (lambda b, o: dict(list(adapted(b).trained_state_dict().items())[1:]), "1 missing"),
    "no fingerprint": (
        lambda b, o: {k: v for k, v in adapted(b).trained_state_dict().items() if k != "fingerprint"},
        "1 missing: fingerprint",
    ),
    "NaN": (
        lambda b, o: {
            k: v * torch.nan if v.is_floating_point() else v for k, v in adapted(b).trained_state_dict().items()
        },
        "not finite",
    ),
    "another network": (lambda b, o: nn.Linear(2, 2).state_dict(), "not this network's"),
    "nothing": (lambda b, o: {}, "not this network's"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
@pytest.mark.parametrize("how", ["strict", "not strict", "copy_model_state"])
def test_wrong_files_are_refused_and_nothing_is_loaded(base, other_base, case, how):
    make, message = WRONG_FILES[case]
    net, part = adapted(base), make(base, other_base)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message if how != "copy_model_state" else "nothing was loaded"):
        if how == "copy_model_state":
            copy_model_state(net, part)
        else:
            net.load_state_dict(part, strict=how == "strict")
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_weights_of_another_size_are_refused(base):
    with pytest.raises(ValueError, match="micro.pt"):
        SAM2Segmenter(size="tiny", weights=base)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(base, dtype):
    net = disturbed(adapted(base)).to(dtype)
    with torch.no_grad():
        for prompts in PROMPTS.values():
            assert net(picture().to(dtype), **prompts).dtype == dtype


def test_deep_copies_are_independent(base):
    net = adapted(base)
    other = disturbed(copy.deepcopy(net))
    with torch.no_grad():
        assert not torch.equal(net(picture()), other(picture()))
        other.merge()
        other.unmerge()
        assert torch.equal(net(picture()), adapted(base)(picture()))


def test_json_names_it_shortly_or_fully():
    for target in ("SAM2Segmenter", "monai_ext.networks.SAM2Segmenter"):
        config = {
            "net": {
                "_target_": target,
                "size": "micro",
                "labels": ["vessel"],
                "adapters": [{"_target_": "monai_ext.adapters.LoRA", "targets": ["*qkv"], "rank": 2}],
            }
        }
        net = ConfigParser(config).get_parsed_content("net")
        assert isinstance(net, SAM2Segmenter)
        assert net.describe()["adapters"][0]["rank"] == 2


def test_sizes_say_what_they_are():
    assert list(SIZES) == ["micro", "tiny", "small", "base_plus", "large"]
