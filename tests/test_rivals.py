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


"""
Bugs seen in other projects that tune SAM with adapters, and the tests that keep them out of this one.

The left column is what went wrong elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

BUGS: dict[str, list[str]] = {
    "1 fused qkv sliced by in_features where Hiera's width changes": [
        "adapters/test_adapters.py::test_exactly_the_chosen_thirds_change",
    ],
    "2 training through a predictor under no_grad": [
        "networks/test_segmenter.py::test_only_what_is_meant_trains_and_gets_a_gradient",
        "adapters/test_adapters.py::test_every_parameter_gets_a_gradient_and_nothing_else_does",
    ],
    "3 adapter is no identity at its start": [
        "adapters/test_adapters.py::test_identity_at_initialisation",
        "networks/test_segmenter.py::test_adapters_change_nothing_before_training",
    ],
    "4 ReLU over a low-rank update of singular values": [
        "adapters/test_adapters.py::test_the_gradient_reaches_all_singular_values_at_the_start",
        "adapters/test_adapters.py::test_singular_values_that_were_clipped_come_back",
    ],
    "5 SVD factors are no buffers and are rebuilt in each forward": [
        "adapters/test_adapters.py::test_factors_follow_and_are_not_saved",
        "adapters/test_adapters.py::test_an_evaluation_forms_the_weights_once_and_notices_every_change",
    ],
    "6 non-strict loading drops the adapter silently": [
        "networks/test_segmenter.py::test_wrong_files_are_refused_and_nothing_is_loaded",
        "bundles/test_bad_input.py::test_a_model_for_other_settings",
    ],
    "7 checkpoint by position": [
        "networks/test_segmenter.py::test_the_saved_part_is_small_safe_and_complete",
        "bundles/test_runs.py::test_training_leaves_the_model_and_its_description",
    ],
    "8 double sigmoid, or none": [
        "losses/test_tversky.py::test_perfect_logits_cost_nothing",
        "losses/test_tversky.py::test_defaults_are_the_loss_of_sam2lora",
    ],
    "9 asymmetry of Tversky cancels": [
        "losses/test_tversky.py::test_swapping_errors_swaps_their_weights",
        "losses/test_tversky.py::test_asymmetry_does_not_cancel_over_exclusive_labels",
    ],
    "10 what an empty mask means": [
        "losses/test_tversky.py::test_false_positives_on_an_empty_label_are_punished",
        "handlers/test_report.py::test_only_one_mask_empty_is_punished_and_what_is_undefined_is_left_out",
    ],
    "11 weights of a loss do nothing": [
        "losses/test_tversky.py::test_each_argument_moves_its_terms_only",
    ],
    "12 global random state reseeded, config changed by its run": [
        "networks/test_segmenter.py::test_construction_touches_no_random_state_and_is_reproducible",
        "test_package.py::test_import_loads_nothing_heavy_and_draws_no_random_number",
        "bundles/test_runs.py::test_two_runs_give_the_same",
        "bundles/test_bad_input.py::test_training_with_bad_settings",  # a word for a bool
    ],
    "13 model chosen on the test images": [
        "bundles/test_configs.py::test_nobody_is_in_two_splits",
        "data/test_layouts.py::test_no_subject_is_in_two_splits_whatever_the_names",
    ],
    "14 merging drifts in bfloat16, or merges twice": [
        "adapters/test_adapters.py::test_merge_and_unmerge",
        "networks/test_segmenter.py::test_merged_equals_unmerged_and_is_plain_sam2",
    ],
    "15 a batch is decoded from its last image": [
        "networks/test_segmenter.py::test_batch_equals_its_items_alone",
    ],
    "16 focal Tversky has no finite gradient at a perfect answer": [
        "losses/test_tversky.py::test_all_empty_batch_with_confident_background",
        "losses/test_tversky.py::test_gradient_is_finite_and_bounded_all_the_way_to_perfect",
    ],
    "17 the first epoch's augmentation is repeated for ever": [
        "handlers/test_resume.py::test_every_epoch_has_its_own_crops_and_order",
        "bundles/test_configs.py::test_an_image_is_never_seen_the_same_way_twice",
    ],
    "18 gradient clipped before it is unscaled": [
        "handlers/test_gradient.py::test_with_amp_the_gradient_is_unscaled_before_it_is_clipped",
    ],
    "19 the wrapper changes the base, or its IoU head": [
        "networks/test_parity.py::test_prompted_output_equals_the_official_modules",
    ],
    "20 a parameter is lost by .to(device)": [
        "adapters/test_adapters.py::test_parameters_are_registered_and_follow",
    ],
}


def test_all_twenty_are_listed() -> None:
    assert [int(bug.split()[0]) for bug in BUGS] == list(range(1, 21))
    assert all(BUGS.values())


@pytest.mark.parametrize("test", sorted({test for tests in BUGS.values() for test in tests}))
def test_the_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^\s*def {name}\(", (TESTS / file).read_text(), re.M)
