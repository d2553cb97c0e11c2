"""The formats that ``shards pack`` reads besides JPEG, PNG and WebP, and which files of a folder are of which.

A format is added by a line in FORMATS; :class:`cluster.formats.source_format.SourceFormat` says what it has to give.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.data.frame_folders import FRAME_FOLDERS, TOP
from cluster.data.image_folders import (
    OTHER_FORMATS_REFUSED,
    ImageFiles,
    Listing,
    is_image,
    is_other_format,
    listing_of,
    no_images,
    visible_names,
)
from cluster.data.settings import MEMBER_EXTENSIONS
from cluster.formats.animations import ANIMATIONS, is_animated
from cluster.formats.array_files import ARRAYS, TIFFS
from cluster.formats.arrays import npy_header
from cluster.formats.scan_files import DICOM_FILES, NIFTI_FILES
from cluster.formats.source_format import (
    HEAD_BYTES,
    STILLS,
    Conversion,
    PieceOptions,
    Source,
    SourceFormat,
    never_recognised,
)
from cluster.formats.video import VIDEOS
from freqgan.errors import InputError

FORMATS: tuple[SourceFormat, ...] = (ARRAYS, TIFFS, ANIMATIONS, VIDEOS, DICOM_FILES, NIFTI_FILES, FRAME_FOLDERS)
"""Files of the first whose extension they have are its; files of none are shown to those that recognise theirs."""

_NO_FORMAT = (*MEMBER_EXTENSIONS, "csv", "tsv", "jsonl", "ndjson", "parquet", "md", "html", "xml", "log")
"""Extensions of files that are not opened to see what they are."""
_MAY_BE_ANIMATED = (".png", ".webp")
_NPY_HEADER_BYTES = 2**16 + 12


@dataclass(frozen=True)
class Sources:
    """What is packed by way of a format.

    Attributes:
        by_name: the format and the source, by its name.
        waiting: names of files that would be packed if clips were asked for, with ``--frames``.
        refused: why sources are not packed that hold no image, by their names.

    """

    by_name: Mapping[str, tuple[SourceFormat, Source]] = field(default_factory=dict)
    waiting: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> set[str]:
        """Return the names of all files that belong to a source."""
        return {name for _, source in self.by_name.values() for name in source.files}

    def stem(self, name: str) -> str:
        """Return what the files beside a source, or an image, are called but for their extension."""
        return self.by_name[name][1].stem if name in self.by_name else posixpath.splitext(name)[0]

    def conversions(
        self, names: Collection[str], options: PieceOptions
    ) -> tuple[dict[str, Conversion], dict[str, Any]]:
        """Return how each of ``names`` that is a source becomes pieces, and what all samples share.

        Raises:
            InputError: a format cannot use its sources, or samples beside them do not share what theirs do.

        """
        by_source: dict[str, Conversion] = {}
        values: dict[str, Any] = {}
        for known in FORMATS:
            of_format = [source for name, (kind, source) in self.by_name.items() if kind is known and name in names]
            if not of_format:
                continue
            conversion = known.convert(of_format, options)
            by_source |= {source.name: conversion for source in of_format}
            if conversion.values:
                if len(of_format) < len(names):
                    raise InputError(
                        f"{of_format[0].title} is {known.name}, and others are not: what its values mean is stored for "
                        "all samples together, so pack it and the others into shards of their own"
                    )
                values = dict(conversion.values)
        return by_source, values


def list_sources(
    files: ImageFiles, options: PieceOptions = STILLS, *, with_classes: bool = True
) -> tuple[Listing, Sources]:
    """Return what is packed of ``files``: images as they are, and sources; without classes all is one class.

    With ``options.frames`` no image is packed as it is: those of a folder are the frames of a video.

    Raises:
        InputError: there is nothing to pack, there are formats that cannot be read, images beside class folders, or
            files that belong together and do not go together.

    """
    visible = visible_names(files)
    sources = _find_sources(files, visible, options)
    used = sources.files()
    _check_refused(files, [name for name in visible if name not in used and is_other_format(name)], sources)
    images = [name for name in visible if is_image(name)] if options.frames is None else []
    names = sorted([*images, *sources.by_name])
    if not names:
        raise no_images(files, _waiting_text(sources))
    if TOP in names and len(names) > 1:
        first = next(name for name in names if name != TOP)
        raise InputError(f"{files.url} holds frames beside {first}: put the frames of each video into a folder")
    return listing_of(files, names, used | set(images), with_classes=with_classes and names != [TOP]), sources


def _check_refused(files: ImageFiles, refused: Sequence[str], sources: Sources) -> None:
    if refused:
        hint = _waiting_text(sources) if refused[0] in sources.waiting else ""
        raise InputError(OTHER_FORMATS_REFUSED.format(url=files.url, count=len(refused), first=refused[0]) + hint)


def _waiting_text(sources: Sources) -> str:
    if not sources.waiting:
        return ""
    return f"; clips of {sources.waiting[0]} are packed where --frames says of how many frames, as 16"


def _find_sources(files: ImageFiles, visible: Sequence[str], options: PieceOptions) -> Sources:
    by_format: dict[int, list[str]] = defaultdict(list)
    waiting, owners = [], _owners(visible, options)
    for name in sorted(visible):
        kind = _format_of(files, name, options, owners)
        if kind is None:
            continue
        if kind.needs_frames and options.frames is None:
            waiting.append(name)
        else:
            by_format[FORMATS.index(kind)].append(name)
    by_name: dict[str, tuple[SourceFormat, Source]] = {}
    refused: dict[str, str] = {}
    for number in sorted(by_format):
        for source in FORMATS[number].sources(files, by_format[number], options):
            if source.refusal:
                refused[source.name] = source.refusal
                continue
            if source.name in by_name:
                raise InputError(
                    f"{source.title} is {FORMATS[number].name}, and {by_name[source.name][0].name} as well: put the "
                    "files of each into a folder of their own"
                )
            by_name[source.name] = (FORMATS[number], source)
    return Sources(by_name, waiting, refused)


def _owners(visible: Sequence[str], options: PieceOptions) -> set[str]:
    """Return the names, without extension, of what a vector or array may lie beside."""
    others = [kind for kind in FORMATS if kind is not ARRAYS]
    owners = {
        posixpath.splitext(name)[0]
        for name in visible
        if is_image(name) or any(kind.has_extension(name) for kind in others)
    }
    if options.frames is None:
        return owners
    return owners | {posixpath.dirname(name) for name in visible if is_image(name)}


def _format_of(files: ImageFiles, name: str, options: PieceOptions, owners: set[str]) -> SourceFormat | None:
    """Return the format of a file; None for an image that is packed as it is, and for what is no source at all."""
    if is_image(name):
        return _format_of_image(files, name) if options.frames is not None else None
    kind = next((kind for kind in FORMATS if kind.has_extension(name)), None)
    if kind is None:
        return _recognised(files, name)
    if kind is ARRAYS and (posixpath.splitext(name)[0] in owners or _is_vector(files, name)):
        return None
    return kind


def _format_of_image(files: ImageFiles, name: str) -> SourceFormat:
    """Return the format of an image of which clips are to be made."""
    if not name.lower().endswith(_MAY_BE_ANIMATED):
        return FRAME_FOLDERS
    with files.open(name) as file:
        return ANIMATIONS if is_animated(file) else FRAME_FOLDERS


def _recognised(files: ImageFiles, name: str) -> SourceFormat | None:
    asked = [kind for kind in FORMATS if kind.recognises is not never_recognised]
    if not asked or name.lower().endswith(tuple(f".{extension}" for extension in _NO_FORMAT)):
        return None
    with files.open(name) as file:
        head = file.read(HEAD_BYTES)
    return next((kind for kind in asked if kind.recognises(head)), None)


def _is_vector(files: ImageFiles, name: str) -> bool:
    """Return whether a file that lies beside no image is a .npy of one axis at most: no image, and passed over."""
    if not name.lower().endswith(".npy"):
        return False
    with files.open(name) as file:
        head = file.read(_NPY_HEADER_BYTES)
    try:
        return len(npy_header(head).shape) < 2
    except Exception:  # what is no .npy file is named when it is packed
        return False
