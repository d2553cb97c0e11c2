"""NIfTI volumes as scans and back: slices from top to bottom of the body, and the place in space that a file gives.

Arrays of files lie in any of 48 ways in the body. Here slices, rows and columns run in one way, which is that of DICOM:
axes are exchanged and turned over by the file's affine, and no value is changed. The format is that of
https://nifti.nimh.nih.gov/nifti-1 (nifti1.h); of its header the texts (descrip, db_name, aux_file, intent_name) and the
extensions are not kept.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import zlib
from fractions import Fraction
from types import ModuleType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cluster.formats.scan import (
    IDENTITY,
    INSTALL,
    MAX_VALUES,
    Axis,
    NoImageError,
    Placement,
    Scale,
    Scan,
    Spacing,
    Stored,
    check_size,
    refusing,
    whole_or_float,
)
from freqgan.errors import InputError

DIRECTIONS: dict[Axis, tuple[str, str, str]] = {
    "axial": ("S", "P", "L"),
    "coronal": ("P", "I", "L"),
    "sagittal": ("L", "I", "P"),
}
"""Where slices, rows and columns run to: Superior or Inferior, Posterior, Left."""
_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
_KEPT_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x",
    "srow_y", "srow_z",
)  # fmt: skip
_GZIP = b"\x1f\x8b"
_LENGTHS = {1: 348, 2: 540}
"""Bytes of the header by the version of the format."""
_LONGEST_SIDE = 32767
_MOST_BESIDE_VALUES = 2**24
"""Bytes of header and extensions that are read."""
_SPACE_UNITS = 7
_AXIAL_TURN = np.array([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
"""That of an array (columns, rows, slices) which lies as DICOM has it."""


def check_nibabel(name: str) -> ModuleType:
    """Return nibabel, silenced; InputError where it, which ``name`` needs, is not installed."""
    try:
        import nibabel
    except ImportError:
        raise InputError(f"{name} needs nibabel: {INSTALL}") from None
    logging.getLogger("nibabel").setLevel(logging.CRITICAL + 1)  # it quotes fields of headers
    return nibabel


def is_nifti(name: str) -> bool:
    """Return whether a file is one by its name: .nii or .nii.gz."""
    return name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(
    data: bytes, name: str, *, axis: Axis = "axial", time: bool = False, max_values: int = MAX_VALUES
) -> list[Scan]:
    """Return the volume of a file, slices along ``axis``, or by ``time`` a clip of every slice of a file with a time.

    Values are those of the file's scl_slope and scl_inter, exactly.

    Raises:
        NoImageError: the file is in order and holds no volume, but a matrix or a surface.
        InputError: it is damaged or too large, or has a time and ``time`` is false, or the reverse.

    """
    if axis not in get_args(Axis):
        raise InputError(f"the axis is {axis!r}, but must be one of {', '.join(get_args(Axis))}")
    with refusing(name, _WRONG):
        image = _opened(data, name, max_values)
        shape = _volume_shape(image, name, time)
        turn = _turn(image, name, axis)
        stored, scale = _stored(image, name)
        stored = _turned(stored.reshape(*shape, *stored.shape[len(image.shape) :]), turn)
        placement, spacing = _placement(image, axis, turn), _spacing(image, turn)
        if not time:
            return [Scan(name, stored[:, :, :, 0], scale, spacing, placement=placement)]
        clips, fps = np.moveaxis(stored, 3, 1), _fps(image)  # (slices, frames, rows, columns)
        named = ((f"slice {index + 1} of {name}", np.ascontiguousarray(clip)) for index, clip in enumerate(clips))
        return [Scan(said, clip, scale, spacing, fps=fps, placement=placement) for said, clip in named]


def write_nifti(
    values: Stored, placement: Placement | None = None, spacing: Spacing | None = None, description: str = ""
) -> bytes:
    """Return a NIfTI-1 file, compressed by gzip, of ``values`` (T, H, W), with scl_slope 1 and scl_inter 0.

    The array lies as that of the reference ``placement``, with its affines and zooms; without one its slices are axial,
    ``spacing`` mm apart, or 1 mm. ``description`` is a text for its header, of up to 79 letters of ASCII. Whole numbers
    are stored as integers of 8 to 32 bits, others as float32. The same values give the same bytes.

    Raises InputError for an array of other axes, of whole numbers beyond 32 bits, or with a side above 32767.
    """
    library = check_nibabel("a NIfTI file")
    if values.ndim != 3 or min(values.shape) < 1 or max(values.shape) > _LONGEST_SIDE:
        raise InputError(
            f"an array of shape {values.shape} is no volume (T, H, W) with sides from 1 to {_LONGEST_SIDE}"
        )
    header = library.Nifti1Header()
    turn = np.array(placement.turn) if placement is not None else _AXIAL_TURN
    if placement is not None:
        _place(header, placement)
    array = _narrowest(library.orientations.apply_orientation(values, _inverse(turn)))
    header.set_data_dtype(array.dtype)
    header["descrip"] = description.encode("ascii")
    if placement is None:
        _place_axial(header, array.shape, spacing or (1.0, 1.0, 1.0))
    written = bytearray(library.Nifti1Image(array, None, header).to_bytes())
    written[: _LENGTHS[1]] = _unscaled(library.Nifti1Header(bytes(written[: _LENGTHS[1]])))
    return gzip.compress(bytes(written), mtime=0)


# -- reading ---------------------------------------------------------------------------------------


_WRONG = "is damaged, or no NIfTI file: write it anew or remove it"
"""What is said of a file that the library cannot read."""


def _opened(data: bytes, name: str, max_values: int) -> Any:
    """Return the image of a file with all of its bytes, inflated no further than its header says that it is long."""
    library = check_nibabel(f"{name} is a NIfTI file, which")
    start = _inflated(data, name, _LENGTHS[2])
    kind = _format(library, start, name)
    header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
    magic = header["magic"].item()[:2]
    if magic not in (b"n+", b"ni"):
        raise InputError(f"{name} is no NIfTI file (its header has no mark of one): convert it or remove it")
    if magic == b"ni":
        raise InputError(f"{name} is the header of a pair of files (.hdr, .img): convert them to one .nii file")
    shape = tuple(int(side) for side in header.get_data_shape())
    width, height, *others = (*shape, 1, 1)
    check_size(name, math.prod(others), height, width, 1, max_values)
    length = int(header.get_data_offset()) + math.prod(shape) * header.get_data_dtype().itemsize
    if length > 8 * max_values + _MOST_BESIDE_VALUES:
        raise InputError(f"{name} says that it is {length} bytes long, more than is allowed: split it")
    content = _inflated(data, name, length)
    if len(content) < length:
        raise InputError(f"{name} is cut off after {len(content)} of {length} bytes: write it anew or remove it")
    if len(shape) > 4 and math.prod(shape[4:]) > 1:
        raise NoImageError(
            f"{name} holds no volume but an array of {len(shape)} axes (vectors, a matrix): leave it out"
        )
    return kind.from_bytes(content)


def _format(library: ModuleType, start: bytes, name: str) -> Any:
    for kind in (library.Nifti1Image, library.Nifti2Image):
        size = kind.header_class.sizeof_hdr
        if len(start) >= size and size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
            return kind
    raise InputError(f"{name} is no NIfTI file (its header is neither 348 nor 540 bytes long): convert it or remove it")


def _inflated(data: bytes, name: str, length: int) -> bytes:
    """Return the first ``length`` bytes of a file, or fewer where it has not so many; by gzip where it is so."""
    if not data.startswith(_GZIP):
        return data[:length]
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(length)
    except (EOFError, OSError, zlib.error):
        raise InputError(f"{name} is cut off or damaged (gzip): write it anew or remove it") from None


def _volume_shape(image: Any, name: str, time: bool) -> tuple[int, int, int, int]:
    """Return the sides of the three axes of space, and of time."""
    sides = (*image.shape, 1, 1, 1, 1)[:4]
    if sides[3] > 1 and not time:
        raise InputError(
            f"{name} holds {sides[3]} volumes one after another in time: pack its time as the frames of clips "
            "by --time, or split it into files of one volume"
        )
    if sides[3] == 1 and time:
        raise InputError(f"{name} holds one volume and no time: pack it without --time")
    return int(sides[0]), int(sides[1]), int(sides[2]), int(sides[3])


def _turn(image: Any, name: str, axis: Axis) -> NDArray[np.float64]:
    """Return for each axis of the file (3, 2): which of slices, rows, columns it becomes, and 1, or -1 if reversed."""
    orientations = check_nibabel(name).orientations
    lies = orientations.io_orientation(image.affine)
    if not np.isfinite(lies).all():
        raise InputError(f"{name} has an affine that is no map of space (its determinant is 0): write it anew")
    return np.asarray(orientations.ornt_transform(lies, orientations.axcodes2ornt(DIRECTIONS[axis])), np.float64)


def _inverse(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the turn (3, 2) that undoes another (3, 2)."""
    inverse = np.empty_like(turn)
    for index, (goes_to, direction) in enumerate(turn):
        inverse[int(goes_to)] = index, direction
    return inverse


def _turned(stored: Stored, turn: NDArray[np.float64]) -> Stored:
    return np.ascontiguousarray(check_nibabel("a NIfTI file").orientations.apply_orientation(stored, turn))


def _stored(image: Any, name: str) -> tuple[Stored, Scale]:
    """Return the numbers of a file (X, Y, Z[, T[, 3]]) and what they mean."""
    raw = np.asarray(image.dataobj.get_unscaled())
    slope, offset = Fraction(float(image.dataobj.slope)), Fraction(float(image.dataobj.inter))
    if raw.dtype.names is not None:
        return np.stack([raw[channel] for channel in "RGB"], axis=-1), IDENTITY
    if raw.dtype.kind not in "iuf" or raw.dtype.itemsize > 8:
        raise InputError(
            f"{name} holds numbers of the type {raw.dtype}: write it anew with integers, float32 or float64"
        )
    if raw.dtype.kind == "f":
        values = raw if slope == 1 and offset == 0 else raw.astype(np.float64) * float(slope) + float(offset)
        return whole_or_float(values.astype(values.dtype.newbyteorder("=")), name), IDENTITY
    if raw.size and int(raw.max()) >= 2**62:
        raise InputError(f"{name} holds whole numbers beyond 2^62: write it anew with smaller ones, or as float64")
    stored: NDArray[np.integer[Any]] = raw.astype(np.int32 if raw.dtype.itemsize < 4 else np.int64)
    return (-stored, Scale(-slope, offset)) if slope < 0 else (stored, Scale(slope, offset))


def _spacing(image: Any, turn: NDArray[np.float64]) -> Spacing:
    unit = _MM.get(image.header.get_xyzt_units()[0], 1.0)
    zooms = [float(zoom) * unit for zoom in (*image.header.get_zooms(), 0.0, 0.0)[:3]]
    spacing = [zooms[list(turn[:, 0]).index(axis)] for axis in range(3)]
    return spacing[0], spacing[1], spacing[2]


def _fps(image: Any) -> float | None:
    seconds = float(image.header.get_zooms()[3]) * _SECONDS.get(image.header.get_xyzt_units()[1], 0.0)
    return 1 / seconds if seconds > 0 and math.isfinite(seconds) else None


# -- placement -------------------------------------------------------------------------------------


def _placement(image: Any, axis: Axis, turn: NDArray[np.float64]) -> Placement:
    header = image.header
    fields = tuple((name, tuple(np.atleast_1d(header[name]).tolist())) for name in _KEPT_FIELDS)
    pixdim = tuple(float(zoom) for zoom in header["pixdim"][:4])
    return Placement(
        axis, pixdim, int(header["xyzt_units"]) & _SPACE_UNITS, fields, tuple((a, b) for a, b in turn.tolist())
    )


def _place(header: Any, placement: Placement) -> None:
    """Write into ``header`` the place that another has."""
    header["pixdim"][:4] = placement.pixdim
    header["xyzt_units"] = placement.units
    for name, numbers in placement.fields:
        header[name] = numbers if len(numbers) > 1 else numbers[0]


def _place_axial(header: Any, shape: tuple[int, ...], spacing: Spacing) -> None:
    """Write into ``header`` that columns run to the left, rows backwards and slices up, around the origin, in mm."""
    zooms = [zoom or 1.0 for zoom in reversed(spacing)]
    affine = np.diag([-zooms[0], -zooms[1], zooms[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    header.set_data_shape(shape)
    header.set_sform(affine, code=2)
    header.set_qform(affine, code=2)
    header.set_xyzt_units("mm")


def _narrowest(values: Stored) -> Stored:
    """Return ``values`` (X, Y, Z) in the smallest type of integers that holds them, or as float32."""
    if values.dtype.kind == "f":
        values = whole_or_float(values, "a volume to be written")
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    least, greatest = int(values.min()), int(values.max())
    for dtype in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(dtype).min <= least and greatest <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise InputError(f"a volume with values from {least} to {greatest} does not fit into 32 bits: write it as float32")


def _unscaled(header: Any) -> bytes:
    """Return a header that says a slope of 1, for which nibabel writes that there is none."""
    header["scl_slope"], header["scl_inter"] = 1, 0
    return bytes(header.binaryblock)
