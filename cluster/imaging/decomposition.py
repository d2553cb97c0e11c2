"""One image taken apart into its bands: as a picture, and as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.imaging.pictures import DETAIL_RANGE, band_picture
from freqgan.bands import Band, SubImages
from freqgan.errors import InputError
from freqgan.model.band_statistics import STD_FLOOR
from freqgan.pixels import from_pixels, to_pixels
from freqgan.transforms import BandTransform
from freqgan.transforms.protocol import LOW_RANGE

LEAST_SIDE = 512
"""Pictures of smaller images are enlarged to about this many pixels."""


class BandRow(NamedTuple):
    """What is said of one band: sizes in coefficients, values for pixels in [-1, 1], and its share of all energy."""

    band: str
    width: int
    height: int
    mean: float
    deviation: float
    largest: float
    share: float


class Decomposition(NamedTuple):
    """The bands (1, C, h, h), float64, that hold an image of ``size`` (H, W) without repetition."""

    transform: BandTransform
    size: tuple[int, int]
    coefficients: SubImages

    def rows(self) -> Iterator[BandRow]:
        """Yield what is said of every band, in the order of the chain."""
        energies = {band: float(x.square().sum()) for band, x in self.coefficients.items()}
        energy = max(sum(energies.values()), 1e-12)
        for band, x in self.coefficients.items():
            height, width = x.shape[-2:]
            numbers = (float(x.mean()), float(x.std(correction=0)), float(x.abs().max()))
            yield BandRow(str(band), width, height, *numbers, energies[band] / energy)

    def picture(self) -> Image.Image:
        """Return the mosaic of all bands, small ones enlarged."""
        pictures = {band: _visible(band, x) for band, x in self.coefficients.items()}
        return band_picture(self.transform, self.size, pictures, max(1, LEAST_SIDE // max(self.size)))


def decompose(pixels: Tensor, transform: BandTransform) -> Decomposition:
    """Return the bands of stored pixels (1, C, H, W): the high ones, and LL of the coarsest level."""
    bands = transform.analyse(from_pixels(pixels).double())
    own = {band: bands[band] for band in transform.independent_bands()}
    return Decomposition(transform, (pixels.shape[-2], pixels.shape[-1]), own)


def _visible(band: Band, x: Tensor) -> Pixels:
    """Return (1, C, h, w) as 8 bits (C, h, w).

    A low band is in the range of the pixels, a high one around grey, by its own deviation.
    """
    if band.orientation == "LL":
        return to_pixels(x / LOW_RANGE**band.level)[0].numpy()
    deviation = x.square().mean().sqrt().clamp(min=STD_FLOOR)
    return to_pixels(x / (DETAIL_RANGE * deviation))[0].numpy()


def parse_packets(text: str) -> dict[int, int]:
    """Return {1: 1, 2: 2} for "1=1,2=2"; InputError for anything else."""
    times_by_level: dict[int, int] = {}
    for part in filter(None, text.split(",")):
        level, separator, times = part.partition("=")
        if not (separator and level.strip().isdecimal() and times.strip().isdecimal()):
            raise InputError(f"--packets {text}: write LEVEL=TIMES, for example 1=1 or 1=2,2=1")
        if int(level) in times_by_level:
            raise InputError(f"--packets {text}: level {int(level)} is given twice; give every level once")
        times_by_level[int(level)] = int(times)
    return times_by_level
