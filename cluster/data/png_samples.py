"""All 16 bits of the samples of a PNG, and which value is transparent: what Pillow does not say of one.

Also what is left of a PNG without the texts or the profile that Pillow refuses.

See "Portable Network Graphics (PNG) Specification (Third Edition)", W3C: chunks in section 5, tRNS in 11.3.1.1.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
"""Colour types."""

END = b"IEND\xaeB`\x82"
_SIGNATURE_BYTES = 8
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION_KEYS = (b"XML:com.adobe.xmp", b"Raw profile type exif")
_TEXT_BYTES = 2**20
"""Pillow's own bound for a text, inflated."""


class Chunk(NamedTuple):
    """``data[start:stop]`` is the whole of it, with length, name and checksum."""

    kind: bytes
    content: memoryview
    start: int
    stop: int


def read_chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks up to IEND, or to where the file is cut off."""
    position, view = _SIGNATURE_BYTES, memoryview(data)
    while position + 12 <= len(data):
        stop = position + 12 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        yield Chunk(kind, view[position + 8 : stop - 4], position, stop)
        if kind == b"IEND":
            return
        position = stop


@dataclass(frozen=True)
class PngForm:
    """``key``: the samples of the one transparent colour of a PNG without alpha and palette."""

    bits: int
    colour: int
    key: tuple[int, ...] | None

    @property
    def is_grey(self) -> bool:
        """Whether a pixel is one grey level, with or without alpha."""
        return self.colour in (GREY, GREY_ALPHA)

    def key_among_samples(self) -> tuple[int, ...] | None:
        """Return the key as the samples are read: those of less than 8 bits are scaled to 8."""
        if self.key is None or self.bits >= 8:
            return self.key
        return tuple(value * 255 // (2**self.bits - 1) for value in self.key)

    @classmethod
    def of(cls, data: bytes) -> PngForm:
        """Return the form of the PNG ``data``, its key cut to the bits that count; ValueError without a header."""
        if data[12:16] != b"IHDR":
            raise ValueError("its header is missing")
        bits, colour, key = data[24], data[25], None
        if colour in (GREY, COLOUR):
            for chunk in read_chunks(data):
                if chunk.kind == b"tRNS":
                    values = np.frombuffer(chunk.content[: 2 if colour == GREY else 6], ">u2")
                    key = tuple(int(value) & (2**bits - 1) for value in values)
                if chunk.kind == b"IDAT":
                    break
        return cls(bits, colour, key)


def wide_samples(data: bytes, form: PngForm) -> NDArray[np.uint16]:
    """Return the pixels (H, W, samples a pixel) of a PNG of 16 bits.

    Pillow has modes for grey ones alone. Of the others, it gives the high bytes, or the low bytes where it takes the
    samples for little-endian ones; grey with alpha has as many bytes a pixel as red, green, blue and alpha of 8 bits.
    """
    if form.colour == GREY:
        return _pixels(data, None).astype(np.uint16)[:, :, None]
    if form.colour == GREY_ALPHA:
        return _pixels(data, "RGBA").view(">u2").astype(np.uint16)
    mode = "RGB" if form.colour == COLOUR else "RGBA"
    high, low = (_pixels(data, f"{mode};16{order}").astype(np.uint16) for order in "BL")
    return (high << 8 | low).astype(np.uint16)


def luma(colours: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Return red, green and blue (..., 3) as grey (...), as Pillow weighs them (ITU-R BT.601), for up to 16 bits."""
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    grey: NDArray[np.uint32] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return grey


def wide_pixels(data: bytes, form: PngForm, channels: int, paper: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Return a PNG of 16 bits as (H, W, channels), grey (1) or colour (3), its transparency laid on ``paper`` (3,).

    With 2 and 4 channels the last one is its transparency, 65535 where it has none.
    """
    samples = wide_samples(data, form)
    has_alpha = form.colour in (GREY_ALPHA, COLOUR_ALPHA)
    alpha = samples[:, :, -1:].astype(np.uint32) if has_alpha else np.full((*samples.shape[:2], 1), 65535, np.uint32)
    if form.key is not None:
        alpha = np.where((samples == form.key).all(axis=2, keepdims=True), np.uint32(0), alpha)
    if channels <= 2:
        grey = samples[:, :, 0].astype(np.uint32) if form.is_grey else luma(samples[:, :, :3])
        colours, below = grey[:, :, None], luma(paper)[None]
    else:
        colours, below = samples[:, :, : 1 if form.is_grey else 3].astype(np.uint32), paper.astype(np.uint32)
        colours = np.broadcast_to(colours, (*samples.shape[:2], 3))
    if channels in (1, 3):
        return ((colours * alpha + below * (65535 - alpha) + 32767) // 65535).astype(np.uint16)
    return np.concatenate([colours, alpha], axis=2).astype(np.uint16)


def _pixels(data: bytes, layout: str | None) -> NDArray[np.generic]:
    """Return (H, W) or (H, W, bands) as Pillow reads it; ``layout`` tells it the samples of a pixel."""
    with PngImageFile(io.BytesIO(data)) as image:
        if layout is not None:
            image.tile = [(*image.tile[0][:3], layout)]  # type: ignore[list-item]
        return np.asarray(image)


def without_texts(data: bytes) -> bytes | None:
    """Return a copy without what says nothing about pixels, or too much.

    It is None where a chunk is damaged or the end is missing.

    Texts that tell how to turn the image stay, if they are small: nothing is inflated beyond that.
    """
    chunks = list(read_chunks(data))
    if not chunks or chunks[-1].kind != b"IEND":
        return None
    if any(
        zlib.crc32(chunk.content, zlib.crc32(chunk.kind)) != int.from_bytes(data[chunk.stop - 4 : chunk.stop], "big")
        for chunk in chunks
    ):
        return None
    chunks = [chunk for chunk in chunks if chunk.kind in _PIXELS or _tells_orientation(chunk)]
    return data[:_SIGNATURE_BYTES] + b"".join(data[chunk.start : chunk.stop] for chunk in chunks)


def _tells_orientation(chunk: Chunk) -> bool:
    content = bytes(chunk.content)
    key, _, rest = content.partition(b"\0")
    if chunk.kind not in _TEXTS or key not in _ORIENTATION_KEYS:
        return False
    if chunk.kind == b"zTXt":
        return _is_small(rest[1:])
    if chunk.kind == b"iTXt" and rest[:1] == b"\1":
        return _is_small(rest[2:].split(b"\0", 2)[-1])
    return len(content) <= _TEXT_BYTES


def _is_small(deflated: bytes) -> bool:
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(deflated, _TEXT_BYTES)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail
