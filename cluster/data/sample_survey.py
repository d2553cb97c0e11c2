"""What samples of shards hold, seen in a few of them: sizes, frames, channels, bits, and the range of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.data.decoding import Pixels, decode_image, image_format, natural_form
from cluster.data.settings import MAX_PIXELS
from cluster.data.shards import ShardSet
from cluster.data.stored_images import OFFSET, SLOPE, frames_of, number_of
from cluster.data.targets import sample_fields, stored_files
from cluster.formats.arrays import decode_npy
from cluster.formats.strips import unstacked
from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import FreqganError
from freqgan.sizes import Size

MOST = 32
"""Samples that are looked at."""
FPS = "fps"


@dataclass
class Survey:
    """What was seen in some samples.

    Attributes:
        sound: how many could be read.
        damaged: how many could not.
        sizes: height and width of their images, or of a frame.
        frames: how many each has.
        channels: of an image.
        bits: of a number.
        rates: frames in a second, as far as they are known.
        scales: offset and slope of each.
        least: the least value, which is number * slope + offset.
        greatest: the greatest value.

    """

    sound: int = 0
    damaged: int = 0
    sizes: set[Size] = field(default_factory=set)
    frames: set[int] = field(default_factory=set)
    channels: set[int] = field(default_factory=set)
    bits: set[BitDepth] = field(default_factory=set)
    rates: set[float] = field(default_factory=set)
    scales: set[tuple[float, float]] = field(default_factory=set)
    least: float = float("inf")
    greatest: float = float("-inf")

    def add(self, pixels: Pixels, fields: Mapping[str, Any], name: str) -> None:
        """Take a sample into account: its ``pixels`` (H, W, C), and the ``fields`` beside it.

        Raises InputError, naming ``name``, for fields that are wrong.
        """
        frames = frames_of(fields, name)
        _, height, width, channels = unstacked(pixels, frames, name).shape
        scale = number_of(fields, OFFSET, 0.0, name), number_of(fields, SLOPE, 1.0, name)
        bits: dict[int, BitDepth] = {1: 8, 2: 16, 4: FLOAT_BITS}
        self.sound += 1
        self.sizes.add((height, width))
        self.frames.add(frames)
        self.channels.add(channels)
        self.bits.add(bits[pixels.itemsize])
        self.scales.add(scale)
        if FPS in fields:
            self.rates.add(number_of(fields, FPS, 0.0, name))
        for end in (float(pixels.min()), float(pixels.max())):
            self.least = min(self.least, end * scale[1] + scale[0])
            self.greatest = max(self.greatest, end * scale[1] + scale[0])


def survey(index: ShardSet, most: int = MOST) -> Survey:
    """Return what ``most`` samples hold, chosen evenly from all of ``index``; damaged ones are counted."""
    samples = [(shard, sample) for shard in index.shards for sample in shard.samples]
    seen = Survey()
    for place in np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int).tolist():
        shard, sample = samples[place]
        name = f"{sample.image_name} in {shard.url}"
        files = stored_files(shard, sample)
        try:
            seen.add(_decoded(files.read(sample.offset, sample.size_bytes), name), sample_fields(files), name)
        except FreqganError:
            seen.damaged += 1
    return seen


def _decoded(data: bytes, name: str) -> Pixels:
    """Return an image (H, W, C) with the channels and bits that it is stored with."""
    if image_format(data) == "npy":
        return decode_npy(data, name)
    form = natural_form(data, name, MAX_PIXELS)
    return decode_image(data, name, channels=form.channels, bit_depth=form.bit_depth)
