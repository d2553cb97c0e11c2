"""Images as Pillow opens them: bounded before anything is decoded, turned upright, composited, as 8 bits a sample.

Files are opened by Pillow's plugins and not by ``Image.open``, whose own bound on pixels would hold beside ours.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from freqgan.errors import InputError

Pixels = NDArray[np.uint8 | np.uint16 | np.float32]
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's modes by the number of channels."""
WITH_ALPHA = (2, 4)
STEP = 257
"""16-bit levels for one of 8 bits: 255 is 65535."""
_EXIF_ORIENTATION = 0x0112


class TooLargeError(InputError):
    """An image of more pixels than are allowed."""


def check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
    """Raise TooLargeError for an image of more than ``max_pixels``."""
    if height * width > max_pixels:
        raise TooLargeError(
            f"{name} has {width} x {height} pixels, more than the {max_pixels} allowed: make it smaller"
        )


def open_image(data: bytes, kind: Literal["jpg", "png", "webp"], name: str, max_pixels: int) -> Image.Image:
    """Return an image of which the header has been read; its pixels are when they are first wanted.

    Raises TooLargeError for more than ``max_pixels``, and whatever Pillow raises for a damaged file.
    """
    if kind == "webp":
        # Its canvas is there as soon as it is opened.
        width, height = _webp_size(data)
        check_pixels(name, height, width, max_pixels)
        return _webp_image(data, width, height)
    image = PngImageFile(io.BytesIO(data)) if kind == "png" else JpegImageFile(io.BytesIO(data))
    check_pixels(name, image.height, image.width, max_pixels)
    if not image.tile:
        raise ValueError("it has no pixels")
    return image


def orientation_of(image: Image.Image) -> int:
    """Return the orientation by EXIF or XMP, 1 to 8; 1 where they are missing or broken."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    # Pillow raises SyntaxError, ValueError, struct.error and more for a broken EXIF.
    except Exception:
        return 1
    return int(orientation) if orientation in range(2, 9) else 1


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
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


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the canvas by the header (RFC 9649, sections 2.5 to 2.7)."""
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
    """Open by Pillow, which refuses more than twice its own bound; by its decoder alone where ours is higher."""
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


def is_transparent(image: Image.Image) -> bool:
    """Return whether some pixels may be transparent."""
    return image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info


def to_pixels(image: Image.Image, channels: int, background: tuple[int, int, int]) -> Pixels:
    """Return uint8 (H, W, channels), grey (1) or colour (3), transparency composited on ``background``.

    With 2 and 4 channels the last one is transparency, as it is, and 255 where an image has none.
    """
    image.load()
    image = _to_eight_bits(image)
    if channels in WITH_ALPHA:
        if is_transparent(image):
            image = image.convert("RGBA")
    elif is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    pixels = np.asarray(image.convert(MODES[channels]))
    return pixels.reshape(image.height, image.width, channels)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 bits as 8, 65535 as 255; Pillow itself would clip it, and gives other 16-bit modes as 8."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values + STEP // 2) // STEP).astype(np.uint8))
