"""JPEGs to pixels: by simplejpeg, and by Pillow where that does not know the colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial

import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from cluster.data.jpeg_segments import decode_to_the_end, decode_without_junk, is_junk, without_junk
from cluster.data.pillow_images import Pixels, check_pixels, open_image, orientation_of, to_pixels, turn_upright

_APP1 = re.compile(rb"\xff\xe1")
"""Begins what may tell the orientation of a JPEG, EXIF or XMP; data of scans do not have it. ``in`` is slower."""
_WHITE = (255, 255, 255)


def decode_jpeg(data: bytes, name: str, channels: int, max_pixels: int, into: Pixels | None) -> Pixels:
    """Decode to uint8 (H, W, channels), 1 or 3, upright, into the memory of ``into`` where that has the shape.

    simplejpeg is three times as fast as Pillow and, if it is to be strict, notices every early end.

    Raises TooLargeError for more than ``max_pixels``, and ValueError or what Pillow raises for damage.
    """
    try:
        height, width, colorspace = _read_header(data)
        check_pixels(name, height, width, max_pixels)
        if colorspace in ("CMYK", "YCCK"):
            _decode_strictly(data, "CMYK", None)
            pixels = _decode_by_pillow(data, name, channels, max_pixels)
        else:
            memory = into if into is not None and into.shape == (height, width, channels) else None
            pixels = _decode_strictly(data, "GRAY" if channels == 1 else "RGB", memory)
    except (ValueError, KeyError) as error:
        if not _is_unknown_to_simplejpeg(error):
            raise
        by_pillow = partial(_decode_by_pillow, name=name, channels=channels, max_pixels=max_pixels)
        pixels = decode_to_the_end(data, by_pillow)
    if _APP1.search(data):
        return turn_upright(pixels, _jpeg_orientation(data))
    return pixels


def _read_header(data: bytes) -> tuple[int, int, str]:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if not is_junk(str(error)):
            raise
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return height, width, colorspace


def _is_unknown_to_simplejpeg(error: Exception) -> bool:
    """Return whether it is a sampling of colours that it does not know, or has no name for, or lossless grey."""
    return isinstance(error, KeyError) or "subsampling level" in str(error) or "color conversion" in str(error)


def _decode_strictly(data: bytes, colours: str, memory: Pixels | None) -> Pixels:
    """Decode so that damage is a ValueError, and junk is not."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colours, buffer=memory)
    except ValueError as error:
        if not is_junk(str(error)):
            raise
        return _decode_with_junk(data, partial(simplejpeg.decode_jpeg, colorspace=colours))
    return pixels


def _decode_with_junk(data: bytes, decode: Callable[..., Pixels]) -> Pixels:
    """Decode strictly where the junk can be cut off; else only data that end early count as damage."""
    try:
        return decode_without_junk(data, decode)
    except ValueError as error:
        if not is_junk(str(error)):
            raise
    return decode_to_the_end(without_junk(data), partial(decode, strict=False))


def _decode_by_pillow(data: bytes, name: str, channels: int, max_pixels: int) -> Pixels:
    """Decode CMYK, and what simplejpeg does not know."""
    return to_pixels(open_image(data, "jpg", name, max_pixels), channels, _WHITE)


def _jpeg_orientation(data: bytes) -> int:
    try:
        image = JpegImageFile(io.BytesIO(data))
    # It has been decoded, so that Pillow alone cannot tell its segments apart.
    except Exception:
        return 1
    return orientation_of(image)
