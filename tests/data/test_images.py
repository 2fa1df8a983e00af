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
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ext.data.images import ImageList

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def _write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(path)


def _names(images: ImageList) -> list[str]:
    return [Path(item["image"]).name for item in images.datalist]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images among what else lies about in a folder."""
    folder = tmp_path / "photographs"
    _write(folder / "b.PNG", folder / "a.jpg", folder / "deeper" / "c.png", folder / ".hidden.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_gives_its_own_images_in_order(folder: Path) -> None:
    assert _names(ImageList(source=folder)) == ["a.jpg", "b.PNG"]


def test_a_pattern_gives_the_images_that_match(folder: Path) -> None:
    assert _names(ImageList(source=f"{folder}/*")) == ["a.jpg", "b.PNG"]
    assert _names(ImageList(source=f"{folder}/*.jpg")) == ["a.jpg"]
    assert _names(ImageList(source=f"{folder}/**/*.png")) == ["c.png"]


def test_a_file_is_itself_even_with_the_signs_of_a_pattern_in_its_name(tmp_path: Path) -> None:
    _write(tmp_path / "a[1].png")
    assert _names(ImageList(source=str(tmp_path / "a[1].png"))) == ["a[1].png"]


@pytest.mark.parametrize("section", ["testing", "test", "validation", None])
@pytest.mark.parametrize("as_dicts", [True, False])
def test_a_datalist_is_read_relative_to_itself(folder: Path, section: str | None, as_dicts: bool) -> None:
    items = [{"image": name, "label": name, "subject": "07"} if as_dicts else name for name in ("b.PNG", "a.jpg")]
    path = folder / "list.json"
    path.write_text(json.dumps({section: items, "training": ["nothing.png"]} if section else items))
    images = ImageList(source=path)
    assert [item["image"] for item in images.datalist] == [str(folder / "b.PNG"), str(folder / "a.jpg")]
    if as_dicts:
        assert images.datalist[0] == {"image": str(folder / "b.PNG"), "label": str(folder / "b.PNG"), "subject": "07"}


def test_a_list_of_paths_or_dicts_under_another_key(folder: Path) -> None:
    images = ImageList(source=[folder / "a.jpg", {"photo": str(folder / "b.PNG"), "age": 9}], key="photo")
    assert images.datalist == [{"photo": str(folder / "a.jpg")}, {"photo": str(folder / "b.PNG"), "age": 9}]


def test_bad_images_are_left_out_logged_and_listed_at_the_end(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        images = ImageList(source=[*(str(folder / name) for name in ("a.jpg", "empty.png", "cut.jpg", "gone.png"))])
    assert _names(images) == ["a.jpg"]
    assert [Path(path).name for path in images.rejected] == ["empty.png", "cut.jpg", "gone.png"]
    images.add_failure(folder / "a.jpg", "no space left on the disk.")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4
    with pytest.raises(SystemExit) as end:
        images.finish()
    assert isinstance(end.value.code, str)  # which Python prints, and exits with 1
    lines = end.value.code.splitlines()
    assert len(lines) == 5 and lines[0].startswith("4 of the images failed")
    for line, name in zip(lines[1:], ("empty.png", "cut.jpg", "gone.png", "a.jpg"), strict=True):
        assert line.count(name) == 1


def test_finish_does_nothing_when_all_is_well(folder: Path) -> None:
    ImageList(source=folder).finish()


def test_two_images_with_results_of_one_name_are_refused(folder: Path) -> None:
    _write(folder / "a.png")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png would both write results named 'a'"):
        ImageList(source=folder)
    with pytest.raises(ValueError, match="would both write"):
        ImageList(source=[str(folder / "a.jpg")] * 2)
    _write(folder / "deeper" / "b.png")
    with pytest.raises(ValueError, match=r"b\.PNG and .*deeper.b\.png would both"):
        ImageList(source=[folder / "b.PNG", folder / "deeper" / "b.png"])


def test_nothing_usable_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for source in (tmp_path, str(tmp_path / "*.png"), []):
        with pytest.raises(ValueError, match=r"names no image; looked for \.jpg, \.jpeg, \.png"):
            ImageList(source=source)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)none of the 1 images in .* can be used.*empty\.png is empty"):
        ImageList(source=tmp_path)


@pytest.mark.parametrize("name", ["nothing", "nothing.png", "nothing.json"])
def test_a_source_that_does_not_exist_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        ImageList(source=tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not parse"),
        ('{"training": []}', "must have a list named testing, test, validation, not only training"),
        ('{"test": "a.png"}', "must hold a list of images, not str"),
        ('"a.png"', "must hold a list of images, not str"),
        ('[{"label": "a.png"}]', "item 0 of .* must be a path or have one under 'image'"),
        ("[3]", "item 0 of .* must be a path"),
    ],
)
def test_a_broken_datalist_is_explained(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        ImageList(source=path)
    assert "list.json" in str(error.value)


@pytest.mark.parametrize(("count", "shown"), [(19, False), (20, True)])
def test_many_images_have_a_progress_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, shown: bool
) -> None:
    _write(*(tmp_path / f"{number}.png" for number in range(count)))
    assert len(ImageList(source=tmp_path).datalist) == count
    assert ("Opening images" in capsys.readouterr().err) is shown


def test_it_is_built_from_json(folder: Path) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser(
        {
            "images": {"_target_": "monai_ext.data.images.ImageList", "source": str(folder)},
            "data": "$@images.datalist",
        }
    )
    assert len(parser.get_parsed_content("data")) == 2
