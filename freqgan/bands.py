"""The names of bands: a (level, orientation) pair, coarse levels high, level 1 the finest.

HL is high along x and low along y (PyWavelets ``cV``, ``dwtn`` key ``ad``); LH is high along y
(``cH``, ``da``); HH is high along both (``cD``, ``dd``). Public code disagrees on these names: the
stripes test in ``tests/`` is the authority here.

A band that was split again is named by both steps: HLLH is the LH packet of HL. The rings of a radial transform are
RA, RB ... from the inner to the outer. LL is the low band of every transform.

A band of a clip begins with that of its frames' changes over time: tL, their averages, or tH1, tH2 ..., their
differences, of which tH1 are the fastest. tH1.HL2 is HL2 of the fastest changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # settings name bands, and are checked without torch
    from torch import Tensor

Orientation = str
ORIENTATIONS: tuple[Orientation, ...] = ("LL", "HL", "LH", "HH")
HIGH_ORIENTATIONS: tuple[Orientation, ...] = ("HL", "LH", "HH")
MOST_RINGS = 8
RINGS: tuple[Orientation, ...] = tuple(f"R{letter}" for letter in "ABCDEFGH"[:MOST_RINGS])
_NAME = re.compile(r"(?:(tL|tH[1-9])\.)?(LL|(?:HL|LH|HH)(?:LL|HL|LH|HH)*|R[A-H])([1-9]\d*|(?<=LL)0)", re.ASCII)

TIME_LOW = "tL"
"""The averages of frames, and their slowest changes, of a clip."""


class Band(NamedTuple):
    """One sub-image of the transform: ``level`` 1 is the finest, ``orientation`` one of LL, HL, LH, HH, or as above.

    LL0 is the image itself, of a transform without levels. ``time`` is the temporal band that it is part of, of clips.
    """

    level: int
    orientation: Orientation
    time: str = ""

    def __str__(self) -> str:
        return f"{self.time}{'.' if self.time else ''}{self.orientation}{self.level}"

    @property
    def still(self) -> Band:
        """The band of an image, of no clip, that it is in its temporal band."""
        return Band(self.level, self.orientation) if self.time else self


SubImages = dict[Band, "Tensor"]
"""Sub-images by band, each of shape (B, C, h_q, w_q) with h_q = H / 2^q; packets are smaller, rings larger."""


def all_bands(levels: int) -> list[Band]:
    """Return all 4L bands of four quadrants a level in the order of the chain.

    It goes from level L down to 1; within a level LL, HL, LH, HH.
    """
    return [Band(level, orientation) for level in range(levels, 0, -1) for orientation in ORIENTATIONS]


def parse_band(name: str) -> Band:
    """Return the band called ``name`` ("HL1", "HLHH1", "RA2", "tH1.HL1"); ValueError when it is not a band's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a band: write an orientation and a level, for example LL2 or HH1")
    return Band(int(match[3]), match[2], match[1] or "")
