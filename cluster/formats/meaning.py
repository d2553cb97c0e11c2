"""What the stored numbers of images mean, and which facts all samples of a data set share.

It is written as ``values`` into the index of shards, and from there into runs and exported models. Its members are
``offset`` and ``slope`` (value = stored * slope + offset), ``unit``, ``spacing`` (mm between slices, rows and columns),
``modality`` (a word of DICOM), and ``size`` (height and width of an image) and ``bits`` of what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cluster.formats.dicom_tags import MODALITIES
from cluster.formats.scan import IDENTITY, Scale, Spacing
from cluster.formats.source_format import Piece
from freqgan.errors import InputError

OFFSET, SLOPE, UNIT, SPACING, MODALITY, SIZE, BITS = "offset", "slope", "unit", "spacing", "modality", "size", "bits"
OTHER_MODALITY = "OT"
LONGEST_UNIT = 32
"""Characters of a unit, which is shown on pages and written into files."""
STORED_BITS = (8, 16, 32)
_REMEDY = "write it so, or leave it out"


@dataclass(frozen=True)
class Meaning:
    """What pixels mean: their scale and unit, the mm between slices, rows and columns, the kind of equipment."""

    scale: Scale = IDENTITY
    unit: str = ""
    spacing: Spacing | None = None
    modality: str = OTHER_MODALITY

    @classmethod
    def of(cls, values: Mapping[str, Any], name: str) -> Meaning:
        """Return what ``values`` say; what they do not say is as of pixels without a meaning.

        Raises:
            InputError: a member is not of its kind; ``name`` is where it stands.

        """
        unit, modality = values.get(UNIT, ""), values.get(MODALITY, OTHER_MODALITY)
        if not isinstance(unit, str) or len(unit) > LONGEST_UNIT or not unit.isprintable():
            raise _wrong(name, UNIT, unit, f"a unit is a word of at most {LONGEST_UNIT} characters")
        if modality not in MODALITIES:
            raise _wrong(name, MODALITY, modality, "a modality is a term of DICOM, such as CT")
        return cls(Scale.of(values, name), unit, _spacing(values, name), modality)


NO_MEANING = Meaning()


class SharedFacts:
    """Spacing, modality, size and bits of all pieces of a data set, as far as they are the same in all."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] | None = None

    def add(self, piece: Piece) -> None:
        """Take another piece into account."""
        height, width = piece.pixels.shape[-3:-1]
        facts = {
            SPACING: piece.fields.get(SPACING),
            MODALITY: piece.fields.get("Modality"),
            SIZE: [height, width],
            BITS: 8 * piece.pixels.itemsize,
        }
        self._facts = facts if self._facts is None else _common([self._facts, facts])

    def values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``values``, what is known of them otherwise, with these facts; {} where they are of no scans."""
        facts = {name: fact for name, fact in (self._facts or {}).items() if fact is not None}
        return {**facts, **values} if values or {SPACING, MODALITY} & facts.keys() else {}


def shared_values(all_values: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``values`` of several data sets have in common; offset and slope both, or neither."""
    shared = _common(list(all_values))
    if not {OFFSET, SLOPE} <= shared.keys():
        shared = {name: value for name, value in shared.items() if name not in (OFFSET, SLOPE)}
    return shared


def _common(members: list[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = members or [{}]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def as_seen(
    values: Mapping[str, Any], bit_depth: int, size: tuple[int, int], window: tuple[int, int] | None
) -> dict[str, Any]:
    """Return ``values`` of a data set as those of a model's images, which are resampled, and may have other bits.

    Args:
        values: of the data set.
        bit_depth: of the model. A step of 8 bits is 257 of 16; with 32 the values are themselves what is seen.
        size: height and width of the model's images.
        window: height and width of the part of a stored image that becomes one; None where these are not known.

    """
    seen = {name: value for name, value in values.items() if name != SIZE}
    if SPACING in seen:
        if window is None:
            del seen[SPACING]
        else:
            step, *pixel = seen[SPACING]
            sides = zip(pixel, window, size, strict=True)
            seen[SPACING] = [step, *(mm * stored / own for mm, stored, own in sides)]
    stored_bits = seen.get(BITS, bit_depth)
    if SLOPE in seen and {stored_bits, bit_depth} == {8, 16}:
        slope = Scale.of(values, "values").slope
        seen[SLOPE] = float(slope * 257 if bit_depth == 8 else slope / 257)
    return seen


def size_of(values: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """Return height and width of the stored images by ``values``; None where they do not say it.

    Raises InputError, naming ``name``, for what is no size.
    """
    size = values.get(SIZE)
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise _wrong(name, SIZE, size, "a size is [height, width]")
    return size[0], size[1]


def check_bits(values: Mapping[str, Any], name: str) -> None:
    """Raise InputError, naming ``name``, where the bits of ``values`` are no 8, 16 or 32."""
    if values.get(BITS, 8) not in STORED_BITS:
        raise _wrong(name, BITS, values[BITS], "bits are 8, 16 or 32")


def step_of(values: Mapping[str, Any], name: str) -> Fraction | None:
    """Return the step between the values of a data set; None where they are floats, or have no slope in common."""
    if SLOPE not in values or values.get(BITS, 16) == 32:
        return None
    return Scale.of(values, name).slope


def _spacing(values: Mapping[str, Any], name: str) -> Spacing | None:
    spacing = values.get(SPACING)
    if spacing is None:
        return None
    is_three = isinstance(spacing, list | tuple) and len(spacing) == 3
    if not is_three or not all(isinstance(mm, int | float) and math.isfinite(mm) and mm >= 0 for mm in spacing):
        raise _wrong(name, SPACING, spacing, "a spacing is three numbers of mm: between slices, rows and columns")
    if min(spacing[1:]) <= 0:
        raise _wrong(name, SPACING, spacing, "rows and columns are more than 0 mm apart")
    return float(spacing[0]), float(spacing[1]), float(spacing[2])


def _wrong(name: str, member: str, value: object, rule: str) -> InputError:
    return InputError(f"{name} has the {member} {value!r}, but {rule}: {_REMEDY}")
