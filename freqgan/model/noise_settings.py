"""The settings of noise, and how many orthogonal noises there can be; the draws are in :mod:`freqgan.model.noise`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqgan.errors import InputError
from freqgan.setting_group import SettingGroup

NoiseMode = Literal["haar", "hurwitz", "split", "independent"]


class NoiseSettings(SettingGroup):
    """The latent vectors of the generators, in training and in generation."""

    dimensions: int = Field(
        default=64,
        gt=0,
        le=1_000_000,
        description="Length of each generator's noise vector. 64 dimensions allow 12 mutually orthogonal noises "
        "of hurwitz, 128 allow 16, 256 allow 17.",
    )
    training: NoiseMode = Field(
        default="haar",
        description="How noises are drawn in training. haar: random orthogonal vectors; hurwitz: fixed rotations "
        "of one target vector; split: disjoint parts of one vector; independent: not orthogonal, for "
        "comparison.",
    )
    generation: NoiseMode = Field(
        default="hurwitz",
        description="How noises are drawn when images are generated. hurwitz gives every generator the same "
        "target vector and yet orthogonal noises.",
    )


def hurwitz_radon_number(dimensions: int) -> int:
    """Return rho(n) = 8a + 2^b for n = 2^(4a + b) * odd, 0 <= b < 4.

    So many orthogonal rotations of one vector R^n has.
    """
    sixteens, rest = divmod(twos(dimensions), 4)
    return int(8 * sixteens + 2**rest)


def smallest_dimensions(mode: NoiseMode, count: int) -> int:
    """Return the smallest n in which ``mode`` has ``count`` noises.

    For hurwitz that is a power of two: odd factors add nothing.
    """
    if mode == "independent":
        return 1
    if mode != "hurwitz":
        return max(count, 1)
    dimensions = 1
    while hurwitz_radon_number(dimensions) < count:
        dimensions *= 2
    return dimensions


def check_noise(mode: NoiseMode, count: int, dimensions: int) -> None:
    """Raise InputError unless ``mode`` can draw ``count`` noises in R^dimensions; it names the smallest n that can."""
    if dimensions < 1:
        raise InputError(f"noise.dimensions = {dimensions}: set it to 1 or more")
    capacity = {"hurwitz": hurwitz_radon_number(dimensions), "independent": count}.get(mode, dimensions)
    if count > capacity:
        other = f", or use the noise mode haar, which needs {count}" if mode == "hurwitz" else ""
        raise InputError(
            f"noise.dimensions = {dimensions} has room for {capacity} orthogonal noises in mode {mode}, but {count} "
            f"generators need one each: set noise.dimensions to {smallest_dimensions(mode, count)}{other}"
        )


def twos(dimensions: int) -> int:
    """Return how often 2 divides ``dimensions`` (at least 1)."""
    return (dimensions & -dimensions).bit_length() - 1
