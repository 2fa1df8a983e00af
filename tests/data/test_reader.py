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

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from monai.transforms import LoadImaged
from monai.utils import MetaKeys
from PIL import Image, ImageFile

from monai_ext.data.reader import IMAGE_SUFFIXES, PhotographReader

HEIGHT, WIDTH = 5, 8
# A gradient of colours; smooth, so that JPEG keeps it; its brightest corner is the upper right one.
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([10 + 30 * X + 2 * (HEIGHT - Y), 100 + 12 * X, 200 - 20 * Y], axis=-1).astype(np.uint8)
GREY = RGB[..., 0]
LABELS = ((X + Y) % 3).astype(np.uint8)


def _palette_image(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette(colours)
    return image


def _with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], 9, dtype=pixels.dtype)])


def _save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def _wide(pixels: np.ndarray) -> np.ndarray:
    """The same picture in 16 bits, with something in the lower ones."""
    return pixels.astype(np.uint16) * 257


def _png_16_bit_rgb(pixels: np.ndarray) -> bytes:
    import imagecodecs

    return imagecodecs.png_encode(_wide(pixels))


def _image(path: Path) -> np.ndarray:
    return PhotographReader().get_data(PhotographReader().read(path))[0].swapaxes(0, 1)


def _mask(path: Path) -> np.ndarray:
    return PhotographReader(channels=1).get_data(path)[0].T


IMAGES = {
    "rgb.jpg": (RGB, {"quality": 100, "subsampling": 0}),
    "grey.jpg": (GREY, {"quality": 100}),
    "rgb.png": (RGB, {}),
    "rgba.png": (_with_alpha(RGB), {}),
    "grey.png": (GREY, {}),
    "grey_alpha.png": (_with_alpha(GREY), {}),
    "grey16.png": (_wide(GREY), {}),
    "palette.png": (Image.fromarray(RGB).quantize(256), {}),
    "bits.png": (Image.fromarray(GREY > 99), {}),
    "rgb.tif": (RGB, {}),
    "rgba.tif": (_with_alpha(RGB), {}),
    "grey.tif": (GREY, {}),
    "grey16.tif": (_wide(GREY), {}),
    "grey16_lzw.tif": (_wide(GREY), {"compression": "tiff_lzw"}),
    "float.tif": ((GREY / 255).astype(np.float32), {}),
    "palette.tif": (Image.fromarray(RGB).quantize(256), {}),
    "rgb.ppm": (RGB, {}),
    "grey.pgm": (GREY, {}),
    "grey16.pgm": (_wide(GREY), {}),
    "bits.pbm": (Image.fromarray(GREY > 99), {}),
    "rgb.bmp": (RGB, {}),
    "grey.bmp": (GREY, {}),
    "palette.gif": (Image.fromarray(RGB).quantize(256), {}),
    "grey.gif": (GREY, {}),
}


def _expected(name: str) -> np.ndarray:
    if name.startswith("bits"):
        return np.repeat((GREY > 99)[..., None], 3, -1).astype(float)
    return (RGB if name.startswith(("rgb", "palette")) else np.repeat(GREY[..., None], 3, -1)) / 255


@pytest.mark.parametrize("name", IMAGES)
def test_every_kind_of_image_comes_out_as_rgb_between_0_and_1(tmp_path: Path, name: str) -> None:
    pixels, options = IMAGES[name]
    image = _image(_save(tmp_path / name, pixels, **options))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.float32
    tolerance = 3 / 255 if name.endswith(".jpg") else 1 / 255
    np.testing.assert_allclose(image, _expected(name), atol=tolerance + 1e-6)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"compression": "lzw"}, {"byteorder": ">"}])
@pytest.mark.parametrize("pixels", [_wide(RGB), _wide(_with_alpha(RGB)), (RGB / 255).astype(np.float32)])
def test_colour_tiff_of_more_than_8_bits_is_exact(tmp_path: Path, pixels: np.ndarray, options: dict) -> None:
    extra = {"extrasamples": ["unassalpha"]} if pixels.shape[-1] == 4 else {}
    if "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", **extra, **options)
    np.testing.assert_allclose(_image(path), RGB / 255, atol=1e-6)


def test_16_bit_colour_png_keeps_its_upper_bits(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(_png_16_bit_rgb(RGB))
    np.testing.assert_allclose(_image(path), RGB / 255, atol=1 / 255)
    path.write_bytes(_png_16_bit_rgb(np.repeat(LABELS[..., None], 3, -1)))
    with pytest.raises(ValueError, match=r"deep\.png must be a mask of one channel, not 16-bit colour"):
        _mask(path)


def test_16_bits_are_not_cut_to_8(tmp_path: Path) -> None:
    pixels = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) + 1000).astype(np.uint16)
    for name in ("a.png", "a.tif", "a.pgm"):
        np.testing.assert_allclose(_image(_save(tmp_path / name, pixels))[..., 0], pixels / 65535, atol=1e-7)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.tif"])
def test_exif_orientation_is_applied_once(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    if name == "deep.tif":
        tifffile.imwrite(path, _wide(RGB), photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        _save(path, RGB, exif=exif)
    turned = {2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1)}
    turned |= {7: RGB[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(RGB)}
    np.testing.assert_allclose(_image(path), turned.get(orientation, RGB) / 255, atol=1e-6)


def test_loadimaged_gives_channel_width_height_as_with_the_pil_reader(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", RGB)
    _save(tmp_path / "m.png", LABELS)
    ours = LoadImaged("image", reader=PhotographReader(), ensure_channel_first=True)({"image": path})["image"]
    monais = LoadImaged("image", reader="PILReader", ensure_channel_first=True)({"image": path})["image"]
    assert ours.shape == (3, WIDTH, HEIGHT)
    np.testing.assert_allclose(ours * 255, monais, atol=1e-4)
    assert ours[0].argmax() == (WIDTH - 1) * HEIGHT  # the upper right corner
    np.testing.assert_array_equal(ours.affine, np.eye(4))
    assert set(ours.meta) == set(monais.meta)
    np.testing.assert_array_equal(ours.meta[MetaKeys.SPATIAL_SHAPE], monais.meta[MetaKeys.SPATIAL_SHAPE])
    mask = LoadImaged("m", reader=PhotographReader(channels=1), ensure_channel_first=True)({"m": tmp_path / "m.png"})
    np.testing.assert_array_equal(mask["m"][0].T, LABELS)


RED_PALETTE = [0, 0, 0, 255, 0, 0, 0, 255, 0]
MASKS = {
    "grey.png": (LABELS, {}),
    "grey16.png": (LABELS.astype(np.uint16), {}),
    "two_bits.png": (_palette_image(LABELS, RED_PALETTE), {"bits": 2}),
    "palette.tif": (_palette_image(LABELS, RED_PALETTE), {}),
    "palette.gif": (_palette_image(LABELS, RED_PALETTE), {}),
    "equal.png": (np.repeat(LABELS[..., None], 3, -1), {}),
    "equal_alpha.png": (_with_alpha(np.repeat(LABELS[..., None], 3, -1)), {}),
    "grey.bmp": (LABELS, {}),
    "grey.pgm": (LABELS, {}),
    "int.tif": (LABELS.astype(np.int32), {}),
    "float.tif": (LABELS.astype(np.float32), {}),
}


@pytest.mark.parametrize("name", MASKS)
def test_every_kind_of_mask_keeps_its_stored_values(tmp_path: Path, name: str) -> None:
    pixels, options = MASKS[name]
    mask = _mask(_save(tmp_path / name, pixels, **options))
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, LABELS)


def test_grey_palette_gives_grey_values_even_when_white_comes_first(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.gif", _palette_image(LABELS, [255, 255, 255, 0, 0, 0, 7, 7, 7]), optimize=False)
    np.testing.assert_array_equal(_mask(path), np.array([255, 0, 7])[LABELS])


def _png_of_few_bits(pixels: np.ndarray, bits: int) -> bytes:
    unpacked = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - bits :].reshape(len(pixels), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(unpacked, axis=-1))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_masks_of_few_bits_are_not_stretched(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    path.write_bytes(_png_of_few_bits((LABELS > 0).astype(np.uint8), 1))
    np.testing.assert_array_equal(_mask(path), LABELS > 0)
    for content in (
        _png_of_few_bits(LABELS, 2),
        _png_of_few_bits(LABELS, 4),
        b"P5 8 5 2\n" + LABELS.tobytes(),
        b"P2 8 5 2\n" + b" ".join(b"%d" % value for value in LABELS.ravel()),
        b"P5 8 5 300\n" + LABELS.astype(">u2").tobytes(),
    ):
        path.write_bytes(content)
        np.testing.assert_array_equal(_mask(path), LABELS)


BAD_IMAGES = {
    "zero bytes": (b"", "is empty"),
    "text": (b"this is not an image, whatever its name says", "must be an image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "must be an image"),
    "constant": (np.full((5, 8, 3), 7, np.uint8), "same colour everywhere"),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), "must be grey, RGB or palette.*CMYK"),
    "five channels": (np.dstack([RGB, RGB[..., :2]]), "must be grey, RGB or palette"),
    "four grey channels": (np.dstack([GREY, GREY, LABELS, LABELS]), "must be grey, RGB or palette"),
    "NaN": (np.where(X == 3, np.nan, GREY / 255).astype(np.float32), "NaN or infinity"),
    "infinity": (np.where(X == 3, np.inf, GREY / 255).astype(np.float32), "NaN or infinity"),
    "float of 255": (GREY.astype(np.float32), "floats in 0..1"),
    "32 bits": (GREY.astype(np.int32), "8 or 16 bits"),
}
BAD_MASKS = {
    "colour": (RGB, "mask of one channel"),
    "fractions": ((GREY / 255).astype(np.float32), "whole numbers"),
    "NaN": (np.where(X == 3, np.nan, 1).astype(np.float32), "whole numbers"),
    "zero bytes": (b"", "is empty"),
}


def _write_anything(path: Path, content: bytes | np.ndarray | Image.Image) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray) and content.ndim == 3:
        photometric = "rgb" if content.shape[2] == 3 else "minisblack"
        tifffile.imwrite(path, content, photometric=photometric, planarconfig="contig")
    elif isinstance(content, np.ndarray):
        tifffile.imwrite(path, content)
    else:
        content.save(path)


@pytest.mark.parametrize(
    ("channels", "content", "words"),
    [(3, *case) for case in BAD_IMAGES.values()] + [(1, *case) for case in BAD_MASKS.values()],
    ids=[*BAD_IMAGES, *(f"mask: {name}" for name in BAD_MASKS)],
)
def test_bad_files_give_one_sentence_that_names_them(
    tmp_path: Path, channels: int, content: bytes | np.ndarray | Image.Image, words: str
) -> None:
    path = tmp_path / "bad.tif"
    _write_anything(path, content)
    with pytest.raises(ValueError, match=words) as error:
        PhotographReader(channels=channels).get_data(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_missing_files_folders_and_several_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.png"):
        with pytest.raises(ValueError, match="is not a file"):
            _image(path)
    with pytest.raises(ValueError, match=r"must be given one file, not 2: a\.png, b\.png"):
        PhotographReader().get_data(("a.png", "b.png"))
    with pytest.raises(ValueError, match="channels must be 3"):
        PhotographReader(channels=2)


def test_a_bad_file_is_not_handed_to_more_lenient_readers(tmp_path: Path) -> None:
    """LoadImage tries MONAI's own readers when ours fails to read; PILReader loads a constant image, say."""
    path = _save(tmp_path / "constant.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="same colour everywhere"):
        LoadImaged("image", reader=PhotographReader())({"image": str(path)})


def test_suffixes_are_verified() -> None:
    reader = PhotographReader()
    assert all(reader.verify_suffix(f"a{suffix.upper()}") for suffix in IMAGE_SUFFIXES)
    assert not reader.verify_suffix("a.nii.gz")


def _deep_tiff(**options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, _wide(RGB), photometric="rgb", **options)
    return buffer.getvalue()


def _encode(kind: str, pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


WHOLE_FILES = {
    "jpeg": _encode("JPEG", RGB),
    "progressive jpeg": _encode("JPEG", RGB, progressive=True),
    "png": _encode("PNG", RGB),
    "png 16": _encode("PNG", _wide(GREY)),
    "bmp": _encode("BMP", RGB),
    "gif": _encode("GIF", GREY),
    "ppm": _encode("PPM", RGB),
    "tiff": _encode("TIFF", RGB),
    "tiff lzw": _encode("TIFF", RGB, compression="tiff_lzw"),
    "tiff 16": _deep_tiff(),
    "tiff 16 strips": _deep_tiff(rowsperstrip=1),
    "tiff 16 deflate": _deep_tiff(compression="zlib", rowsperstrip=2),
}


@pytest.mark.parametrize("lenient", [False, True])
@example(name="tiff lzw", keep=0.965)  # tags end early: tifffile would make a picture of what is left
@given(name=st.sampled_from(sorted(WHOLE_FILES)), keep=st.floats(0, 1, exclude_max=True))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
def test_a_truncated_file_never_gives_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenient: bool, name: str, keep: float
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)  # other libraries switch it on for all
    content = WHOLE_FILES[name]
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.write_bytes(content)
    part.write_bytes(content[: int(keep * len(content))])
    try:
        image = _image(part)
    except ValueError as error:
        assert str(part) in str(error)
    else:  # nothing but the end marker was lost
        np.testing.assert_array_equal(image, _image(whole))
    assert lenient is ImageFile.LOAD_TRUNCATED_IMAGES


def test_real_files_of_public_data_sets(shared_data: Path) -> None:
    fov = _mask(shared_data / "chase_db1" / "fov" / "Image_01L.gif")  # palette with white first
    assert np.unique(fov).tolist() == [0, 255] and fov[0, 0] == 0 and fov[480, 500] == 255
    disc = _mask(shared_data / "idrid_disc" / "masks" / "IDRiD_01_OD.tif")  # red palette
    assert np.unique(disc).tolist() == [0, 1]
    vessels = _mask(shared_data / "hrf" / "mask" / "01_dr.tif")
    assert np.unique(vessels).tolist() == [0, 255]
    photograph = _image(shared_data / "chase_db1" / "training" / "images" / "Image_01L.jpg")
    assert photograph.shape == (960, 999, 3)
