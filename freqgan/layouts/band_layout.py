"""Which bands there are per level, and how large they are: of quadrants, of packets and of rings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from freqgan.bands import HIGH_ORIENTATIONS, MOST_RINGS, ORIENTATIONS, RINGS, Band, Orientation
from freqgan.errors import InputError

MOST_SPLITS = 3


class BandLayout:
    """The bands of a transform of four quadrants a level, LL, HL, LH and HH; level 1 is the finest.

    With no levels there is one band, LL0: the image itself.

    Packets and rings are laid out by the classes below.
    """

    def __init__(self, spec: str, levels: int) -> None:
        """``spec`` is the name the transform is parsed from; InputError when ``levels`` is not 0 or more."""
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 0:
            raise InputError(f"transform {spec}: levels is {levels!r}, but must be a whole number, 0 or more")
        self.spec = spec
        self.levels = levels
        self._depth: int | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r}, levels={self.levels})"

    @property
    def times(self) -> tuple[str, ...]:
        """The temporal bands that bands are part of: one without a name, of images; see :class:`ClipLayout`."""
        return ("",)

    def coefficients(self, time: str) -> int:
        """Return how many coefficients a pixel has in the temporal band ``time``: one, of images."""
        return 1

    @property
    def lowest(self) -> Band:
        """The coarsest low band, which everything starts from; of clips that of tL."""
        return Band(self.levels, "LL", self.times[0])

    def independent_bands(self) -> list[Band]:
        """Return the bands that hold an image without repetition: the coarsest low band and all high ones."""
        return [band for band in self.bands() if band.orientation != "LL" or band.level == self.levels]

    def orientations(self, level: int) -> tuple[Orientation, ...]:
        """Return the orientations of the bands of ``level``, LL first."""
        return ORIENTATIONS

    def bands(self) -> list[Band]:
        """Return all bands in the order of the chain: level L down to 1; within a level LL, then the high ones."""
        if not self.levels:
            return [Band(0, "LL")]
        return [Band(level, o) for level in range(self.levels, 0, -1) for o in self.orientations(level)]

    def halvings(self, band: Band) -> int:
        """Return how often the sides of the image are halved for the sub-images of ``band``."""
        return band.level

    # -- sizes ---------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How often sides are halved at most; they are padded to multiples of 2**depth."""
        if self._depth is None:  # no cached_property: torch.compile does not take the lock that it has
            self._depth = max(self.halvings(band) for band in self.bands())
        return self._depth

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return ``size`` (H, W) in pixels with each side rounded up to a multiple of 2**levels.

        With packets that is 2**depth.

        Raises InputError when a side is under that: the coarsest band would be padding only.
        """
        unit = 2**self.depth
        if min(size) < unit:
            raise InputError(_too_small(self.spec, size, self.levels, self.depth - self.levels))
        return -(-size[0] // unit) * unit, -(-size[1] // unit) * unit

    def band_size(self, size: tuple[int, int], band: Band | int) -> tuple[int, int]:
        """Return the (h, w) of the sub-images of ``band``, or of the low band of a level.

        ``size`` is that of the images, (H, W) in pixels.

        Errors as for :meth:`padded_size`, and for bands that the transform does not have.
        """
        band = Band(band, "LL", self.times[0]) if isinstance(band, int) else band
        if not min(1, self.levels) <= band.level <= self.levels:
            raise InputError(f"transform {self.spec}: level {band.level} is not among its levels 1 to {self.levels}")
        known = self.orientations(band.level)
        if band.orientation not in known:
            raise InputError(
                f"transform {self.spec} has no band {band}; at level {band.level} it has {', '.join(known)}"
            )
        height, width = self.padded_size(size)
        return height >> self.halvings(band), width >> self.halvings(band)


class PacketLayout(BandLayout):
    """Quadrants, with each high band of a level split ``splits[level]`` times more, into 4 to that power packets.

    A packet is named by every step to it: HLLH1 is the LH of HL1. Its sides are halved once more per split.
    """

    def __init__(self, spec: str, levels: int, splits: Mapping[int, int]) -> None:
        """Raises InputError for a level that there is not, and for more than 3 splits."""
        super().__init__(spec, levels)
        for level, times in splits.items():
            if not 1 <= level <= levels:
                raise InputError(f"packets: level {level} does not exist; levels are 1 (finest) to {levels}")
            if not 0 <= times <= MOST_SPLITS:
                raise InputError(f"packets: {times} splits at level {level}; give a number from 0 to {MOST_SPLITS}")
        self.splits = dict(splits)

    def orientations(self, level: int) -> tuple[Orientation, ...]:
        """Return LL, then the packets of HL, of LH and of HH."""
        return ("LL", *(name for o in HIGH_ORIENTATIONS for name in _packet_names(o, self.splits.get(level, 0))))

    def halvings(self, band: Band) -> int:
        """Return the level, and one more for every two letters after the first two."""
        return band.level + len(band.orientation) // 2 - 1


def _packet_names(orientation: Orientation, times: int) -> Iterator[Orientation]:
    """Yield the packets of a band that is split ``times`` times, in the order in which transforms give them."""
    if times == 0:
        yield orientation
    else:
        for further in ORIENTATIONS:
            yield from _packet_names(orientation + further, times - 1)


class RingLayout(BandLayout):
    """Per level LL with half the sides, and Q - 1 rings with the sides of the level's image ("radial:P,Q")."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError unless ``member`` is "P,Q" with P = ``levels`` and Q from 2 to 9."""
        resolutions, classes = _parse_rings(member)
        if resolutions != levels:
            raise InputError(
                f"transform 'radial:{member}' has {resolutions} resolutions, but levels is {levels}: make them equal"
            )
        super().__init__(f"radial:{resolutions},{classes}", levels)
        self.rings = classes - 1

    def orientations(self, level: int) -> tuple[Orientation, ...]:
        """Return LL, and the rings from the inner to the outer."""
        return ("LL", *RINGS[: self.rings])

    def halvings(self, band: Band) -> int:
        """Return the level of LL; a ring is as large as the image that it is part of."""
        return band.level if band.orientation == "LL" else band.level - 1


def _parse_rings(member: str) -> tuple[int, int]:
    first, comma, second = member.partition(",")
    if not (comma and first.strip().isdecimal() and second.strip().isdecimal()):
        raise InputError(
            f"transform 'radial:{member}': write the number of resolutions and that of frequency classes, "
            "for example radial:2,3"
        )
    resolutions, classes = int(first), int(second)
    if not 2 <= classes <= MOST_RINGS + 1:
        raise InputError(
            f"transform 'radial:{member}': {classes} frequency classes; give from 2 (low, high) to {MOST_RINGS + 1}"
        )
    return resolutions, classes


def _too_small(spec: str, size: tuple[int, int], levels: int, packets: int) -> str:
    fits = max(0, max(min(size), 1).bit_length() - 1 - packets)
    least = 2 ** (levels + packets)
    remedy = f"no level fits, sides start at {2 ** (1 + packets)}"
    if fits:
        remedy = f"at most {fits} level{'s' if fits > 1 else ''} fit"
    return (
        f"transform {spec}: an image of {size[0]} x {size[1]} pixels is too small for {levels} levels"
        f"{f' and packets {packets} deep' if packets else ''}, which need sides of at least {least}; {remedy}"
    )
