"""PNG files written by hand, of every colour type and depth: Pillow writes few of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
FORMS = [(GREY, bits) for bits in (1, 2, 4, 8, 16)] + [
    (colour, bits) for colour in (COLOUR, GREY_ALPHA, COLOUR_ALPHA) for bits in (8, 16)
]
SAMPLES_A_PIXEL = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
_WHOLE = [(0, 0, 1, 1)]
_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
"""Of each pass the first row and column, and the steps between rows and columns."""

Samples = NDArray[np.int64]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def written(
    samples: Samples, colour: int, bits: int, *chunks: bytes, after: bytes = b"", interlaced: bool = False
) -> bytes:
    """``samples`` (H, W, samples a pixel), with ``chunks`` before the pixels and ``after`` behind them."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    passes = (samples[top::down, left::right] for top, left, down, right in (_ADAM7 if interlaced else _WHOLE))
    rows = b"".join(b"\0" + _packed(row, bits) for part in passes if part.size for row in part)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(chunks) + pixels + after + chunk(b"IEND", b"")


def _packed(row: Samples, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    digits = row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(digits.astype(np.uint8)).tobytes()


def transparent(*values: int) -> bytes:
    """The chunk that names one transparent colour."""
    return chunk(b"tRNS", b"".join(struct.pack(">H", value) for value in values))
