"""The names of bands: a (level, orientation) pair, coarse levels high, level 1 the finest.

HL is high along x and low along y (PyWavelets ``cV``, ``dwtn`` key ``ad``); LH is high along y
(``cH``, ``da``); HH is high along both (``cD``, ``dd``). Public code disagrees on these names: the
stripes test in ``tests/`` is the authority here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Orientation = Literal["LL", "HL", "LH", "HH"]
ORIENTATIONS: tuple[Orientation, ...] = ("LL", "HL", "LH", "HH")
HIGH_ORIENTATIONS: tuple[Orientation, ...] = ("HL", "LH", "HH")


class Band(NamedTuple):
    """One sub-image of the transform: ``level`` 1 is the finest, ``orientation`` one of LL, HL, LH, HH."""

    level: int
    orientation: Orientation

    def __str__(self) -> str:
        return f"{self.orientation}{self.level}"


SubImages = dict[Band, Tensor]
"""Sub-images by band, each of shape (B, C, h_q, w_q) with h_q = H / 2^q."""


def all_bands(levels: int) -> list[Band]:
    """All 4L bands in the order of the chain: level L down to 1; within a level LL, HL, LH, HH."""
    return [Band(level, orientation) for level in range(levels, 0, -1) for orientation in ORIENTATIONS]


def parse_band(name: str) -> Band:
    """The band called ``name`` ("HL1"); ValueError when it is not a band's name."""
    orientation, level = name[:2], name[2:]
    if orientation not in ORIENTATIONS or not level.isdecimal() or int(level) < 1:
        raise ValueError(f"{name!r} is not a band: write an orientation and a level, for example LL2 or HH1")
    return Band(int(level), orientation)
