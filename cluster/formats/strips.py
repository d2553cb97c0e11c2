"""Strips: the T frames of a clip, or the slices of a volume, stacked from top to bottom into one tall image."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image

from cluster.formats.arrays import encode_npy
from cluster.formats.source_format import Piece, Values
from freqgan.errors import InputError

BLOCK_ROWS = 8
"""Rows of a block of a JPEG (ITU-T T.81, A.2)."""
PNG_LEVEL = 4
"""Of zlib: three quarters of the time of the usual 6 for 0.3 % more bytes of clips of 16 x 32 x 32, half of it at 128
pixels. Level 3 looks for no longer match once it has one: strips of frames that hardly move were 2.9 times as large."""
_LONGEST_JPEG = 65_500
"""Rows that libjpeg writes; the format itself allows 65,535."""


def stacked(frames: Values) -> Values:
    """Return frames (T, H, W, C) as one image (T * H, W, C), the first on top."""
    count, height, width, channels = frames.shape
    return frames.reshape(count * height, width, channels)


def unstacked(strip: Values, frames: int, name: str) -> Values:
    """Return the frames (T, H, W, C) of a strip (T * H, W, C).

    Raises:
        InputError: its rows are not a multiple of ``frames``.

    """
    height, width, channels = strip.shape
    if frames < 1 or height % frames:
        raise InputError(
            f"{name} has {height} rows, which are not {frames} frames of one height: write the number of frames that "
            'are stacked in it as "frames" into its .json'
        )
    return strip.reshape(frames, height // frames, width, channels)


def encode_piece(piece: Piece, name: str, quality: int | None = None) -> tuple[Literal["png", "jpg", "npy"], bytes]:
    """Return the format and the bytes of a sample's image.

    uint8 of 1 or 3 channels and uint16 of 1 become PNG, which loses nothing; where ``quality`` is given, strips of 8
    bits become JPEG; everything else becomes a .npy. The same piece gives the same bytes.

    Colours of a JPEG keep their full size (4:4:4). At half the size decoders smooth them across rows, and so across
    frames: by up to 41 of 255 in the first and last row of frames 64 rows high (of big buck bunny, 4:2:0, quality 90),
    and for the same error of pixels the file was larger.

    Raises:
        InputError: blocks of a JPEG would reach from one frame into the next, or it would be too tall.

    """
    pixels = piece.pixels if piece.frames is None else stacked(piece.pixels)
    kind = pixels.dtype.name, pixels.shape[2]
    if kind in (("uint8", 1), ("uint8", 3)):
        if quality is not None and piece.frames is not None:
            return "jpg", _jpeg(pixels, piece.pixels.shape[1], quality, name)
        return "png", _png(pixels)
    if kind == ("uint16", 1):
        return "png", _png(pixels)
    return "npy", encode_npy(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def sample_fields(piece: Piece, described: Mapping[str, Any], name: str) -> bytes | None:
    """Return the .json of a sample: what is known of its source, its own fields, and its frames; None for no fields.

    Raises:
        InputError: the source is described by a field of the same name and another value.

    """
    own = {**({} if piece.frames is None else {"frames": piece.frames}), **piece.fields}
    for field, value in own.items():
        if described.get(field, value) != value:
            raise InputError(
                f"{name} is described by a field {field!r}, {described[field]!r}, and the sample has {value!r} itself: "
                "give the field another name"
            )
    fields = {**described, **own}
    return json.dumps(fields, ensure_ascii=False).encode() if fields else None


def _png(pixels: Values) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _jpeg(strip: Values, frame_height: int, quality: int, name: str) -> bytes:
    import simplejpeg

    if frame_height % BLOCK_ROWS:
        raise InputError(
            f"{name} has frames of {frame_height} rows, and blocks of a JPEG have {BLOCK_ROWS}, so that they would mix "
            "frames: leave --quality out, for PNG, or give --size a multiple of 8"
        )
    if strip.shape[0] > _LONGEST_JPEG:
        raise InputError(
            f"{name} makes a strip of {strip.shape[0]} rows, and a JPEG has at most {_LONGEST_JPEG}: give fewer "
            "--frames, a smaller --size, or leave --quality out"
        )
    strip = np.ascontiguousarray(strip)
    if strip.shape[2] == 1:
        return bytes(simplejpeg.encode_jpeg(strip, quality, "GRAY", "Gray"))
    return bytes(simplejpeg.encode_jpeg(strip, quality, "RGB", "444"))
