"""Folders of numbered images, each of which is one video."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cluster.data.decoding import decode_image, natural_form
from cluster.formats.clips import ClipCutter, SceneCuts
from cluster.formats.source_format import (
    Conversion,
    Files,
    Piece,
    PieceOptions,
    Source,
    SourceFormat,
    Tally,
    Values,
)
from freqgan.errors import InputError
from freqgan.sizes import width_by_height

TOP = "."
"""The name of a source whose frames lie in the folder that is packed itself."""

_LAST_NUMBER = re.compile(r"[0-9]+(?=[^0-9]*$)")


def frame_number(name: str) -> int | None:
    """Return the last number in the name of a file, without its extension; None where there is none."""
    found = _LAST_NUMBER.search(posixpath.splitext(posixpath.basename(name))[0])
    return int(found[0]) if found else None


def _sources(files: Files, names: Sequence[str], options: PieceOptions) -> list[Source]:
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folders[posixpath.dirname(name) or TOP].append(name)
    return [Source(folder, tuple(_in_order(folder, folders[folder], files)), files) for folder in sorted(folders)]


def _in_order(folder: str, names: Sequence[str], files: Files) -> list[str]:
    """Return the frames of a folder by their numbers.

    InputError where one has none, two have the same, or there is more than one sequence.
    """
    numbers: dict[int, str] = {}
    sequences: dict[str, str] = {}
    for name in sorted(names):
        number, stem = frame_number(name), posixpath.splitext(posixpath.basename(name))[0]
        if number is None:
            raise InputError(
                f"{name} in {files.url} has no number, and so no place among the frames of a video: number the frames "
                "of each folder, or pack images without --frames"
            )
        if number in numbers:
            raise InputError(
                f"{numbers[number]} and {name} in {files.url} are both frame {number}: rename or remove one"
            )
        numbers[number] = name
        sequences.setdefault(_LAST_NUMBER.sub("#", stem), name)
    if len(sequences) > 1:
        first, second = list(sequences.values())[:2]
        raise InputError(
            f"{folder} in {files.url} holds frames of {len(sequences)} sequences ({first} and {second} are of two): "
            "put each into a folder of its own"
        )
    return [numbers[number] for number in sorted(numbers)]


def _convert(sources: Sequence[Source], options: PieceOptions) -> Conversion:
    def pieces(source: Source, tally: Tally) -> Iterator[Piece]:
        cutter, cuts = ClipCutter(options, tally, source.title, options.fps), SceneCuts()
        step, before = _usual_step(source.files), None
        for name, frame in _frames(source):
            number = frame_number(name)
            gap = before is not None and number is not None and number - before != step
            cut = cuts.is_cut(frame)
            if gap or cut:
                tally.gaps, tally.cuts = tally.gaps + gap, tally.cuts + (cut and not gap)
                cutter.end_scene()
            before = number
            if (clip := cutter.add(frame)) is not None:
                yield clip
        cutter.end_scene()

    return Conversion(pieces)


def _usual_step(names: Sequence[str]) -> int:
    """Return the difference that numbers of neighbouring frames have most often; the least of those that tie."""
    numbers = [frame_number(name) or 0 for name in names]
    steps = Counter(after - before for before, after in pairwise(numbers))
    return min(steps, key=lambda step: (-steps[step], step), default=1)


def _frames(source: Source) -> Iterator[tuple[str, Values]]:
    """Yield the frames (H, W, C) with their names, in the form that holds the most of the first.

    InputError where one is of another form or size than the first.
    """
    first: tuple[int, ...] | None = None
    for name in source.files:
        title, data = f"{name} in {source.folder.url}", source.folder.read(name)
        form = natural_form(data, title)
        frame = decode_image(data, title, channels=form.channels, bit_depth=form.bit_depth)
        kind = (*frame.shape, form.bit_depth)
        if first is None:
            first = kind
        elif kind != first:
            raise InputError(
                f"{title} is {_form_text(kind)}, and {source.files[0]} {_form_text(first)}: make them equal"
            )
        yield name, frame


def _form_text(kind: tuple[int, ...]) -> str:
    height, width, channels, bits = kind
    return f"{width_by_height((height, width))} in {'grey' if channels == 1 else 'colour'} of {bits} bits"


FRAME_FOLDERS = SourceFormat("a folder of frames", (), _convert, _sources, needs_frames=True)
