"""DICOM and NIfTI in ``shards pack``: every slice a still image, a volume one strip, or clips of slices and frames.

All scans are read twice: first to choose the scale of their values, then to be packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from cluster.formats.clips import ClipCutter
from cluster.formats.dicom import check_pydicom, group_series, is_dicom, read_header, read_series
from cluster.formats.nifti import check_nibabel, read_nifti
from cluster.formats.scan import Axis, NoImageError, Scale, Scan
from cluster.formats.shared_scale import Span, own_scale, shared_scale, span_of, to_floats, to_integers
from cluster.formats.source_format import Conversion, Files, Piece, PieceOptions, Source, SourceFormat, Tally, Values
from freqgan.errors import InputError

_Read = Callable[[Source, PieceOptions], list[Scan]]


# -- which files belong together -------------------------------------------------------------------


def _dicom_sources(files: Files, names: Sequence[str], options: PieceOptions) -> list[Source]:
    """Return every file as a source, or every series where slices belong together; labels are by its first file.

    A file that cannot be read is a source as well, so that packing it says why.
    """
    check_pydicom(f"{names[0]} in {files.url}")
    headers, sources = [], []
    for name in names:
        try:
            headers.append(read_header(files.read(name), name))
        except NoImageError as error:
            sources.append(Source(name, (name,), files, refusal=str(error)))
        except InputError:
            sources.append(Source(name, (name,), files, is_alone=True))
    are_slices = options.frames is None and not options.scans.are_volumes
    groups = [[header] for header in headers] if are_slices else group_series(headers)
    for group in groups:
        members = tuple(header.name for header in group)
        sources.append(Source(members[0], members, files, is_alone=True))
    return sources


def _nifti_sources(files: Files, names: Sequence[str], options: PieceOptions) -> list[Source]:
    check_nibabel(f"{names[0]} in {files.url} is a NIfTI file, which")
    return [Source(name, (name,), files, is_alone=True) for name in names]


def _read_dicom(source: Source, options: PieceOptions) -> list[Scan]:
    names = {f"{name} in {source.folder.url}": name for name in source.files}

    def read(title: str) -> bytes:
        return source.folder.read(names[title])

    title = source.title if len(names) == 1 else f"the series of {source.title}"
    return [read_series(list(names), read, title, allow_burned_in=options.scans.allow_burned_in)]


def _read_nifti(source: Source, options: PieceOptions) -> list[Scan]:
    axis = cast(Axis, options.scans.axis)
    return read_nifti(source.folder.read(source.name), source.title, axis=axis, time=options.scans.has_time)


# -- what their values are stored as ---------------------------------------------------------------


@dataclass(frozen=True)
class _Survey:
    """What is known of all scans once each has been read.

    Attributes:
        spans: of the grey ones; empty for float32, which needs none.
        units: of the grey ones, by their names.
        colours: the names of those in colour.
        damaged: what is wrong with sources that cannot be read.

    """

    spans: list[Span]
    units: dict[str, str]
    colours: list[str]
    damaged: dict[str, InputError]


def _survey(read: _Read, sources: Sequence[Source], options: PieceOptions) -> _Survey:
    survey = _Survey([], {}, [], {})
    for source in sources:
        try:
            for scan in read(source, options):
                if scan.is_colour:
                    survey.colours.append(scan.name)
                    continue
                survey.units[scan.name] = scan.unit
                if options.scans.values != "float32":
                    survey.spans.append(span_of(scan))
        except InputError as error:
            survey.damaged[source.name] = error
    return survey


def _scale_and_values(survey: _Survey, options: PieceOptions) -> tuple[Scale | None, dict[str, Any]]:
    """Return the scale of all scans, where they share one, and what index.json says of their values.

    Raises:
        InputError: some are in colour and others are not, units differ, or no scale holds all.

    """
    if not survey.units:
        return None, {}
    grey, unit = next(iter(survey.units.items()))
    if survey.colours:
        raise InputError(f"{grey} is grey and {survey.colours[0]} in colour: pack each kind by itself")
    for name, other in survey.units.items():
        if other != unit:
            said = [word or "no known unit" for word in (unit, other)]
            raise InputError(f"{grey} is in {said[0]} and {name} in {said[1]}: pack each kind by itself")
    if options.scans.values == "shared":
        scale = shared_scale(survey.spans)
        return scale, {**scale.members(), "unit": unit}
    return None, {"unit": unit} if options.scans.values == "own" else {"offset": 0.0, "slope": 1.0, "unit": unit}


def _stored(scan: Scan, scale: Scale | None, options: PieceOptions) -> tuple[Values, dict[str, float]]:
    """Return the pixels of a scan (T, H, W, C), and what its .json says of their scale."""
    if scan.is_colour:
        return cast(Values, scan.stored), {}
    if options.scans.values == "float32":
        return to_floats(scan)[..., None], {}
    scale = scale or own_scale(span_of(scan))
    return to_integers(scan, scale)[..., None], scale.members()


# -- what becomes of them --------------------------------------------------------------------------


def _converted(read: _Read) -> Callable[[Sequence[Source], PieceOptions], Conversion]:
    """Return how sources that ``read`` reads become pieces."""

    def convert(sources: Sequence[Source], options: PieceOptions) -> Conversion:
        survey = _survey(read, sources, options)
        scale, values = (None, {}) if survey.damaged else _scale_and_values(survey, options)

        def pieces(source: Source, tally: Tally) -> Iterator[Piece]:
            if source.name in survey.damaged:
                raise survey.damaged[source.name]
            if survey.damaged:  # nothing is packed, and the damaged ones are named
                return
            for scan in read(source, options):
                pixels, fields = _stored(scan, scale, options)
                yield from _pieces(scan, pixels, fields, options, tally)

        return Conversion(pieces, values)

    return convert


def _pieces(
    scan: Scan, pixels: Values, fields: Mapping[str, Any], options: PieceOptions, tally: Tally
) -> Iterator[Piece]:
    """Yield the samples of ``pixels`` (T, H, W, C): the volume, clips of it, or its slices."""
    said = {**scan.description(), **fields}
    del said["frames"]  # a strip says it itself
    if options.scans.are_volumes:
        yield Piece(pixels, said)
    elif options.frames is not None:
        yield from _clips(scan, pixels, said, options, tally)
    else:
        said.pop("fps", None)
        yield from (Piece(frame, said) for frame in pixels)


def _clips(scan: Scan, pixels: Values, said: Mapping[str, Any], options: PieceOptions, tally: Tally) -> Iterator[Piece]:
    cutter = ClipCutter(options, tally, scan.name, options.fps or scan.fps)
    for frame in pixels:
        if (clip := cutter.add(frame)) is not None:
            yield Piece(clip.pixels, {**said, **_spacing(scan, clip.pixels, options), **clip.fields})
    cutter.end_scene()


def _spacing(scan: Scan, clip: Values, options: PieceOptions) -> dict[str, Any]:
    """Return the mm between what is left of the slices, rows and columns of a scan in a clip (T, H, W, C) of it."""
    if scan.spacing is None:
        return {}
    sides = np.array(scan.stored.shape[1:3]) / np.array(clip.shape[1:3])
    factors = (options.stride if scan.fps is None else 1, *sides.tolist())
    return {"spacing": [mm * factor for mm, factor in zip(scan.spacing, factors, strict=True)]}


DICOM_FILES = SourceFormat(
    "a DICOM file", ("dcm", "dicom", "ima"), _converted(_read_dicom), _dicom_sources, recognises=is_dicom
)
NIFTI_FILES = SourceFormat("a NIfTI file", ("nii", "nii.gz"), _converted(_read_nifti), _nifti_sources)
