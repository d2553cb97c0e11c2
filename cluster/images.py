"""From the bytes of one image to pixels of 8 bits, or of 16 where grey ones are wanted, by a declared policy.

JPEG, PNG and WebP only, told by their first bytes and not by their name. EXIF orientation is
applied, CMYK converted, palette and transparency composited on the background, 16 bits scaled to
8 and 8 to 16 as asked, and the first frame taken of an animation. A file that ends early is an error and never padded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from freqgan.errors import InputError
from freqgan.seeds import derive_seed

if TYPE_CHECKING:  # reading shards is to need no torch
    from freqgan.pixels import BitDepth

Pixels = NDArray[np.uint8 | np.uint16]
STEP = 257
"""Of 16-bit levels for one of 8 bits: 255 is 65535."""

MAX_PIXELS = 64 * 2**20
"""Images above this are refused from their header: at 4 bytes a pixel this is 256 MiB."""

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "webp")

_EXIF_ORIENTATION = 0x0112
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class ImagePolicy:
    """How an image becomes ``channels`` x ``size`` x ``size``: short side to ``size`` pixels, then a square crop."""

    size: int
    channels: Literal[1, 3] = 3
    crop: Literal["center", "random"] = "center"
    background: tuple[int, int, int] = (255, 255, 255)
    max_pixels: int = MAX_PIXELS
    bit_depth: BitDepth = 8

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels not in (1, 3) or self.crop not in ("center", "random"):
            raise InputError(
                f"images of {self.size} pixels, {self.channels} channels and crop {self.crop!r} cannot be made: "
                "size must be at least 1, channels 1 or 3, crop center or random"
            )
        if self.bit_depth == 16 and self.channels != 1:
            raise InputError(f"images of 16 bits and {self.channels} channels cannot be made: channels must be 1")

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """Of the pixels."""
        return np.uint8 if self.bit_depth == 8 else np.uint16


def image_format(data: bytes) -> Literal["jpg", "png", "webp"] | None:
    """The format by the first bytes, as a file extension; None when it is none of the three."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def natural_form(data: bytes, name: str) -> tuple[Literal[1, 3], BitDepth]:
    """Channels and bit depth that hold all there is in an image: (1, 16), (1, 8) or (3, 8).

    Raises InputError naming ``name`` for what is no JPEG, PNG or WebP.
    """
    kind = image_format(data)
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG", "WEBP"]) as image:
            mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow names the object it read from where it knows no better.
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise InputError(f"{name} is no {kind or 'JPEG, PNG or WebP'} that can be read{reason}") from error
    if mode.startswith("I"):
        return 1, 16
    return (1 if mode in ("1", "L", "LA") else 3), 8


def decode_image(
    data: bytes,
    name: str,
    *,
    channels: Literal[1, 3] = 3,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    bit_depth: BitDepth = 8,
    into: Pixels | None = None,
) -> Pixels:
    """Decode to uint8 (H, W, channels), or to uint16 (H, W, 1), upright.

    Of 16 bits only grey PNGs can be had (Pillow reads colour ones as 8); others are taken times 257.

    ``into`` (C order) may be used as memory for it, where the image has its shape: the result tells whether it was.

    Raises InputError naming ``name``: no JPEG, PNG or WebP; more than ``max_pixels`` pixels; damaged
    or cut off.
    """
    kind = image_format(data)
    if kind is None:
        raise InputError(f"{name} is no JPEG, PNG or WebP (it begins with {data[:8]!r}): convert or remove it")
    try:
        if kind == "jpg":
            pixels = _decode_jpeg(data, name, channels, max_pixels, into if bit_depth == 8 else None)
            return pixels if bit_depth == 8 else _to_sixteen_bits(pixels)
        if kind == "png" and _PNG_END not in data:
            raise ValueError("its end is missing")
        with Image.open(io.BytesIO(data), formats=["PNG", "WEBP"]) as image:
            _check_pixels(name, image.height, image.width, max_pixels)
            upright = ImageOps.exif_transpose(image)
            if bit_depth == 8:
                return _to_pixels(upright, channels, background)
            if upright.mode.startswith("I") and not isinstance(upright.info.get("transparency"), int):
                return np.asarray(upright).astype(np.uint16)[:, :, None]
            return _to_sixteen_bits(_to_pixels(upright, channels, background))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has far more than the {max_pixels} pixels allowed: make it smaller") from error
    # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error and more for a damaged file.
    except Exception as error:
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
        raise InputError(f"{name} has {width} x {height} pixels, more than the {max_pixels} allowed: make it smaller")


def _decode_jpeg(data: bytes, name: str, channels: Literal[1, 3], max_pixels: int, into: Pixels | None) -> Pixels:
    """simplejpeg is three times as fast as Pillow and, told to be strict, notices every early end."""
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(name, height, width, max_pixels)
    if colorspace in ("CMYK", "YCCK"):
        simplejpeg.decode_jpeg(data, "CMYK")
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return _to_pixels(ImageOps.exif_transpose(image), channels, (255, 255, 255))
    memory = into if into is not None and into.shape == (height, width, channels) else None
    pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", buffer=memory)
    return _turn_upright(pixels, _exif_orientation(data)) if b"Exif\0\0" in data else pixels


def _exif_orientation(data: bytes) -> int:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation 2..8 (Exif 2.3, section 4.6.4): 5..8 are stored with rows and columns exchanged."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_pixels(image: Image.Image, channels: Literal[1, 3], background: tuple[int, int, int]) -> Pixels:
    image = _to_eight_bits(image)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(image.height, image.width, channels)


def _to_sixteen_bits(pixels: Pixels) -> Pixels:
    return pixels.astype(np.uint16) * np.uint16(STEP)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 bits to 8, 65535 to 255; Pillow itself would clip it, and gives other 16-bit modes as 8."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    gray = Image.fromarray(((values + STEP // 2) // STEP).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray
