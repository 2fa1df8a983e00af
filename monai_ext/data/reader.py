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

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, is_supported_format
from monai.utils import MetaKeys, ensure_tuple
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".gif")

_FORMATS = ("JPEG", "PNG", "TIFF", "PPM", "BMP", "GIF")
_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F", "P", "PA", "RGB", "RGBA")
# Other ways to store the same pictures: alpha multiplied in, video colours, a fourth byte without meaning.
_SAME_AS = {"La": "LA", "RGBa": "RGBA", "YCbCr": "RGB", "RGBX": "RGB"}
# Pillow fits these to 8 bits; the number is what white was in the file.
_STORED_WHITE = {"L;2": 3, "L;4": 15, "RGB;16B": 65535, "LA;16B": 65535, "RGBA;16B": 65535}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _ORIENTATION = 258, 277, 274


class PhotographReader(ImageReader):
    """
    Read photographs (JPEG, PNG, TIFF, PPM/PGM/PBM, BMP, GIF; 8 or 16 bit) and their masks, whole or not at all.

    MONAI's ``PILReader`` leaves bit depth, palettes, alpha and EXIF orientation to the user; here every image comes
    out as upright RGB in 0..1 and every mask as one channel of stored integers, so that the transforms that follow
    need not know the file. Grey becomes RGB by repetition and alpha is dropped. Of a file with several pictures the
    first is read. Of 16-bit colour PNG and PPM files Pillow keeps the upper 8 bits.

    Masks: a palette gives its index (IDRiD's red 0/1 TIFF), unless all its colours are grey, when it gives the grey
    value (GIF masks, which often have white as index 0). An RGB mask must have three equal channels. Grey masks of 1,
    2 or 4 bits keep their stored values.

    Args:
        channels: 3 to read images, 1 to read masks.

    Shape:
        ``get_data`` returns ``(W, H, 3)`` float32 in 0..1 for images, ``(W, H)`` int32 for masks, with the metadata
        of ``PILReader``; width and height are those of the upright picture.

    Raises:
        ValueError: ``channels`` is neither 3 nor 1; or ``get_data`` finds a file that is missing, empty, truncated, no
            image of these formats, has other channels, holds NaN, infinities or floats outside 0..1, or (images only)
            has the same colour everywhere.

    Example:
        >>> import tempfile
        >>> from monai.transforms import LoadImage
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.fromarray(np.array([[0, 255, 0]], dtype=np.uint8)).save(path)
        >>> image = LoadImage(reader=PhotographReader(), ensure_channel_first=True)(path)
        >>> tuple(image.shape), float(image[0, 1, 0])
        ((3, 3, 1), 1.0)

    """

    def __init__(self, *, channels: int = 3) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"channels must be 3 for images or 1 for masks, not {channels!r}.")
        self.channels = channels

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        return is_supported_format(filename, [suffix[1:] for suffix in IMAGE_SUFFIXES])

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[PathLike, ...]:
        # LoadImage hands a file whose read() raises to MONAI's other readers, which are less strict. Errors that come
        # from get_data() reach the user, so everything happens there.
        return ensure_tuple(data)

    def get_data(self, img: Sequence[PathLike] | PathLike) -> tuple[np.ndarray, dict]:
        paths = ensure_tuple(img)
        if len(paths) != 1:
            raise ValueError(
                f"PhotographReader must be given one file, not {len(paths)}: {', '.join(map(str, paths))}."
            )
        picture = _decode_file(Path(paths[0]))
        pixels = np.moveaxis(_as_image(picture) if self.channels == 3 else _as_mask(picture), 0, 1)
        shape = np.asarray(pixels.shape[:2])
        return pixels, {
            "format": picture.format,
            "mode": picture.mode,
            "width": int(shape[0]),
            "height": int(shape[1]),
            MetaKeys.SPATIAL_SHAPE: shape,
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if pixels.ndim == 3 else float("nan"),
        }


def mask_pixels(path: Path, *, colour: bool = False) -> np.ndarray:
    """
    The whole numbers of a mask as ``(W, H)`` int32, as :class:`PhotographReader` reads them.

    Args:
        path: the file.
        colour: whether it holds colours (RGB or a palette); they come out as ``65536 R + 256 G + B``.

    Raises:
        ValueError: the file cannot be read, or holds what is not asked for.
    """
    picture = _decode_file(path)
    return np.moveaxis(_as_colours(picture) if colour else _as_mask(picture), 0, 1)


def picture_size(path: Path) -> tuple[int, int]:
    """
    Width and height of a picture as :class:`PhotographReader` reads it, upright; only its head is read.

    Raises:
        ValueError: the file is no picture.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} must be an image ({', '.join(_FORMATS)}), but cannot be opened: {error}.") from error
    return (height, width) if turned else (width, height)


@dataclass(frozen=True)
class _Picture:
    """What a file holds: upright ``(H, W)`` or ``(H, W, 3)`` pixels; ``white`` in these pixels and in the file."""

    path: Path
    format: str
    mode: str
    pixels: np.ndarray
    white: int | None
    stored_white: int | None
    palette: np.ndarray | None = None


def _decode_file(path: Path) -> _Picture:
    if not path.is_file():
        raise ValueError(f"{path} is not a file; check the path.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy it again from its source.")
    try:
        picture = _with_pillow(path)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path} must be an image ({', '.join(_FORMATS)}), but its content is none of these or is cut off."
        ) from error
    except Exception as error:  # Pillow's plug-ins raise every kind of exception on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or cut off ({reason}); copy it again from its source.") from error
    if picture.mode not in _MODES or picture.pixels.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"{path} must be grey, RGB or palette, with or without alpha, not {picture.mode} with pixels of shape "
            f"{picture.pixels.shape}; convert it to RGB."
        )
    return picture


def _with_pillow(path: Path) -> _Picture:
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if _needs_tifffile(image):
                return _with_tifffile(path)
            white, stored_white = _white(image)  # before loading, which forgets how the pixels were stored
            ImageOps.exif_transpose(image, in_place=True)
            upright = image.convert(_SAME_AS[image.mode]) if image.mode in _SAME_AS else image
            pixels, palette = np.asarray(upright), _palette(upright)
            if upright.mode.endswith("A"):
                pixels = pixels[..., :-1].squeeze(-1) if pixels.shape[-1] == 2 else pixels[..., :-1]
            return _Picture(path, str(image.format), upright.mode, pixels, white, stored_white, palette)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(4) not in _TIFF_MAGIC:
                raise
        return _with_tifffile(path)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _needs_tifffile(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow would cut 16-bit colour to 8 bits or drop more channels than an alpha."""
    tags = getattr(image, "tag_v2", {})
    samples = tags.get(_SAMPLES_PER_PIXEL, 1)
    return samples > 4 or (samples > 1 and max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8)


def _white(image: ImageFile.ImageFile) -> tuple[int | None, int | None]:
    """White in the pixels that Pillow will give and in the file; None where the bit depth does not tell."""
    if image.mode in ("1", "F"):
        return 1, 1
    if image.mode.startswith("I;16"):
        white = 2 ** int(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]) - 1
        return white, white
    if image.mode == "I" and image.format == "TIFF":
        return None, None
    white = 65535 if image.mode == "I" else 255
    codec, _, _, options = image.tile[0]
    first, *rest = options if isinstance(options, tuple) else (options,)
    stored = rest[0] if codec in ("ppm", "ppm_plain") and rest else _STORED_WHITE.get(first, white)
    return white, stored


def _palette(image: Image.Image) -> np.ndarray | None:
    if image.mode not in ("P", "PA"):
        return None
    colours = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return np.pad(colours, ((0, 256 - len(colours)), (0, 0)))


def _with_tifffile(path: Path) -> _Picture:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError("this kind of TIFF needs tifffile: pip install tifffile imagecodecs") from error
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        # tifffile itself goes on without tags it cannot read and fills missing pixels with zeros.
        file.filehandle.seek(page.offset)
        (count,) = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))
        ends = [offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if count != len(page.tags) or max(ends) > file.filehandle.size:
            raise EOFError("its tags or pixels end early")
        pixels = page.asarray()
        if page.axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        colours = page.samplesperpixel - len(page.extrasamples)
        if colours in (1, 3) and page.samplesperpixel - colours == 1:
            pixels = pixels[..., 0] if colours == 1 else pixels[..., :3]
        orientation = page.tags[_ORIENTATION].value if _ORIENTATION in page.tags else 1
        white = {"u": 2**page.bitspersample - 1, "f": 1, "b": 1}.get(pixels.dtype.kind)
        photometric = int(page.photometric)  # 0 and 1 are grey, 2 is RGB
        mode = {1: "L", 3: "RGB"}.get(colours, "?") if photometric <= 2 else f"TIFF colour space {photometric}"
        return _Picture(path, "TIFF", mode, _upright(pixels, int(orientation)), white, white)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo one of the eight orientations of EXIF and TIFF."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def _as_image(picture: _Picture) -> np.ndarray:
    if picture.white is None:
        raise ValueError(
            f"{picture.path} must hold integers of 8 or 16 bits or floats in 0..1, not {picture.pixels.dtype}; "
            "save it as 8 or 16 bit."
        )
    pixels = picture.pixels if picture.palette is None else picture.palette[picture.pixels]
    image = pixels.astype(np.float32) / np.float32(picture.white)
    if not np.isfinite(image).all():
        raise ValueError(f"{picture.path} must hold finite values, not NaN or infinity.")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"{picture.path} must hold floats in 0..1, not {image.min():g}..{image.max():g}; rescale it.")
    if not np.ptp(image, axis=(0, 1)).any():
        raise ValueError(f"{picture.path} has the same colour everywhere; there is nothing to see in it.")
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def _as_colours(picture: _Picture) -> np.ndarray:
    pixels = picture.pixels if picture.palette is None else picture.palette[picture.pixels]
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{picture.path} must hold colours of 8 bits, not {pixels.dtype}; export it again.")
    return pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)


def _as_mask(picture: _Picture) -> np.ndarray:
    path, pixels, palette = picture.path, picture.pixels, picture.palette
    if palette is not None and (palette == palette[:, :1]).all():
        pixels = palette[pixels, 0]
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(f"{path} must be a mask of one channel, or of equal ones, not a colour picture.")
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and (pixels == np.round(pixels)).all()):
        raise ValueError(f"{path} must be a mask of whole numbers, not of fractions, NaN or infinity.")
    if picture.white is None or picture.stored_white is None or picture.white == picture.stored_white:
        return pixels.astype(np.int32)
    if picture.stored_white > picture.white:
        raise ValueError(f"{path} must be a mask of one channel, not 16-bit colour; save it as grey.")
    return np.round(pixels * (picture.stored_white / picture.white)).astype(np.int32)
