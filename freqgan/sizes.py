"""Sizes of images and grids: height and width, in pixels or cells."""

from __future__ import annotations

import re
from collections.abc import Sequence

Size = tuple[int, int]
"""Height and width."""

_TWO_NUMBERS = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


def parse_size(value: object) -> Size:
    """Return (96, 160) for "96x160", height x width, and (96, 96) for 96; ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    match = _TWO_NUMBERS.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]), int(match[2])
    if isinstance(value, str) and value.isdecimal():
        return int(value), int(value)
    raise ValueError(f"{value!r} is no size: write 64 for 64 x 64 pixels, or HEIGHTxWIDTH, such as 96x160")


def size_setting(size: Size) -> int | str:
    """Return how settings have ``size``: 64 for (64, 64), "96x160" for (96, 160)."""
    height, width = size
    return height if height == width else f"{height}x{width}"


def width_by_height(size: Sequence[int]) -> str:
    """Return "160 x 96" for (96, 160), as programs for images say it."""
    return f"{size[1]} x {size[0]}"


def area(size: Size) -> int:
    """Return the number of pixels or cells of ``size``."""
    return size[0] * size[1]


def halving_sizes(size: Size, smallest: int = 4) -> list[Size]:
    """Return sizes from coarse to fine that end at ``size``.

    Each halves both sides of the next one, rounded up, until the shorter one has at most ``smallest``.
    """
    sizes = [size]
    while min(sizes[0]) > smallest:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    return sizes
