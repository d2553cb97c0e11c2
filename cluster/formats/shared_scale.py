"""The offset and slope by which the values of all scans of a data set become integers of 16 bits, exactly.

A value of a scan is stored * slope + offset, in fractions. The step of a data set is the greatest fraction of which
all slopes, and all differences between the least values, are multiples: every value is then the least value of all plus
a whole number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.formats.scan import Scale, Scan, greatest_step, in_scale, is_exact
from freqgan.errors import InputError

LEVELS = 2**16


class Span(NamedTuple):
    """What is to be known of a scan to choose the scale of a data set: its own, and the least and greatest integer."""

    name: str
    scale: Scale
    least: int
    greatest: int
    unit: str

    @property
    def ends(self) -> tuple[Fraction, Fraction]:
        """Return the least and the greatest value."""
        return self.least * self.scale.slope + self.scale.offset, self.greatest * self.scale.slope + self.scale.offset


def span_of(scan: Scan) -> Span:
    """Return the span of a scan of integers.

    Raises:
        InputError: it is a colour image, or its values have no step.

    """
    if scan.is_colour:
        raise InputError(
            f"{scan.name} is a colour image, which has no values to scale: pack colour images by themselves"
        )
    if scan.stored.dtype.kind == "f":
        raise InputError(f"{scan.name} holds values that are no multiples of a step: pack as float32")
    return Span(scan.name, scan.scale, int(scan.stored.min()), int(scan.stored.max()), scan.unit)


def own_scale(span: Span) -> Scale:
    """Return the scale of one scan by itself: its own slope, and its least value as offset.

    Raises InputError if it has more than 65,536 steps, or its slope or offset is not exact in 64 bits.
    """
    return _checked(Scale(span.scale.slope, span.ends[0]), [span])


def shared_scale(spans: Sequence[Span]) -> Scale:
    """Return the scale in which the values of all scans are integers from 0 to 65535.

    Raises:
        InputError: their units differ, or there is no such scale, naming the scans that make it impossible.

    """
    if not spans:
        raise InputError("there are no scans to choose a scale for: name a folder that holds some")
    for span in spans:
        if span.unit != spans[0].unit:
            raise InputError(
                f"{spans[0].name} is in {spans[0].unit or 'no known unit'} and {span.name} in "
                f"{span.unit or 'no known unit'}: pack each kind by itself"
            )
    least = min(span.ends[0] for span in spans)
    slopes = [span.scale.slope for span in spans if span.greatest > span.least]
    step = greatest_step([*slopes, *(span.ends[0] - least for span in spans)])
    return _checked(Scale(step or Fraction(1), least), spans)


def _checked(scale: Scale, spans: Sequence[Span]) -> Scale:
    low, high = min(spans, key=lambda span: span.ends[0]), max(spans, key=lambda span: span.ends[1])
    steps = (high.ends[1] - scale.offset) / scale.slope
    if steps >= LEVELS:
        named = low.name if low.name == high.name else f"{low.name} ... {high.name}"
        slopes = sorted({float(span.scale.slope) for span in spans})
        raise InputError(
            f"{named}: values from {float(low.ends[0]):.9g} to {float(high.ends[1]):.9g} in steps of "
            f"{float(scale.slope):.6g} (slopes {', '.join(f'{slope:.9g}' for slope in slopes[:4])}"
            f"{' ...' if len(slopes) > 4 else ''}) are {int(steps) + 1} levels, and 16 bits have {LEVELS}: "
            f"{_remedy(spans)}"
        )
    for word, number in (("slope", scale.slope), ("offset", scale.offset)):
        if not is_exact(number):
            raise InputError(
                f"{low.name}: the {word} {float(number)!r} of all scans together is not exact in 64 bits: "
                f"{_remedy(spans)}"
            )
    return scale


def _remedy(spans: Sequence[Span]) -> str:
    return "keep each scan's own slope, or pack as float32" if len(spans) > 1 else "pack as float32"


def to_integers(scan: Scan, scale: Scale) -> NDArray[np.uint16]:
    """Return the values (T, H, W) of ``scan`` as uint16 in ``scale``, exactly.

    Raises InputError where they are no whole numbers from 0 to 65535 in it.
    """
    integers = None if scan.stored.dtype.kind == "f" else _in_steps(scan, scale)
    if integers is None or integers.min() < 0 or integers.max() >= LEVELS:
        raise InputError(
            f"{scan.name} holds values that are no integers of 16 bits with slope {float(scale.slope):.9g} and offset "
            f"{float(scale.offset):.9g}: choose the scale from all scans, this one too, or pack as float32"
        )
    return integers.astype(np.uint16)


def _in_steps(scan: Scan, scale: Scale) -> NDArray[np.integer[Any]] | None:
    """Return the integers (T, H, W) of ``scale``; of a scan of one value its slope does not count."""
    least, greatest = int(scan.stored.min()), int(scan.stored.max())
    if least < greatest:
        return in_scale(scan.stored, scan.scale, scale)
    steps = (least * scan.scale.slope + scan.scale.offset - scale.offset) / scale.slope
    is_level = steps.denominator == 1 and 0 <= steps < LEVELS
    return np.full(scan.stored.shape, int(steps), np.int64) if is_level else None


def to_floats(scan: Scan) -> NDArray[np.float32]:
    """Return the values (T, H, W) of ``scan`` as float32, rounded to the nearest.

    Raises InputError for values beyond float32, and for colour images.
    """
    if scan.is_colour:
        raise InputError(
            f"{scan.name} is a colour image, which has no values to scale: pack colour images by themselves"
        )
    with np.errstate(over="ignore"):
        floats = scan.values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise InputError(f"{scan.name} holds values beyond 3.4e38, the greatest float32: scale them down")
    return floats
