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


"""What can be said of a bundle's configs without running them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_runs import BASE, BUNDLES, SAMPLES, TRACKING, config_files, load_config
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.utils import optional_import
from processes import SEVERAL

# How the files are used together.
USES = [
    ("train",),
    ("train", "sam2lora"),
    ("train", "ssam"),
    ("train", "sharpness_aware"),
    ("train", "distil_encoder"),
    ("train", "distil_encoder", "distil_decoder"),
    ("train", "more_vessels"),
    ("train", "robust_prompts"),
    ("train", "multi_gpu_train"),
    ("train", "federated"),
    ("train", "evaluate"),
    ("train", "evaluate", "evaluate_flips"),
    ("train", "evaluate", "evaluate_base"),
    ("train", "evaluate", "evaluate_robust"),
    ("train", "evaluate", "multi_gpu_evaluate"),
    ("inference",),
    ("inference", "slides"),
    ("inference", "multi_gpu_inference"),
    ("inference", "slides", "multi_gpu_inference"),
]
# What users change, in this order, before anything else.
VARIABLES = [
    *("bundle_root", "dataset_dir", "output_dir", "size", "weights", "labels"),
    *("image_size", "max_epochs", "batch_size", "lr", "amp", "device"),
]
LOCATOR = ComponentLocator()


def uses() -> list[Any]:
    return [
        pytest.param(bundle, names, id=f"{bundle.name}-{'+'.join(names)}")
        for bundle in BUNDLES
        for names in USES
        if all((bundle / "configs" / f"{name}.json").exists() for name in names)
    ]


def components(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from components(item)


def read(bundle: Path, *names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config_files(bundle, names))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.parse()
    return parser


@pytest.mark.parametrize("name", ["train", "evaluate", "inference", *sorted(set(SEVERAL.values()))])
def test_a_bundle_has_the_configs_of_the_zoo(any_bundle: Path, name: str) -> None:
    assert (any_bundle / "configs" / f"{name}.json").is_file()
    assert (any_bundle / "configs" / "logging.conf").is_file()
    assert (any_bundle / "LICENSE").is_file()


def test_a_bundle_has_sample_data_in_these_tests(bundle: Path) -> None:
    assert bundle.name in SAMPLES, "add small data for the new bundle to SAMPLES in bundle_runs.py"


@pytest.mark.parametrize(("bundle", "names"), uses())
def test_every_component_exists_and_takes_its_arguments(bundle: Path, names: tuple[str, ...]) -> None:
    found = list(components(read(bundle, *names).get()))
    assert len(found) > 10
    for component in found:
        where = ConfigComponent(config=component, id="", locator=LOCATOR).resolve_module_name()
        module, _, name = where.rpartition(".")
        target, exists = optional_import(module, name=name)
        assert exists, f"{component['_target_']} is nowhere"
        arguments = {key: value for key, value in component.items() if not key.startswith("_")}
        inspect.signature(target).bind(**arguments)


@pytest.mark.parametrize(("bundle", "names"), uses())
def test_every_reference_leads_somewhere(bundle: Path, names: tuple[str, ...]) -> None:
    parser = read(bundle, *names)
    for key in parser.get():
        parser.get_parsed_content(key, instantiate=False, eval_expr=False)


def test_sharpness_aware_steps_stand_before_the_clipping_and_are_resumed() -> None:
    """The overlay puts its handler in the place of another, by number."""
    bundle = next(bundle for bundle in BUNDLES if bundle.name == "fundus_vessel_segmentation")
    plain, sharp = (read(bundle, *names).get() for names in (("train",), ("train", "sharpness_aware")))
    before, after = (config["train"]["handlers"] for config in (plain, sharp))
    place = after.index("@sharpness")
    clipping = before[place]
    assert clipping["_target_"] == "monai_ext.handlers.GradientClipping"
    assert after[:1] + after[1:place] + after[place + 1 : -1] == [after[0], *before[1:place], *before[place + 1 :]]
    assert after[-1] == clipping
    assert after[0]["states"] == before[0]["states"].removesuffix(")") + ", sharpness=@sharpness)"


@pytest.mark.parametrize("name", ["train", "inference"])
def test_what_users_change_stands_first(any_bundle: Path, name: str) -> None:
    config = load_config(any_bundle, name)
    config.pop("imports")
    keys = list(config)
    variables = [key for key in VARIABLES if key in keys]
    if name == "train":
        assert variables == VARIABLES
    places = [keys.index(key) for key in variables]
    assert places == sorted(places)
    assert places[-1] < next(i for i, key in enumerate(keys) if isinstance(config[key], dict))


@pytest.mark.parametrize("path", [TRACKING, *(p for bundle in BUNDLES for p in bundle.glob("configs/*.json"))], ids=str)
def test_files_are_laid_out_as_in_the_zoo(path: Path) -> None:
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n"


def test_paths_are_nobodys(any_bundle: Path) -> None:
    for name in ("train", "inference"):
        assert load_config(any_bundle, name)["dataset_dir"] == f"/workspace/data/{any_bundle.name}"
        assert load_config(any_bundle, name)["bundle_root"] == "."


def without(key: str, transforms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The transforms as they are for the other keys."""
    result = []
    for transform in transforms:
        keys = [transform["keys"]] if isinstance(transform["keys"], str) else transform["keys"]
        kept = [other for other in keys if other != key]
        if len(kept) == len(keys) or (kept and transform["_target_"] != "monai_ext.transforms.CheckSizesd"):
            result.append({**transform, "keys": kept})
    return result


def test_training_evaluation_and_inference_do_not_drift_apart(bundle: Path) -> None:
    train, evaluate, inference = (load_config(bundle, name) for name in ("train", "evaluate", "inference"))
    for key in ("size", "weights", "labels", "image_size", "enlarge", "adapters", "network_def", "network", "ckpt_dir"):
        assert train[key] == inference[key], key
    assert train["validate"]["inferer"] == inference["inferer"]
    seen = without("objects", without("label", train["validate"]["preprocessing"]["transforms"]))
    assert seen == without("label", inference["preprocessing"]["transforms"])
    # What the network sees in training is normalised the same.
    normalise = [t for t in train["train"]["preprocessing"]["transforms"] if t["_target_"] == "NormalizeIntensityd"]
    assert normalise == [t for t in inference["preprocessing"]["transforms"] if t in normalise]
    assert without("objects", without("label", evaluate["validate#postprocessing"]["transforms"])) == without(
        "label", inference["postprocessing"]["transforms"]
    )
    assert evaluate["threshold"] == inference["threshold"]
    assert evaluate["validate#handlers"][0] == inference["handlers"][0]


def test_bundles_do_not_drift_apart(any_bundle: Path) -> None:
    for name, key in (("train", "network_def"), ("train", "optimizer"), ("inference", "network_def")):
        one, other = (load_config(path, name)[key] for path in (any_bundle, BUNDLES[0]))
        assert one == other | {setting: one[setting] for setting in ("multimask", "label_embeddings") if setting in one}


def test_several_processes_are_configured_alike_in_all_bundles(any_bundle: Path) -> None:
    assert load_config(any_bundle, "multi_gpu_evaluate") == load_config(BUNDLES[0], "multi_gpu_evaluate")
    assert load_config(any_bundle, "multi_gpu_inference") == load_config(BUNDLES[0], "multi_gpu_inference")
    train = load_config(any_bundle, "multi_gpu_train")
    # The base is no call of `forward`; its inferer shares the work, and a handler averages the gradients.
    expected = load_config(BUNDLES[0], "multi_gpu_train")
    kept = {key: value for key, value in train.items() if not key.endswith("_disabled_")}
    assert kept == {k: v for k, v in expected.items() if k in kept} and ("network" in kept) == (any_bundle != BASE)
    # All that speaks or writes logs does so in the first process alone.
    config = load_config(any_bundle, "train")
    loud = {
        f"{part}#handlers#{place}#_disabled_"
        for part in ("train", "validate")
        for place, handler in enumerate(config[part]["handlers"])
        if isinstance(handler, dict) and handler["_target_"] in ("StatsHandler", "TensorBoardStatsHandler")
    }
    assert len(loud) == 4 and {key for key in train if key.endswith("_disabled_")} == loud


def test_a_federation_needs_the_same_of_every_bundle(any_bundle: Path) -> None:
    """The overlay names two handlers by number, and leaves the early stop out."""
    if any_bundle == BASE:
        assert not (any_bundle / "configs" / "federated.json").exists(), "it is made in one place"
        return
    overlay, train = (load_config(any_bundle, name) for name in ("federated", "train"))
    assert overlay == load_config(BUNDLES[0], "federated")
    targets = [handler["_target_"] for handler in train["train"]["handlers"]]
    assert [targets[0], targets[3]] == ["monai_ext.handlers.ResumeHandler", "ValidationHandler"]
    assert overlay["validate#handlers"] == [h for h in train["validate"]["handlers"] if h != "@early_stop"]


def test_tracking_names_what_every_bundle_has(any_bundle: Path) -> None:
    parser = read(any_bundle, "train")
    settings = json.loads(TRACKING.read_text())
    settings["configs"]["save_execute_config"] = False
    ConfigWorkflow.patch_bundle_tracking(parser, settings)
    parser.parse()
    for engine in ("train", "validate"):
        handlers = parser[f"{engine}#handlers"]
        assert handlers[-1]["_target_"] == "MLFlowHandler"
        parser.get_parsed_content(f"{engine}#handlers#{len(handlers) - 1}", instantiate=False, eval_expr=False)


@pytest.mark.parametrize("names", [("train",), ("train", "evaluate"), ("inference",)], ids="+".join)
def test_monai_finds_its_properties(names: tuple[str, ...], make_workflow: Callable[..., ConfigWorkflow]) -> None:
    assert make_workflow(*names).check_properties() == []


def test_a_config_can_be_run_by_every_usual_name(any_bundle: Path) -> None:
    train, evaluate, inference = (load_config(any_bundle, name) for name in ("train", "evaluate", "inference"))
    assert train["training"] == "$@run" and evaluate["evaluating"] == "$@run"
    assert all("run" in config for config in (train, evaluate, inference))


def test_nobody_is_in_two_splits(make_workflow: Callable[..., ConfigWorkflow]) -> None:
    train, evaluate = make_workflow("train").parser, make_workflow("train", "evaluate").parser
    splits = [
        train.get_parsed_content("train#dataset#data"),
        train.get_parsed_content("validate#dataset#data"),
        evaluate.get_parsed_content("validate#dataset#data"),
    ]
    for key in ("subject", "image", "label"):
        values = [{record[key] for record in split} for split in splits]
        assert all(values) and len(set().union(*values)) == sum(map(len, values)), key


def test_an_image_is_never_seen_the_same_way_twice(make_workflow: Callable[..., ConfigWorkflow]) -> None:
    dataset = make_workflow("train").parser.get_parsed_content("train#dataset")
    one, two = dataset[0], dataset[0]
    one, two = (item[0] if isinstance(item, list) else item for item in (one, two))
    assert one["image"].shape == two["image"].shape == (3, 64, 64)
    assert not one["image"].equal(two["image"])
