"""From the bytes of one image to pixels of 8 bits, or of 16 where grey ones are wanted, by a declared policy.

JPEG, PNG and WebP only, told by their first bytes and not by their name. EXIF orientation is
applied, CMYK converted, palette and transparency composited on the background, 16 bits scaled to
8 and 8 to 16 as asked, and the first frame taken of an animation. A file that ends early is an error and never padded;
junk in a JPEG, a broken EXIF and texts of any size are none.

Files are opened by Pillow's plugins and not by ``Image.open``, whose own bound on pixels would hold beside ours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cluster.data.jpeg_segments import (
    decode_to_the_end,
    decode_without_junk,
    is_junk,
    why_not_decodable,
    without_junk,
)
from cluster.data.png_samples import END, PngForm, luma, wide_luma, wide_samples, without_texts
from cluster.data.settings import MAX_PIXELS, WHITE, ImagePolicy
from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError
from freqgan.seeds import derive_seed

Pixels = NDArray[np.uint8 | np.uint16]
STEP = 257
"""Of 16-bit levels for one of 8 bits: 255 is 65535."""

_EXIF_ORIENTATION = 0x0112
_APP1 = re.compile(rb"\xff\xe1")
"""Begins what may tell the orientation of a JPEG, EXIF or XMP; data of scans do not have it. ``in`` is slower."""

T = TypeVar("T")


class TooLargeError(InputError):
    """An image of more pixels than are allowed."""


def image_format(data: bytes) -> Literal["jpg", "png", "webp"] | None:
    """The format by the first bytes, as a file extension; None when it is none of the three."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


@dataclass(frozen=True)
class ImageForm:
    """What :func:`decode_image` can give of an image, and ``changes``: what it does not give as it is stored."""

    channels: Literal[1, 3]
    bit_depth: BitDepth
    changes: tuple[str, ...] = ()


def natural_form(data: bytes, name: str) -> ImageForm:
    """The channels and bits that hold the most of an image: (1, 16), (1, 8) or (3, 8).

    Raises InputError naming ``name`` for what is no JPEG, PNG or WebP, and for more than MAX_PIXELS pixels.
    """
    kind = image_format(data)
    try:
        if kind == "png":
            return _despite_texts(data, partial(_png_form, name=name))
        if kind is not None:
            return _form(_opened(data, kind, name, MAX_PIXELS))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} is no {kind} that can be read ({error})") from error
    raise InputError(f"{name} is no JPEG, PNG or WebP that can be read")


def _png_form(data: bytes, name: str) -> ImageForm:
    form, image = PngForm.of(data), _opened(data, "png", name, MAX_PIXELS)
    grey, wide = form.is_grey, form.bits == 16
    changes = ("8 of its 16 bits a sample",) if wide and not grey else ()
    return ImageForm(1 if grey else 3, 16 if wide and grey else 8, changes + _form(image).changes)


def _form(image: Image.Image) -> ImageForm:
    frames, changes = getattr(image, "n_frames", 1), list[str]()
    if image.mode == "CMYK":
        changes.append("CMYK as RGB")
    if _is_transparent(image):
        changes.append("its transparency laid on white")
    if frames > 1:
        changes.append(f"the first of its {frames} frames")
    if _orientation(image) != 1:
        changes.append("turned upright")
    return ImageForm(1 if image.mode == "L" else 3, 8, tuple(changes))


def decode_image(
    data: bytes,
    name: str,
    *,
    channels: Literal[1, 3] = 3,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
    bit_depth: BitDepth = 8,
    into: Pixels | None = None,
) -> Pixels:
    """Decode to uint8 (H, W, channels), or to uint16 (H, W, 1), upright.

    PNGs of 16 bits keep them, in colour as grey levels and with transparency; all others are taken times 257.

    ``into`` (C order) may be used as memory for it, where the image has its shape: the result tells whether it was.

    Raises InputError naming ``name``: no JPEG, PNG or WebP; damaged or cut off; TooLargeError for more than
    ``max_pixels`` pixels.
    """
    kind = image_format(data)
    if kind is None:
        raise InputError(f"{name} is no JPEG, PNG or WebP (it begins with {data[:8]!r}): convert or remove it")
    try:
        if kind == "png":
            decode = partial(_decode_png, name=name, max_pixels=max_pixels, bit_depth=bit_depth)
            return _despite_texts(data, partial(decode, channels=channels, background=background))
        if kind == "jpg":
            pixels = _decode_jpeg(data, name, channels, max_pixels, into if bit_depth == 8 else None)
        else:
            image = _opened(data, kind, name, max_pixels)
            pixels = _turn_upright(_to_pixels(image, channels, background), _orientation(image))
        return pixels if bit_depth == 8 else _to_sixteen_bits(pixels)
    except InputError:
        raise
    # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error and more for a damaged file.
    except Exception as error:
        if kind == "jpg" and (reason := why_not_decodable(data)):
            raise InputError(f"{name} cannot be decoded ({reason}): convert or remove it") from error
        raise InputError(f"{name} is damaged or cut off ({error}): replace or remove it") from error


def fit_image(image: Pixels, policy: ImagePolicy, *seed_parts: int | str) -> Pixels:
    """Crop (H, W, C) to a square of the short side and resample it to (C, size, size).

    The crop lies in the middle or, with crop "random", where :func:`~freqgan.seeds.derive_seed` of
    ``seed_parts`` puts it. Lanczos antialiases, after averaging whole blocks of pixels of images far
    too large (``reducing_gap``); of an image that fits already a view is returned.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    if height != width:
        travel = max(height, width) - side
        offset = derive_seed(*seed_parts) % (travel + 1) if policy.crop == "random" else travel // 2
        image = image[offset : offset + side] if height > width else image[:, offset : offset + side]
    if side != policy.size:
        plane = image[:, :, 0] if image.shape[2] == 1 else image
        wide = plane.dtype == np.uint16  # which Pillow resamples as float alone
        square = Image.fromarray(plane.astype(np.float32) if wide else plane)
        size = (policy.size, policy.size)
        resized = np.asarray(square.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)).reshape(*size, -1)
        image = resized.round().clip(0, 65535).astype(np.uint16) if wide else resized
    return image.transpose(2, 0, 1)


def _check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise TooLargeError(
            f"{name} has {width} x {height} pixels, more than the {max_pixels} allowed: make it smaller"
        )


def _opened(data: bytes, kind: Literal["jpg", "png", "webp"], name: str, max_pixels: int) -> Image.Image:
    """Its header read, and its pixels when they are first wanted."""
    if kind == "webp":
        # Its canvas is there as soon as it is opened.
        width, height = _webp_size(data)
        _check_pixels(name, height, width, max_pixels)
        return _webp_image(data, width, height)
    image = PngImageFile(io.BytesIO(data)) if kind == "png" else JpegImageFile(io.BytesIO(data))
    _check_pixels(name, image.height, image.width, max_pixels)
    if not image.tile:
        raise ValueError("it has no pixels")
    return image


def _orientation(image: Image.Image) -> int:
    """As EXIF or XMP tell it, 1 to 8; 1 where they are missing or broken."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    # Pillow raises SyntaxError, ValueError, struct.error and more for a broken EXIF.
    except Exception:
        return 1
    return int(orientation) if orientation in range(2, 9) else 1


def _decode_jpeg(data: bytes, name: str, channels: Literal[1, 3], max_pixels: int, into: Pixels | None) -> Pixels:
    """simplejpeg is three times as fast as Pillow and, told to be strict, notices every early end."""
    try:
        height, width, colorspace = _read_jpeg_header(data)
        _check_pixels(name, height, width, max_pixels)
        if colorspace in ("CMYK", "YCCK"):
            _decode_jpeg_strictly(data, "CMYK", None)
            pixels = _decode_jpeg_by_pillow(data, name, channels, max_pixels)
        else:
            memory = into if into is not None and into.shape == (height, width, channels) else None
            pixels = _decode_jpeg_strictly(data, "GRAY" if channels == 1 else "RGB", memory)
    except (ValueError, KeyError) as error:
        if not _is_unknown_to_simplejpeg(error):
            raise
        by_pillow = partial(_decode_jpeg_by_pillow, name=name, channels=channels, max_pixels=max_pixels)
        pixels = decode_to_the_end(data, by_pillow)
    if _APP1.search(data):
        return _turn_upright(pixels, _jpeg_orientation(data))
    return pixels


def _read_jpeg_header(data: bytes) -> tuple[int, int, str]:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if not is_junk(str(error)):
            raise
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return height, width, colorspace


def _is_unknown_to_simplejpeg(error: Exception) -> bool:
    """Sampling of colours that it does not know, or has no name for, and lossless grey."""
    return isinstance(error, KeyError) or "subsampling level" in str(error) or "color conversion" in str(error)


def _decode_jpeg_strictly(data: bytes, colours: str, memory: Pixels | None) -> Pixels:
    """Damage is a ValueError, and junk is not."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colours, buffer=memory)
    except ValueError as error:
        if not is_junk(str(error)):
            raise
        return _decode_jpeg_with_junk(data, partial(simplejpeg.decode_jpeg, colorspace=colours))
    return pixels


def _decode_jpeg_with_junk(data: bytes, decode: Callable[..., Pixels]) -> Pixels:
    """Strictly where the junk can be cut off; else damage is told as far as data end early."""
    try:
        return decode_without_junk(data, decode)
    except ValueError as error:
        if not is_junk(str(error)):
            raise
    return decode_to_the_end(without_junk(data), partial(decode, strict=False))


def _decode_jpeg_by_pillow(data: bytes, name: str, channels: Literal[1, 3], max_pixels: int) -> Pixels:
    """CMYK, and what simplejpeg does not know."""
    return _to_pixels(_opened(data, "jpg", name, max_pixels), channels, WHITE)


def _jpeg_orientation(data: bytes) -> int:
    try:
        image = JpegImageFile(io.BytesIO(data))
    # It has been decoded, so that Pillow alone cannot tell its segments apart.
    except Exception:
        return 1
    return _orientation(image)


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation 2..8 (Exif 2.3, section 4.6.4): 5..8 are stored with rows and columns exchanged."""
    if orientation == 1:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _despite_texts(data: bytes, read: Callable[[bytes], T]) -> T:
    """What ``read`` makes of a PNG, or of its pixels alone where Pillow refuses what lies beside them."""
    if END not in data:
        raise ValueError("its end is missing")
    try:
        return read(data)
    except InputError:
        raise
    except Exception:
        pixels_alone = without_texts(data)
        if pixels_alone is None:
            raise
        return read(pixels_alone)


def _decode_png(
    data: bytes,
    *,
    name: str,
    channels: Literal[1, 3],
    background: tuple[int, int, int],
    max_pixels: int,
    bit_depth: BitDepth,
) -> Pixels:
    image = _opened(data, "png", name, max_pixels)
    image.load()
    form = PngForm.of(data)
    if bit_depth == 16 and form.bits == 16:
        pixels: Pixels = wide_luma(data, form, int(luma(STEP * np.array(background))))
    else:
        pixels = _narrow_png(image, data, form, channels, background)
        pixels = _to_sixteen_bits(pixels) if bit_depth == 16 else pixels
    return _turn_upright(pixels, _orientation(image))


def _narrow_png(
    image: Image.Image, data: bytes, form: PngForm, channels: Literal[1, 3], background: tuple[int, int, int]
) -> Pixels:
    """The 8 bits of a loaded PNG. Pillow reads a transparent colour as if every PNG had 8 bits a sample."""
    if form.key is None:
        return _to_pixels(image, channels, background)
    image.info.pop("transparency", None)
    pixels = _to_pixels(image, channels, background)
    if form.bits == 16:
        samples: Pixels = wide_samples(data, form)
    else:
        samples = _to_pixels(image, 1 if form.is_grey else 3, background)
    transparent = (samples == form.key_among_samples()).all(axis=2, keepdims=True)
    paper = background if channels == 3 else luma(np.array(background))
    return np.where(transparent, np.array(paper, np.uint8), pixels)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas by the header (RFC 9649, sections 2.5 to 2.7)."""
    kind, numbers = data[12:16], data[20:30]
    if kind == b"VP8X" and len(numbers) == 10:
        return int.from_bytes(numbers[4:7], "little") + 1, int.from_bytes(numbers[7:10], "little") + 1
    if kind == b"VP8L" and len(numbers) >= 5:
        bits = int.from_bytes(numbers[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(numbers) == 10:
        return int.from_bytes(numbers[6:8], "little") & 0x3FFF, int.from_bytes(numbers[8:10], "little") & 0x3FFF
    raise ValueError("its header is cut off")


def _webp_image(data: bytes, width: int, height: int) -> Image.Image:
    """By Pillow, which refuses more than twice its own bound; by its decoder alone where ours is higher."""
    if Image.MAX_IMAGE_PIXELS is None or width * height <= 2 * Image.MAX_IMAGE_PIXELS:
        return WebPImageFile(io.BytesIO(data))
    from PIL import _webp  # not there in a Pillow without WebP

    decoder = _webp.WebPAnimDecoder(data)
    *_, layout = decoder.get_info()
    frame = decoder.get_next()
    if frame is None:
        raise ValueError("its first frame cannot be decoded")
    image = Image.frombytes("RGBA" if layout == "RGBA" else "RGB", (width, height), frame[0], "raw", layout)
    image.info["exif"] = decoder.get_chunk("EXIF")
    return image


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info


def _to_pixels(image: Image.Image, channels: Literal[1, 3], background: tuple[int, int, int]) -> Pixels:
    image.load()
    image = _to_eight_bits(image)
    if _is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(image.height, image.width, channels)


def _to_sixteen_bits(pixels: Pixels) -> Pixels:
    return pixels.astype(np.uint16) * np.uint16(STEP)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits to 8, 65535 to 255; Pillow itself would clip it, and gives other 16-bit modes as 8."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values + STEP // 2) // STEP).astype(np.uint8))
