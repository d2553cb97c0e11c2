"""The bands of clips: those of an image, in each of the bands of changes over time."""

from __future__ import annotations

from freqgan.bands import TIME_LOW, Band, Orientation
from freqgan.errors import InputError
from freqgan.layouts.band_layout import BandLayout


class ClipLayout(BandLayout):
    """The bands of ``still``, an image's, once for tL and once for each of tH of the slowest changes to the fastest.

    Frames are split in time first: tL has frames / 2^levels coefficients of every pixel, tH1 half as many as there are
    frames, tH2 a quarter, and so on.
    """

    def __init__(self, still: BandLayout, frames: int, time_levels: int) -> None:
        """Raise InputError unless ``frames`` can be halved ``time_levels`` times."""
        super().__init__(still.spec, still.levels)
        if frames < 1 or time_levels < 0 or frames % 2**time_levels:
            fits = largest_time_levels(frames) if frames > 0 else 0
            raise InputError(
                f"time_levels: {frames} frames cannot be halved {time_levels} times; give at most {fits}, or a number "
                f"of frames that is a multiple of {2 ** max(time_levels, 0)}"
            )
        self.still, self.frames, self.time_levels = still, frames, time_levels

    @property
    def times(self) -> tuple[str, ...]:
        """The names of the temporal bands in the order of the chain: tL, then the changes from slow to fast."""
        return (TIME_LOW, *(f"tH{level}" for level in range(self.time_levels, 0, -1)))

    def coefficients(self, time: str) -> int:
        """Return how many coefficients a pixel has in the temporal band ``time``; InputError where there is no such."""
        if time == TIME_LOW:
            return self.frames >> self.time_levels
        if time not in self.times:
            raise InputError(f"clips of {self.frames} frames have no temporal band {time}; {', '.join(self.times)}")
        return self.frames >> int(time.removeprefix("tH"))

    def orientations(self, level: int) -> tuple[Orientation, ...]:
        """Return the orientations of the bands of ``level``, LL first, which all temporal bands have."""
        return self.still.orientations(level)

    def bands(self) -> list[Band]:
        """Return all bands in the order of the chain: temporal band by temporal band."""
        return [band._replace(time=time) for time in self.times for band in self.still.bands()]

    def halvings(self, band: Band) -> int:
        """Return how often the sides of a frame are halved for the sub-images of ``band``."""
        return self.still.halvings(band.still)


def largest_time_levels(frames: int) -> int:
    """Return how often ``frames`` can be halved without a rest."""
    return (frames & -frames).bit_length() - 1
