"""The order of the slices of a volume along its normal, and whether none is missing or there twice.

Positions and orientations are those of DICOM PS3.3, C.7.6.2.1.1: the normal is the cross product of the directions of
rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freqgan.errors import InputError

_SAME_PLACE_MM = 1e-3
_UNEVEN = 0.02
"""Distances between slices differ by no more than this part; files round positions."""
_ROUNDED_MM = 0.01
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Slice:
    """A slice and where it is.

    ``position`` is that of its first pixel in mm, ``orientation`` the directions of its rows and columns, ``pixel`` the
    mm between rows and between columns, ``thickness`` the mm between slices by its header, ``number`` its instance
    number; each is None where the file does not say.
    """

    name: str
    height: int
    width: int
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel: tuple[float, float] | None = None
    thickness: float | None = None
    number: int | None = None


def order(slices: Sequence[Slice]) -> tuple[list[int], float | None]:
    """Return the order of ``slices`` along their normal, or by number without positions, and the mm between them.

    Raises:
        InputError: sizes, spacings or directions differ, slices are missing or doubled, or nothing orders them; it
            names the files.

    """
    for other in slices[1:]:
        _check_alike(slices[0], other)
    if len(slices) == 1:
        return [0], slices[0].thickness
    placed = [slice_ for slice_ in slices if slice_.position is not None and slice_.orientation is not None]
    if len(placed) == len(slices):
        indices, step = _in_order(slices, _along_normal(slices), "mm")
        return indices, step
    if placed:
        without = next(slice_ for slice_ in slices if slice_ not in placed)
        raise InputError(f"{without.name} has no position, {placed[0].name} of the same series has one: {_ALONE}")
    numbers = [slice_.number for slice_ in slices]
    for slice_ in slices:
        if slice_.number is None:
            raise InputError(f"{slice_.name} has neither a position nor a number, so its series has no order: {_ALONE}")
    indices, _ = _in_order(slices, [float(number or 0) for number in numbers], "numbers")
    return indices, slices[0].thickness


_ALONE = "complete the series, or pack its slices one by one"


def _check_alike(first: Slice, other: Slice) -> None:
    if (first.height, first.width) != (other.height, other.width):
        raise InputError(
            f"{first.name} has {first.width} x {first.height} pixels and {other.name} of the same series "
            f"{other.width} x {other.height}: {_ALONE}"
        )
    if (first.pixel is None) != (other.pixel is None) or (
        first.pixel is not None and other.pixel is not None and not np.allclose(first.pixel, other.pixel, rtol=1e-3)
    ):
        raise InputError(
            f"the pixels of {first.name} are {_pixel(first)} and those of {other.name} of the same series "
            f"{_pixel(other)}: {_ALONE}"
        )


def _pixel(slice_: Slice) -> str:
    return "of no known size" if slice_.pixel is None else f"{slice_.pixel[0]:g} x {slice_.pixel[1]:g} mm"


def _along_normal(slices: Sequence[Slice]) -> list[float]:
    """Return the mm of every slice along the normal of the first."""
    first = np.array(slices[0].orientation)
    for slice_ in slices:
        if np.abs(np.array(slice_.orientation) - first).max() > _SAME_DIRECTION:
            raise InputError(f"{slices[0].name} and {slice_.name} of one series lie in different directions: {_ALONE}")
    normal = np.cross(first[:3], first[3:])
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:
        raise InputError(f"{slices[0].name}: the directions of its rows and columns are not perpendicular: {_ALONE}")
    return [float(np.dot(normal / length, np.array(slice_.position))) for slice_ in slices]


def _in_order(slices: Sequence[Slice], places: Sequence[float], unit: str) -> tuple[list[int], float]:
    indices = sorted(range(len(slices)), key=lambda index: places[index])
    pairs = [(indices[i], indices[i + 1]) for i in range(len(indices) - 1)]
    distances = [places[after] - places[before] for before, after in pairs]
    step = min(distances)
    for (before, after), distance in zip(pairs, distances, strict=True):
        if distance < _SAME_PLACE_MM:
            raise InputError(f"{slices[before].name} and {slices[after].name} are the same slice of a series: {_ALONE}")
    for (before, after), distance in zip(pairs, distances, strict=True):
        if distance - step <= step * _UNEVEN + _ROUNDED_MM:
            continue
        missing = distance / step
        named = f"between {slices[before].name} and {slices[after].name}"
        if math.isclose(missing, round(missing), abs_tol=0.1):
            raise InputError(
                f"{round(missing) - 1} of the slices of a series are missing {named}: they are {distance:g} {unit} "
                f"apart, others {step:g}: {_ALONE}"
            )
        raise InputError(f"slices of a series are {distance:g} {unit} apart {named}, others {step:g}: {_ALONE}")
    return indices, sum(distances) / len(distances)
