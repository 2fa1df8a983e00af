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

"""The page on the real server: what a person sees is what is saved, pixel for pixel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from annotator import Annotator, browsing
from label_server import BASE, NUCLEI, LabelServer
from PIL import Image


@pytest.fixture(scope="module")
def people(server: LabelServer) -> Iterator[list[Annotator]]:
    with browsing() as browser:
        both = [Annotator(browser, f"{server.url}/annotate/") for _ in range(2)]
        for person in both:
            person.page.set_default_timeout(120_000)
            person.page.select_option("#task", NUCLEI)
        yield both
        assert not any(person.errors for person in both)


def saved(studies: Path, image: str) -> np.ndarray:
    return np.asarray(Image.open(studies / "labels/final" / f"{image}.png"))


def test_click_undo_brush_save_and_find_it_again(people: list[Annotator], server: LabelServer, studies: Path) -> None:
    person = people[0]
    person.open("tissue_1")
    assert person.page.input_value("#clicker") == BASE
    person.click(40, 30)
    person.click(60, 50)
    person.press("Control+z")
    person.press("b")
    person.page.fill("#size", "1")
    person.drag((3, 70), (12, 70))
    person.save()
    expected = server.mask(BASE, "tissue_1", foreground=[[40, 30]], label="nucleus", result_extension=".png").copy()
    expected[70, 3:13] = 1
    np.testing.assert_array_equal(saved(studies, "tissue_1"), expected)
    person.reload()
    person.open("tissue_1")
    person.wait_status("its saved label is shown")
    person.page.select_option("#task", NUCLEI)
    person.press("b")
    person.page.fill("#size", "1")
    person.drag((90, 5), (90, 5))
    person.save()
    assert np.argwhere(saved(studies, "tissue_1") != expected).tolist() == [[5, 90]]


def test_the_whole_picture_of_a_tiff(people: list[Annotator], server: LabelServer, studies: Path) -> None:
    person = people[0]
    person.page.select_option("#task", NUCLEI)
    person.page.click("#pictures button[data-id=tissue_3]")
    person.page.wait_for_function("document.title.includes('tissue_3')")
    person.press("a")
    person.page.wait_for_function("!document.querySelector('#status').textContent.includes('at work')")
    person.save()
    expected = server.mask(NUCLEI, "tissue_3", result_extension=".png")
    np.testing.assert_array_equal(saved(studies, "tissue_3"), expected)


def test_two_people_and_a_sentence_of_the_server(people: list[Annotator], studies: Path) -> None:
    one, other = people
    for person in people:
        person.open("tissue_4")
        person.press("b")
    one.drag((10, 10), (20, 10))
    one.save()
    other.drag((10, 40), (20, 40))
    other.press("s")
    other.page.click("#conflict button[value=mine]")
    other.wait_status("is saved")
    mask = saved(studies, "tissue_4")
    assert mask[40, 15] == 1 and mask[10, 15] == 0
    other.page.click("#pictures button[data-id=cut]")
    assert "cut.png" in other.error and "Traceback" not in other.error
