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

"""The page in a browser, as people use it, against a stand-in for the server whose model paints discs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator import Annotator, browsing
from PIL import Image
from stand_in import StandIn, painted, serving

SHAPE = (90, 120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as started:
        yield started


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    rng = np.random.default_rng(0)
    for name in ("eye_1", "eye_2", "eye_10"):
        Image.fromarray(rng.integers(0, 60, (*SHAPE, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def person(browser: Any, server: StandIn) -> Iterator[Annotator]:
    annotator = Annotator(browser, server.url)
    yield annotator
    annotator.context.close()
    assert not annotator.errors


def disc(x: int, y: int) -> np.ndarray:
    return painted(SHAPE, {"foreground": [[x, y]]})


def test_click_see_undo_brush_save_and_find_it_again(person: Annotator, server: StandIn) -> None:
    person.open("eye_1")
    bare = person.colour(40, 30)
    person.click(40, 30)
    assert server.requests == [
        {"label": "optic disc", "foreground": [[40, 30]], "background": [], "result_extension": ".png"}
    ]
    assert person.colour(44, 30) != bare and sum(person.colour(44, 30)) > 150  # the mask lies over a dark picture
    person.press("Control+z")
    assert sum(person.colour(44, 30)) < 180
    person.press("Control+y")
    person.click(50, 30, button="right")  # off the object
    person.press("b")
    person.page.fill("#size", "5")
    person.drag((20, 70), (60, 70))
    person.save()
    expected = painted(SHAPE, {"foreground": [[40, 30]], "background": [[50, 30]]})
    expected[68:73, 19:62] = expected[69:72, 18:63] = 1  # 5 wide, with round ends
    np.testing.assert_array_equal(server.saved("eye_1"), expected)
    assert server.labels["eye_1"]["label_info"] == [{"name": "optic disc", "idx": 1}, {"name": "optic cup", "idx": 2}]
    person.reload()
    assert "saved" in person.page.text_content("button[data-id=eye_1]")
    person.open("eye_1")
    person.press("b")
    person.drag((100, 10), (100, 10))
    person.save()
    changed = server.saved("eye_1") != expected
    assert changed[10, 100] and not changed[:, :90].any() and not changed[20:].any()


def test_labels_boxes_and_the_whole_picture(person: Annotator, server: StandIn) -> None:
    person.open("eye_2")
    person.press("a")  # the task's model: the disc above, the cup below
    person.wait_status("")
    person.page.wait_for_function("!document.querySelector('#undo').disabled")
    person.press("2", "x")
    person.page.check("#keep")
    person.drag((10, 60), (29, 79))  # a box for the cup over the border of both
    assert server.requests[-1]["roi"] == [10, 60, 29, 79] and server.requests[-1]["label"] == "optic cup"
    person.press("1", "e")
    person.page.fill("#size", "1")
    person.drag((5, 5), (15, 5))
    person.drag((5, 80), (15, 80))  # of the other label: the eraser leaves it
    person.save()
    expected = np.ones(SHAPE, np.uint8)
    expected[45:] = 2
    expected[5, 5:16] = 0
    np.testing.assert_array_equal(server.saved("eye_2"), expected)


def test_another_task_keeps_the_labels_that_are_there(person: Annotator, server: StandIn) -> None:
    person.open("eye_1")
    person.press("2")
    person.click(30, 30)
    person.save()
    person.page.select_option("#task", "vessels")
    person.page.keyboard.press("p")
    person.click(80, 30)
    person.page.fill("#new-label", "lesion")
    person.press("Enter")
    person.click(80, 70)
    person.save()
    names = [entry["name"] for entry in server.labels["eye_1"]["label_info"]]
    assert names == ["vessel", "optic disc", "optic cup", "lesion"]
    np.testing.assert_array_equal(server.saved("eye_1"), disc(80, 30) + 3 * disc(30, 30) + 4 * disc(80, 70))


def test_by_keyboard_alone(person: Annotator, server: StandIn) -> None:
    person.press("g")  # the next picture by active learning
    person.page.wait_for_function("document.title.includes('eye_1')")
    person.press("c", "Shift+ArrowLeft", "ArrowUp", "Space")
    person.wait_status("")
    person.press("Enter", "b", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight")
    person.press(*"[[[[[[[[[[[[[[[", "Space", "ArrowRight", "ArrowRight", "Space")  # a stroke of 3 single pixels
    person.press("2", "x", "Shift+ArrowDown", "Shift+ArrowDown", "Space", "ArrowRight", "ArrowDown", "Space")
    person.wait_status("")
    person.press("s")
    person.wait_status("is saved")
    expected = disc(50, 44)
    expected[44, 80:83] = 1
    expected[64:66, 82:84] = 2
    np.testing.assert_array_equal(server.saved("eye_1"), expected)
    person.press("?")
    assert person.page.is_visible("#help-window")
    person.press("Escape", "PageDown")
    person.page.wait_for_function("document.title.includes('eye_2')")


def test_the_servers_sentence_is_shown_and_nothing_is_lost(person: Annotator, server: StandIn) -> None:
    person.open("eye_1")
    person.click(40, 30)
    server.problem = "The label <b>must</b> be known, not this."
    person.click(80, 60)
    assert person.error == server.problem
    person.press("Escape")
    person.press("s")
    assert person.error == server.problem
    person.wait_draft("eye_1")
    server.problem = ""
    person.save()
    np.testing.assert_array_equal(server.saved("eye_1"), disc(40, 30))


def test_unsaved_work_comes_back_after_a_crash(person: Annotator, server: StandIn) -> None:
    server.save("eye_1", server.folder.joinpath("eye_1.png").read_bytes(), {})
    Image.fromarray(2 * disc(90, 60)).save(server.label_path("eye_1"))
    person.open("eye_1")
    person.click(40, 30)
    person.wait_draft("eye_1")
    assert person.page.evaluate("() => !dispatchEvent(new Event('beforeunload', {cancelable: true}))")  # it warns
    person.open("eye_2")  # to another picture and back
    person.open("eye_1")
    person.wait_status("is back")
    person.reload(crash=True)
    assert "unsaved" in person.page.text_content("button[data-id=eye_1]")
    person.open("eye_1")
    person.wait_status("is back")
    person.save()
    np.testing.assert_array_equal(server.saved("eye_1"), disc(40, 30) + 2 * disc(90, 60))
    assert person.page.evaluate("() => dispatchEvent(new Event('beforeunload', {cancelable: true}))")
    person.page.wait_for_function("!document.querySelector('.unsaved')")


def test_two_people_at_once(person: Annotator, server: StandIn, browser: Any) -> None:
    other = Annotator(browser, server.url)
    for each in (person, other):
        each.open("eye_1")
    person.click(40, 30)
    person.save()
    other.click(80, 60)
    other.press("s")
    other.page.click("#conflict button[value=theirs]")
    other.wait_status("somebody else")
    np.testing.assert_array_equal(server.saved("eye_1"), disc(40, 30))
    other.press("Control+z")
    other.save()  # now it is known what is replaced
    np.testing.assert_array_equal(server.saved("eye_1"), disc(80, 60))
    person.press("2")
    person.click(100, 20)
    person.press("s")
    person.page.click("#conflict button[value=mine]")
    person.wait_status("is saved")
    np.testing.assert_array_equal(server.saved("eye_1"), disc(40, 30) + 2 * disc(100, 20))
    assert not other.errors
    other.context.close()


def test_a_slow_model_takes_quick_clicks_in_order_and_can_be_given_up(person: Annotator, server: StandIn) -> None:
    server.delay = 0.3
    person.open("eye_1")
    for x in (20, 60):  # of one object: they overtake the answer
        person.page.mouse.click(*person.at(x, 20))
    person.press("x")
    person.page.mouse.move(*person.at(20, 60))
    person.page.mouse.down()
    person.page.mouse.move(*person.at(40, 80))
    person.page.mouse.up()  # another object: it waits
    person.press("s")
    person.wait_status("is saved")
    expected = disc(20, 20) | disc(60, 20) | painted(SHAPE, {"roi": [20, 60, 40, 80]})
    np.testing.assert_array_equal(server.saved("eye_1"), expected)
    person.press("p")
    person.page.mouse.click(*person.at(100, 50))
    person.press("Escape")
    person.wait_status("Given up")
    person.save()
    np.testing.assert_array_equal(server.saved("eye_1"), expected)


def test_a_photograph_of_eight_million_pixels(person: Annotator, server: StandIn) -> None:
    shape = (2336, 3504)
    Image.fromarray(np.full((*shape, 3), 40, np.uint8)).save(server.folder / "large.jpg")
    person.reload()
    person.open("large")
    person.press("a")
    person.page.wait_for_function("!document.querySelector('#undo').disabled")
    person.page.click("#zoom-one")
    person.press("b", "2")
    person.page.fill("#size", "3")
    box = person.page.locator("#canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    person.page.mouse.move(*middle)
    person.page.mouse.down()
    person.page.mouse.up()
    person.save()
    saved = server.saved("large")
    assert saved.shape == shape
    assert (saved[:1160] == 1).all() and (saved[1170:] == 2).all()
    np.testing.assert_array_equal(np.argwhere(saved[:1168] == 2).mean(0).round(), [1167, 1752])


def test_a_password_is_asked_for_once(browser: Any, server: StandIn) -> None:
    server.password = "open sesame"
    page = browser.new_page()
    page.goto(server.url)
    for password in ("wrong", server.password):
        page.fill("#user", "ann")
        page.fill("#password", password)
        page.click("#login button")
        page.wait_for_selector("#login-problem:has-text('wrong'), #pictures button")
    page.click("#pictures button[data-id=eye_1]")
    page.wait_for_selector("button[data-id=eye_1][aria-current]")
    page.reload()
    page.wait_for_selector("#pictures button")
    assert not page.is_visible("#login")
    page.close()


def test_labels_that_do_not_belong_here_are_not_opened(person: Annotator, server: StandIn) -> None:
    for mask, sentence in (
        (np.full(SHAPE, 7, np.uint8), "holds the number 7"),
        (np.zeros((9, 9), np.uint8), "9 x 9 pixels, the picture 120 x 90"),
    ):
        server.save("eye_1", b"", {})
        Image.fromarray(mask).save(server.label_path("eye_1"))
        person.page.click("button[data-id=eye_1]")
        shown = "t => document.querySelector('#error-text').textContent.includes(t)"
        person.page.wait_for_function(shown, arg=sentence)
    assert person.page.is_disabled("#save")
    person.open("eye_2")  # the rest can be worked on
    person.page.wait_for_selector("#error", state="hidden")


# Texts whose contrast with what lies behind them is below 4.5, the bound of WCAG 2.1 for small print.
FAINT = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => (e === null ? "rgb(0, 0, 0)"
    : (parts(getComputedStyle(e).backgroundColor)[3] ?? 1) === 1 ? getComputedStyle(e).backgroundColor
    : behind(e.parentElement));
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.disabled
    && [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()));
  return texts.map((e) => {
    const [low, high] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => a - b);
    return [e.outerHTML.slice(0, 80), (high + 0.05) / (low + 0.05)];
  }).filter(([, ratio]) => ratio < 4.5);
}"""


def test_everything_has_a_name_and_colours_have_contrast(person: Annotator) -> None:
    person.open("eye_1")
    nameless = person.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, dialog, nav, aside")].filter((e) =>
          !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length || e.innerText?.trim()
            || e.textContent.trim())).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert person.page.evaluate(FAINT) == []
    for identity in ("status", "training-status"):
        assert person.page.get_attribute(f"#{identity}", "aria-live") == "polite"
    assert person.page.get_attribute("#error", "role") == "alert"
    # Nothing is fetched from elsewhere.
    hosts = "[...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name).host))]"
    assert person.page.evaluate(hosts) == [person.page.evaluate("location.host")]


def test_the_page_allows_nothing_from_elsewhere(browser: Any, server: StandIn) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.click("#pictures button[data-id=eye_1]")
    page.wait_for_selector("button[data-id=eye_1][aria-current]")
    refused = "fetch('https://example.org/').then(() => false, () => true)"
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text))
    assert page.evaluate(refused) and any("Content Security Policy" in text for text in blocked)
    page.close()
