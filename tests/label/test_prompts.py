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

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ext.label import ClickPrompts, ClickView, RequestRefused
from monai_ext.label.prompts import MAX_CLICKS

SIZE = (60, 40)
LABELS = ("optic disc", "Cup")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({}, "At least one click"),
        ({"foreground": []}, "At least one click"),
        ({"background": [[1, 1]]}, "At least one click"),
        ({"foreground": [[60, 1]]}, "outside the picture, which is 60 wide"),
        ({"foreground": [[1, -1]]}, "outside"),
        ({"foreground": [[1, 1]], "background": [[1, 40]]}, "of background lies outside"),
        ({"foreground": json.loads("[[NaN, 1]]")}, "numbers of a picture"),
        ({"foreground": json.loads("[[1, Infinity]]")}, "numbers of a picture"),
        ({"foreground": [[10**400, 1]]}, "numbers of a picture"),
        ({"foreground": [["1", 1]]}, "must hold numbers"),
        ({"foreground": [[True, 1]]}, "must hold numbers"),
        ({"foreground": "1,1"}, "must be a list"),
        ({"foreground": [5, 6]}, "lists of numbers"),
        ({"foreground": [[5]]}, "[x, y]"),
        ({"foreground": {"x": 1}}, "must be a list"),
        ({"roi": [1, 2, 3]}, "[x0, y0, x1, y1]"),
        ({"roi": [5, 5, 5, 9]}, "no part of the picture"),
        ({"roi": [70, 5, 80, 9]}, "no part of the picture"),
        ({"foreground": [[1, 1]], "label": "macula"}, "one of optic disc, Cup, not 'macula'"),
        ({"foreground": [[1, 1]]}, "which of optic disc, Cup"),
        ({"foreground": [[1, 1]], "label": 3}, "one of optic disc"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(params: dict, sentence: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        ClickPrompts.from_request(params, SIZE, LABELS)
    assert sentence in str(caught.value) and caught.value.status == 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["foreground", "background"])
def test_ten_thousand_clicks_are_too_many(name: str) -> None:
    params = {"foreground": [[1, 1]], name: [[1, 1]] * 10_000}
    with pytest.raises(RequestRefused, match=f"At most {MAX_CLICKS}") as caught:
        ClickPrompts.from_request(params, SIZE)
    assert caught.value.status == 413


def test_the_ways_of_each_client() -> None:
    slicer = {"foreground": [[3, 4, 0]], "background": [], "roi": [9, 2, 1, 8, 0, 0], "label": "CUP", "slice": 0}
    prompts = ClickPrompts.from_request(slicer, SIZE, LABELS)
    assert (prompts.foreground, prompts.box, prompts.label) == (((3, 4),), (2, 1, 9, 8), "Cup")
    cvat = {"output": "mask", "foreground": [], "background": [], "roi": [2, 1, 9, 8]}
    assert ClickPrompts.from_request(cvat, SIZE).box == (2, 1, 9, 8)
    sticking_out = {"roi": [-5, -5, 100, 20]}
    assert ClickPrompts.from_request(sticking_out, SIZE).box == (0, 0, 59, 20)


def test_a_base_takes_any_name_and_one_label_needs_none() -> None:
    params = {"foreground": [[1, 1]]}
    assert ClickPrompts.from_request({**params, "label": "anything"}, SIZE).label == "anything"
    assert ClickPrompts.from_request(params, SIZE, ["vessel"]).label == "vessel"


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    window=st.sampled_from([112, 224, 1024]),
    spots=st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), min_size=1, max_size=8),
)
def test_every_click_lies_in_the_view_and_the_view_in_the_picture(size, window, spots) -> None:
    clicks = tuple((int(x * size[0]), int(y * size[1])) for x, y in spots)
    prompts = ClickPrompts(foreground=clicks[:1], background=clicks[1:])
    view = ClickView.around(prompts, size, window)
    assert min(view.x, view.y) >= 0
    assert view.x + view.width <= size[0] and view.y + view.height <= size[1]
    for x, y in clicks:
        assert view.x <= x < view.x + view.width and view.y <= y < view.y + view.height
    assert max(view.width, view.height) <= view.reduction * window
    # One click is seen at full detail.
    assert ClickView.around(ClickPrompts(foreground=clicks[:1]), size, window).reduction == 1


def test_clicks_near_the_first_share_its_view() -> None:
    size = (3504, 2336)
    first = ClickView.around(ClickPrompts(foreground=((1000, 800),)), size, 224)
    for click in ((1040, 830), (960, 770), (1060, 800)):
        assert ClickView.around(ClickPrompts(foreground=((1000, 800),), background=(click,)), size, 224) == first
    far = ClickView.around(ClickPrompts(foreground=((1000, 800), (1130, 800))), size, 224)
    assert far.reduction == 2
