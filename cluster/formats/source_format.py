"""What a format of files has to say when it is packed: which files are one source, and which pieces a source gives.

A piece is a still image, or a strip: a clip, or a volume of slices. ``cluster/data/source_formats.py`` lists formats.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.formats.scan import DEFAULT_SCANS, ScanOptions
from freqgan.errors import InputError

Values = NDArray[np.uint8 | np.uint16 | np.float32]
MOST_CHANNELS = 64
HEAD_BYTES = 256
"""Of a file that are shown to :attr:`SourceFormat.recognises`."""


class Files(Protocol):
    """The files of a folder or a zip, on a disk or in a bucket."""

    @property
    def url(self) -> str:
        """The path or URL of the folder or zip."""

    @property
    def read(self) -> Callable[[str], bytes]:
        """Return all bytes of a file by its name."""

    @property
    def open(self) -> Callable[[str], AbstractContextManager[BinaryIO]]:
        """Open a file by its name: a binary file that can seek."""


@dataclass(frozen=True)
class PieceOptions:
    """How sources are cut into pieces; each field is an option of ``freqgan shards pack``.

    Attributes:
        frames: of a clip; None for still images.
        stride: of so many frames each first is taken.
        fps: frames a second that are taken of videos and animations; of others what is known of them.
        size: pixels of the shorter side that larger frames are reduced to.
        quality: of the JPEGs that strips of 8 bits become, 1 to 100; None for PNG, which loses nothing.
        array: name of the array in an .npz of several.
        scans: how scans of DICOM and NIfTI are read.

    """

    frames: int | None = None
    stride: int = 1
    fps: float | None = None
    size: int | None = None
    quality: int | None = None
    array: str | None = None
    scans: ScanOptions = DEFAULT_SCANS

    def __post_init__(self) -> None:
        if self.frames is None:
            given = {"stride": self.stride != 1, "fps": self.fps, "size": self.size, "quality": self.quality}
            for option in (option for option, there in given.items() if there):
                raise InputError(f"--{option} is for clips, and images are packed as they are: add --frames, as 16")
        for option, value, least, most in (
            ("frames", self.frames, 2, 4096), ("stride", self.stride, 1, 10**6), ("size", self.size, 1, 2**14),
            ("quality", self.quality, 1, 100),
        ):  # fmt: skip
            if value is not None and not least <= value <= most:
                raise InputError(f"--{option} {value}: give a number from {least} to {most}")
        if self.frames is not None and self.scans.are_volumes:
            raise InputError("--frames cuts volumes into clips, and --volumes leaves them whole: give one of them")
        if self.fps is not None and not (math.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise InputError(f"--fps {self.fps}: give a number above 0, up to 1000")


STILLS = PieceOptions()


@dataclass(frozen=True)
class Source:
    """One thing that is packed: a file, or files that belong together (frames of a folder, slices of a series).

    Attributes:
        name: what labels, tables and errors call it: the path of the file or of the folder, relative.
        files: the names of its files, in the order in which they are read.
        folder: where they lie.
        refusal: why it is not packed, though nothing is wrong with it: it holds no image. "" if it is packed.
        is_alone: whether files of the same name but for the extension do not lie beside it.

    """

    name: str
    files: tuple[str, ...]
    folder: Files
    refusal: str = ""
    is_alone: bool = False

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.name} in {self.folder.url}"

    @property
    def stem(self) -> str:
        """The name without the extension, if it is a file's: what lies beside it has this name as well."""
        is_file = self.files == (self.name,) and not self.is_alone
        return posixpath.splitext(self.name)[0] if is_file else self.name


@dataclass(frozen=True, eq=False)
class Piece:
    """One sample that is to be packed.

    Attributes:
        pixels: uint8, uint16 or float32: of a still image (H, W, C), of a strip (T, H, W, C).
        fields: for the .json of the sample; ``frames`` is added to those of a strip.

    """

    pixels: Values
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int | None:
        """The number of frames of a strip; None for a still image."""
        return self.pixels.shape[0] if self.pixels.ndim == 4 else None


@dataclass
class Tally:
    """What became of frames, added up over all sources.

    Attributes:
        clips: that were packed.
        cuts: places where one scene ends and the next begins.
        gaps: places where frames are missing, by their numbers.
        left_over: frames of scenes, or ends of them, that are too short for a clip.

    """

    clips: int = 0
    cuts: int = 0
    gaps: int = 0
    left_over: int = 0


@dataclass(frozen=True)
class Conversion:
    """How the sources of a data set become pieces.

    Attributes:
        pieces: yields those of one source, in their order, one after the other: only one source is held at a time.
            InputError for one that cannot be used; the others are still asked for theirs, and all are named.
        values: what all samples share, for ``values`` in index.json: offset, slope, unit.

    """

    pieces: Callable[[Source, Tally], Iterator[Piece]]
    values: Mapping[str, Any] = field(default_factory=dict)


def one_each(files: Files, names: Sequence[str], options: PieceOptions) -> list[Source]:
    """Return every file as a source of its own."""
    return [Source(name, (name,), files) for name in names]


def never_recognised(head: bytes) -> bool:
    """Return False: a format that is told by the extension alone."""
    return False


@dataclass(frozen=True)
class SourceFormat:
    """Files of one format.

    Attributes:
        name: for people, with an article where it takes one: "a video".
        extensions: in lower case without the first dot ("nii.gz").
        convert: returns how the sources become pieces. It is given all of them, so that it may look at all first.
        sources: returns the files as sources.
        recognises: returns whether a file without a known extension is of the format, by its first HEAD_BYTES.
        needs_frames: whether there are pieces only where ``frames`` is given.

    """

    name: str
    extensions: tuple[str, ...]
    convert: Callable[[Sequence[Source], PieceOptions], Conversion]
    sources: Callable[[Files, Sequence[str], PieceOptions], list[Source]] = one_each
    recognises: Callable[[bytes], bool] = never_recognised
    needs_frames: bool = False

    def has_extension(self, name: str) -> bool:
        """Return whether the name of a file ends as those of this format do."""
        return name.lower().endswith(tuple(f".{extension}" for extension in self.extensions))
