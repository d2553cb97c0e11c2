"""The segments of a JPEG file: a copy of it without junk, and a check of whether the data of its scans end early.

libjpeg warns of junk and of damage alike, and tells the first warning alone. Junk is bytes that belong to no segment
(before a marker, or after the data of a scan) and numbers that decide nothing: the version of JFIF, an Adobe transform
that does not exist, progressive parameters in a sequential file, an unusual order of progressive scans, the numbers of
the parts of a profile. Damage is data of a scan that end early or hold codes that do not exist, a missing restart
marker, and a missing end.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_END, _SCAN, _TEM, _JFIF, _ADOBE, _COMMENT = 0xD9, 0xDA, 0x01, 0xE0, 0xEE, 0xFE
_RESTARTS, _APPLICATIONS = range(0xD0, 0xD8), range(0xE0, 0xF0)
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_KNOWN_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA)
_BITS, _HEIGHT, _COMPONENTS = 2, slice(3, 5), 7
"""Where the body of a frame tells them."""
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_FILLINGS = (bytes.fromhex("a53c96f01e") * 16, bytes.fromhex("c993264c") * 16)
"""Bits of every kind, the first one 1, and no 0xFF, which would begin a marker."""
_MOST_PLACES = 8
"""Of junk behind data of scans."""

_JUNK = re.compile(
    "extraneous bytes before marker|unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters"
    "|Inconsistent progression|bad ICC marker"
)

_JUNK_BYTES = re.compile(r"(\d+) extraneous bytes before marker")

_Level = TypeVar("_Level", bound=np.generic)
_Decoded = TypeVar("_Decoded")


class Segment(NamedTuple):
    """A marker, its ``body`` with the two bytes of its length, and the ``data`` of a scan that follow it."""

    marker: int
    body: bytes
    data: bytes | None


def is_junk(warning: str) -> bool:
    """Return whether a warning of libjpeg tells of junk; the others tell of damage."""
    return _JUNK.search(warning) is not None


def read_segments(data: bytes) -> list[Segment]:
    """Return all of a JPEG but its beginning and its end, without junk between them; ValueError where it ends early.

    Data of scans follow SOS, and the restart markers after it.
    """
    segments: list[Segment] = []
    match, in_scan = _next_marker(data, len(_SOI)), False
    while (marker := match.group(1)[0]) != _END:
        start, is_restart = match.end(), marker in _RESTARTS
        is_bare = is_restart or marker == _TEM
        stop = start if is_bare else start + int.from_bytes(data[start : start + 2], "big")
        match = _next_marker(data, stop)
        in_scan = marker == _SCAN or (in_scan and is_restart)
        if in_scan or not is_bare:
            segments.append(Segment(marker, data[start:stop], data[stop : match.start()] if in_scan else None))
    return segments


def _next_marker(data: bytes, position: int) -> re.Match[bytes]:
    match = _MARKER.search(data, position)
    if match is None:
        raise ValueError("its end is missing")
    return match


def without_junk(data: bytes) -> bytes:
    """Return a copy that decodes to the same pixels.

    Junk is left only behind data of scans, where a decoder alone knows it.

    It has no EXIF and no profile either. Raises ValueError where the file ends early.
    """
    segments = read_segments(data)
    frame = _frame(segments)
    return _joined(
        segment._replace(body=_corrected(segment, frame)) for segment in segments if not _is_metadata(segment.marker)
    )


def _frame(segments: list[Segment]) -> Segment | None:
    return next(
        (segment for segment in segments if segment.marker in _FRAMES and len(segment.body) > _COMPONENTS), None
    )


def why_not_decodable(data: bytes) -> str | None:
    """Return what of a JPEG that does not end early no decoder here knows."""
    try:
        frame = _frame(read_segments(data))
    except ValueError:
        return None
    if frame is None:
        return None
    bits, components = frame.body[_BITS], frame.body[_COMPONENTS]
    if bits != 8:
        return f"it has {bits} bits a sample"
    if components not in (1, 3, 4):
        return f"it has {components} samples a pixel"
    if not any(frame.body[_HEIGHT]):
        return "it has no height but behind its pixels (DNL)"
    return None if frame.marker in _KNOWN_FRAMES else f"its frame is of the rare kind {frame.marker:#x}"


def _is_metadata(marker: int) -> bool:
    """Return whether a segment says nothing about pixels; those of JFIF and Adobe tell the colour space."""
    return marker == _COMMENT or (marker in _APPLICATIONS and marker not in (_JFIF, _ADOBE))


def _corrected(segment: Segment, frame: Segment | None) -> bytes:
    """Return the body with numbers that libjpeg does not warn of, and which it takes the others for."""
    body = segment.body
    if segment.marker == _JFIF and body[2:7] == b"JFIF\0":
        return body[:7] + b"\1" + body[8:]
    if segment.marker == _ADOBE and body[2:7] == b"Adobe" and body[13:14] not in (b"", b"\0") and frame is not None:
        return body[:13] + (b"\2" if frame.body[_COMPONENTS] == 4 else b"\1") + body[14:]
    if segment.marker == _SCAN and frame is not None and frame.marker in _SEQUENTIAL:
        return body[:-3] + b"\x00\x3f\x00"
    return body


def _joined(segments: Iterable[Segment]) -> bytes:
    parts = (b"\xff%c%b%b" % (segment.marker, segment.body, segment.data or b"") for segment in segments)
    return b"".join([_SOI, *parts, _EOI])


def decode_without_junk(data: bytes, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    """Return what ``decode``, which raises ValueError at each warning of libjpeg, makes of a JPEG with junk.

    Junk behind data of a scan is cut off there, and the rest decoded again until there is nothing to warn of: damage
    behind it shows as it does elsewhere. Raises ValueError for damage, and for junk that cannot be cut off: an unusual
    order of scans, what lies in too many places, and what libjpeg counts too late (a few bytes before a restart
    marker, with those before a later one).
    """
    data = without_junk(data)
    for _ in range(_MOST_PLACES):
        try:
            return decode(data)
        except ValueError as error:
            match = _JUNK_BYTES.search(str(error))
            if match is None:
                raise
            cut = _cut(read_segments(data), int(match.group(1)), decode)
            if cut is None:
                raise
            data = cut
    return decode(data)


def _cut(segments: list[Segment], junk_bytes: int, decode: Callable[[bytes], object]) -> bytes | None:
    """Return the file without ``junk_bytes`` at the end of the first data that have junk.

    The first warning of all is about those.

    None where the data would end early then.
    """

    def warning_of(count: int) -> str:
        try:
            decode(_joined(segments[:count]))
        except ValueError as error:
            return str(error)
        return ""

    with_data = [number for number, segment in enumerate(segments) if segment.data is not None]
    first = with_data[
        bisect_left(
            with_data,
            True,
            hi=len(with_data) - 1,
            key=lambda number: _JUNK_BYTES.search(warning_of(number + 1)) is not None,
        )
    ]
    segments[first] = segments[first]._replace(data=(segments[first].data or b"")[:-junk_bytes])
    return None if "premature end" in warning_of(first + 1) else _joined(segments)


def decode_to_the_end(data: bytes, decode: Callable[[bytes], NDArray[_Level]]) -> NDArray[_Level]:
    """Return the pixels (H, W, C) or (H, W) that ``decode`` makes of a JPEG; ValueError where a scan ends early.

    A decoder that has all it needs passes over what is behind: with more data behind each scan it gives the same
    pixels, unless the scan ended early. It runs thrice, and codes that do not exist stay unnoticed; in arithmetic
    coding, which may leave out zeros at the end of a scan, the end of the file alone is looked for.
    """
    segments = read_segments(data)
    _check_restarts(segments)
    pixels = decode(data)
    frame = _frame(segments)
    if frame is not None and frame.marker in _ARITHMETIC:
        return pixels
    for filling in _FILLINGS:
        filled = _joined(
            segment if segment.data is None else segment._replace(data=segment.data + filling) for segment in segments
        )
        if not np.array_equal(pixels, decode(filled)):
            raise ValueError("premature end of a data segment")
    return pixels


def _check_restarts(segments: list[Segment]) -> None:
    """Raise ValueError unless restart markers are numbered 0 to 7 over and over in each scan."""
    expected = 0
    for segment in segments:
        if segment.marker in _RESTARTS and segment.marker - _RESTARTS.start != expected:
            raise ValueError(f"restart marker {segment.marker - _RESTARTS.start} instead of {expected}")
        expected = (expected + 1) % 8 if segment.marker in _RESTARTS else 0
