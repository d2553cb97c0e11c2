"""A scan: what a file of DICOM or NIfTI measured, as integers with an exact scale, and nothing about whom it shows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from freqgan.errors import InputError

Stored = NDArray[Any]
Spacing = tuple[float, float, float]
Axis = Literal["axial", "coronal", "sagittal"]
"""The axis of the body along which slices follow each other."""
MAX_VALUES = 2**29
"""Scans of more values are refused from their header: in 32 bits, as they are decoded, this is 2 GiB."""
_EXACT = 2**53
"""Whole numbers up to this are exact as float64, and so in JSON."""
VALUE_KINDS = ("shared", "own", "float32")
INSTALL = 'pip install "freqgan[medical]"'


@contextmanager
def refusing(name: str, why: str) -> Iterator[None]:
    """Turn whatever a library raises for a damaged file ``name`` into an InputError without its text.

    Such texts quote what stands in the file, which may name a patient. ``why`` is said instead: "is damaged ...".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{name} needs more memory than there is: split it or make it smaller") from None
    # pydicom and nibabel raise AttributeError, KeyError, OSError, ValueError, struct.error and many more.
    except Exception:
        raise InputError(f"{name} {why}") from None


@dataclass(frozen=True)
class ScanOptions:
    """How scans become samples; each field is an option of ``freqgan shards pack``.

    Attributes:
        are_volumes: whether a volume is one sample; else every slice is one.
        axis: along which slices of NIfTI follow each other.
        has_time: whether a file of NIfTI has a time, which becomes frames.
        values: integers of one scale for all scans ("shared"), of a scale for each ("own"), or "float32".
        allow_burned_in: whether images are packed that say that text is burnt into them.

    """

    are_volumes: bool = False
    axis: str = "axial"
    has_time: bool = False
    values: str = "shared"
    allow_burned_in: bool = False

    def __post_init__(self) -> None:
        for option, value, known in (("axis", self.axis, get_args(Axis)), ("values", self.values, VALUE_KINDS)):
            if value not in known:
                raise InputError(f"--{option} {value}: give one of {', '.join(known)}")


DEFAULT_SCANS = ScanOptions()


class NoImageError(InputError):
    """A file that is in order but holds no image: a plan, a report, an index of a disk."""


@dataclass(frozen=True)
class Scale:
    """What a stored number means: value = stored * slope + offset, in exact fractions."""

    slope: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def values(self, stored: Stored) -> Stored:
        """Return the values of ``stored`` (...): int64 where slope and offset are whole numbers, else float64."""
        if self.slope.denominator == 1 and self.offset.denominator == 1 and stored.dtype.kind in "iu":
            return stored.astype(np.int64) * int(self.slope) + int(self.offset)
        return np.asarray(stored.astype(np.float64) * float(self.slope) + float(self.offset))

    @classmethod
    def of(cls, members: Mapping[str, Any], name: str) -> Scale:
        """Return the scale that ``members`` say: ``offset`` and ``slope`` of an index.json or a sample's .json.

        A number is the decimal that it is written as; a missing slope is 1, a missing offset 0. Raises InputError for
        what is no finite number, and for a slope that is not above 0; it names ``name``.
        """
        numbers = [members.get("slope", 1), members.get("offset", 0)]
        for word, number in zip(("slope", "offset"), numbers, strict=True):
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not is_number or not math.isfinite(number) or (word == "slope" and number <= 0):
                raise InputError(
                    f"{name} has the {word} {number!r}, which is no finite number, or not above 0: repack it"
                )
        return cls(*(Fraction(repr(number)) for number in numbers))

    def members(self) -> dict[str, float]:
        """Return ``offset`` and ``slope`` as JSON has them.

        Raises InputError if one of them is not exact in 64 bits.
        """
        for word, number in (("slope", self.slope), ("offset", self.offset)):
            if not is_exact(number):
                raise InputError(f"the {word} {number} is no number of 64 bits: pack these scans as float32")
        return {"offset": float(self.offset), "slope": float(self.slope)}


IDENTITY = Scale()


@dataclass(frozen=True)
class Placement:
    """Where a NIfTI file has its volume in space: the numbers of its affines and zooms, as its header has them.

    ``pixdim`` are the sign of the quaternion's third axis and the three zooms, ``units`` the code of their unit, and
    ``fields`` the others by name. ``axis`` is the axis of the slices, ``turn`` the exchange of axes that was made.
    """

    axis: Axis
    pixdim: tuple[float, ...]
    units: int
    fields: tuple[tuple[str, tuple[float, ...]], ...]
    turn: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scan:
    """One image, a volume of T slices, or a clip of T frames.

    Attributes:
        name: of the file or series, as errors have it.
        stored: (T, H, W) of integers, or of floats, which are then the values; (T, H, W, 3) of uint8 or uint16 in
            colour.
        scale: of the integers; its slope is above 0.
        spacing: mm between slices, rows and columns; 0 between slices where the file does not say; None where it says
            nothing.
        unit: HU, Gy ... or "" where it is not known.
        fps: frames in a second, of a clip.
        facts: what else is known, by the names of DICOM's tags (``KEPT_TAGS`` in ``dicom_tags.py``).
        placement: where a NIfTI file has the volume in space.

    """

    name: str
    stored: Stored
    scale: Scale = IDENTITY
    spacing: Spacing | None = None
    unit: str = ""
    fps: float | None = None
    facts: Mapping[str, float | str] = field(default_factory=dict)
    placement: Placement | None = None

    @property
    def is_colour(self) -> bool:
        """Return whether it has three channels."""
        return self.stored.ndim == 4

    @property
    def values(self) -> Stored:
        """Return the measured values (T, H, W), or the pixels (T, H, W, 3) of a colour image."""
        return self.stored if self.is_colour or self.stored.dtype.kind == "f" else self.scale.values(self.stored)

    def description(self) -> dict[str, Any]:
        """Return what is written about it beside its pixels, but for offset and slope: numbers, and known words."""
        said: dict[str, Any] = {"frames": self.stored.shape[0]}
        if self.fps is not None:
            said["fps"] = self.fps
        if self.spacing is not None:
            said["spacing"] = list(self.spacing)
        return said | dict(self.facts)


def is_exact(number: Fraction) -> bool:
    """Return whether ``number`` is a float of 64 bits, or the decimal that is the shortest name of one."""
    try:
        nearest = float(number)
    except OverflowError:
        return False
    return number in (Fraction(nearest), Fraction(repr(nearest)))


def check_size(name: str, frames: int, height: int, width: int, channels: int, max_values: int) -> None:
    """Raise InputError for an image without pixels or with more than ``max_values`` values."""
    shape = f"{frames} x {height} x {width}" + f" x {channels}" * (channels > 1)
    if min(frames, height, width, channels) < 1:
        raise InputError(f"{name} is an image of {shape} pixels: it is damaged or empty, remove it")
    if frames * height * width * channels > max_values:
        raise InputError(f"{name} has {shape} values, more than the {max_values} allowed: split it or make it smaller")


def whole_or_float(values: NDArray[np.floating[Any]], name: str) -> Stored:
    """Return ``values`` (...) as int64 where all are whole numbers, else as they are.

    Raises InputError where some are not finite.
    """
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        raise InputError(
            f"{name} holds {wrong} values that are no finite numbers (NaN or infinite): replace them, for example by "
            "numpy.nan_to_num, and write the file anew"
        )
    if np.all(np.abs(values) < _EXACT) and np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    return values


def common_scale(scales: Iterable[Scale]) -> Scale:
    """Return the coarsest scale in which every number of all ``scales`` is a whole number; its slope is above 0."""
    distinct = list(dict.fromkeys(scales))
    offset = distinct[0].offset
    return Scale(greatest_step([*(s.slope for s in distinct), *(s.offset - offset for s in distinct)]), offset)


def greatest_step(numbers: Iterable[Fraction]) -> Fraction:
    """Return the greatest fraction of which all ``numbers`` are multiples; 0 where all are 0."""
    step = Fraction(0)
    for number in numbers:
        denominator = math.lcm(step.denominator, number.denominator)
        step = Fraction(math.gcd(int(step * denominator), int(number * denominator)), denominator)
    return step


def in_scale(stored: Stored, scale: Scale, other: Scale) -> NDArray[np.integer[Any]] | None:
    """Return integers (...) of ``scale`` as those that mean the same in ``other``; None where there are no such."""
    if scale == other:
        return stored
    factor, shift = scale.slope / other.slope, (scale.offset - other.offset) / other.slope
    if factor.denominator != 1 or shift.denominator != 1 or stored.size == 0:
        return None
    ends = (int(stored.min()), int(stored.max()))
    if max(abs(end * factor + shift) for end in ends) >= _EXACT or abs(factor) >= _EXACT or abs(shift) >= _EXACT:
        return None
    return stored.astype(np.int64) * int(factor) + int(shift)
