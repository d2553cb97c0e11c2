"""Files that hold arrays, .npy, .npz and TIFF: still images of any number of channels, or the frames of clips."""

from __future__ import annotations

import io
import logging
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.formats.arrays import read_npy_header, stored_values
from cluster.formats.clips import array_clips
from cluster.formats.source_format import (
    MOST_CHANNELS,
    Conversion,
    Piece,
    PieceOptions,
    Source,
    SourceFormat,
    Tally,
    Values,
)
from freqgan.errors import InputError, nearest

MOST_BYTES = 4 * 2**30
"""Of an array that is read as a whole."""

_WHITE_IS_ZERO, _PALETTE = 0, 3
"""Photometric interpretations of TIFF 6.0, section 8."""
_FEW_CHANNELS = 4
"""Clips of frames this narrow are taken for still images of this many channels."""


def read_npy(file: IO[bytes], name: str) -> NDArray[Any]:
    """Return the array (...) of a .npy file; InputError where it is none, holds objects, or is too large."""
    try:
        return _read_member(file, name)
    except InputError:
        raise
    except Exception as error:  # a header is a Python literal: what is wrong with one may be anything
        raise InputError(f"{name} is no .npy file ({error}): write it by numpy.save") from error


def _read_member(file: IO[bytes], name: str) -> NDArray[Any]:
    """Return an array; InputError for objects and for one too large, any error for what is no .npy file."""
    shape, in_columns, dtype = read_npy_header(file)
    if dtype.hasobject or dtype.kind not in "buif":
        raise InputError(f"{name} holds {dtype}, no numbers: write whole or floating-point numbers")
    count = math.prod(shape)
    if count * dtype.itemsize > MOST_BYTES:
        raise InputError(f"{name} is an array of {shape}, more than {MOST_BYTES} bytes: write it as several files")
    data = file.read(count * dtype.itemsize + 1)
    if len(data) != count * dtype.itemsize:
        how = "cut off" if len(data) < count * dtype.itemsize else "longer than its header says"
        raise InputError(f"{name} is {how}: {shape} of {dtype} are {count * dtype.itemsize} bytes; write it again")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")


def read_npz(file: IO[bytes], name: str, array: str | None) -> NDArray[Any]:
    """Return the one array (...) of an .npz, or the one called ``array``.

    Raises:
        InputError: it is no .npz, there are several and none was named, or none is called so.

    """
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")]
            entry = _chosen_array(arrays, name, array)
            with archive.open(f"{entry}.npy") as member:
                return _read_member(member, f"{entry} of {name}")
    except InputError:
        raise
    except Exception as error:  # of the zip, of its compression, or of a header, which may be anything
        raise InputError(f"{name} is no .npz file, or is damaged ({error}): write it by numpy.savez") from error


def _chosen_array(arrays: Sequence[str], name: str, array: str | None) -> str:
    if array is not None and array not in arrays:
        raise InputError(
            f"--array {array}: {name} has no such array{nearest(array, list(arrays))}; it has {', '.join(arrays[:10])}"
        )
    if array is None and len(arrays) != 1:
        raise InputError(f"{name} holds {len(arrays)} arrays ({', '.join(arrays[:10])}): name one by --array")
    return array if array is not None else arrays[0]


def read_tiff(file: IO[bytes], name: str) -> NDArray[Any]:
    """Return the pages of a TIFF, (T, H, W, C), white as the largest value; reduced copies of a page are left out.

    Samples that are stored in planes come out as channels, the last axis. Pages must be of one shape and type.

    Raises:
        InputError: tifffile is not installed, it is no TIFF or is cut off, or its pages differ.

    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f'{name}: TIFF is read by tifffile, which is not installed: pip install "freqgan[tiff]"'
        ) from error
    try:
        with _quiet("tifffile"), tifffile.TiffFile(file) as tiff:
            pages: list[Any] = [page for page in tiff.pages if not getattr(page, "is_reduced", False)]
            shapes = {(page.shape, str(page.dtype)) for page in pages}
            if len(shapes) != 1:
                raise InputError(f"{name} has pages of {len(shapes)} shapes or types: write one image in each file")
            if math.prod(pages[0].shape) * pages[0].dtype.itemsize * len(pages) > MOST_BYTES:
                raise InputError(f"{name} holds more than {MOST_BYTES} bytes: write it as several files")
            _check_last_page(tiff, name)
            read = [_tiff_page(page, name) for page in pages]
    except InputError:
        raise
    except Exception as error:  # what tifffile raises for damage is of many kinds
        raise InputError(f"{name} is no TIFF that can be read ({error}): convert or replace it") from error
    return np.stack(read)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Hold back what a library logs about damage, of which an error tells."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_last_page(tiff: Any, name: str) -> None:
    """Raise InputError unless the page behind the last that was read is said to be none (TIFF 6.0, section 2)."""
    place = tiff.pages.next_page_offset
    if place is not None:
        tiff.filehandle.seek(place)
        if any(tiff.filehandle.read(tiff.tiff.offsetsize)):
            raise InputError(f"{name} is cut off or damaged behind page {len(tiff.pages)}: replace it")


def _tiff_page(page: Any, name: str) -> NDArray[Any]:
    """Return (H, W, C) of a page, whose axes are "YX", "YXS" or "SYX"."""
    if page.axes not in ("YX", "YXS", "SYX"):
        raise InputError(f"{name} has pages with the axes {page.axes}: images have rows, columns and samples")
    if page.photometric == _PALETTE:
        raise InputError(f"{name} is a TIFF with a palette: convert it to RGB")
    if len(page.dataoffsets) < math.prod(page.chunked):
        raise InputError(f"{name} is damaged: {len(page.dataoffsets)} of {math.prod(page.chunked)} parts are there")
    values: NDArray[Any] = page.asarray()
    if page.photometric == _WHITE_IS_ZERO:
        values = ~values if values.dtype.kind in "bu" else -values
    return np.moveaxis(values, 0, -1) if page.axes == "SYX" else values.reshape(*values.shape[:2], -1)


# -- pieces ----------------------------------------------------------------------------------------


def _read(source: Source, options: PieceOptions) -> NDArray[Any]:
    file = io.BytesIO(source.folder.read(source.name))
    extension = source.name.rpartition(".")[2].lower()
    if extension == "npy":
        return read_npy(file, source.title)
    if extension == "npz":
        return read_npz(file, source.title, options.array)
    return read_tiff(file, source.title)


def still_of(values: NDArray[Any], name: str) -> Values:
    """Return an array (H, W) or (H, W, C) as an image (H, W, C); InputError for any other shape."""
    if values.ndim == 4:
        raise InputError(f"{name} has the shape {values.shape}, frames of images: cut it into clips by --frames, as 16")
    if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] > MOST_CHANNELS):
        raise InputError(
            f"{name} has the shape {values.shape}: images are (height, width) or (height, width, channels) with 1 to "
            f"{MOST_CHANNELS} channels; clips, by --frames, (frames, height, width[, channels])"
        )
    return stored_values(values, name).reshape(*values.shape[:2], -1)


def frames_of(values: NDArray[Any], name: str) -> Values:
    """Return an array (T, H, W) or (T, H, W, C) as frames (T, H, W, C).

    Raises:
        InputError: for any other shape; for one of 3 axes whose last has up to 4, which is a still image.

    """
    if values.ndim == 3 and values.shape[2] <= _FEW_CHANNELS:
        raise InputError(
            f"{name} has the shape {values.shape}, a still image of {values.shape[2]} channels, and clips were asked "
            "for: write (frames, height, width, channels), or pack it without --frames"
        )
    if values.ndim not in (3, 4) or 0 in values.shape or (values.ndim == 4 and values.shape[3] > MOST_CHANNELS):
        raise InputError(
            f"{name} has the shape {values.shape}: clips are (frames, height, width) or (frames, height, width, "
            f"channels) with 1 to {MOST_CHANNELS} channels"
        )
    return stored_values(values, name).reshape(*values.shape[:3], -1)


def _is_one_page(source: Source, values: NDArray[Any]) -> bool:
    return TIFFS.has_extension(source.name) and len(values) == 1


def _convert(sources: Sequence[Source], options: PieceOptions) -> Conversion:
    def pieces(source: Source, tally: Tally) -> Iterator[Piece]:
        values = _read(source, options)
        if options.frames is None:
            yield Piece(still_of(values[0] if _is_one_page(source, values) else values, source.title))
        else:
            yield from array_clips(frames_of(values, source.title), options, tally, source.title)

    return Conversion(pieces)


ARRAYS = SourceFormat("an array", ("npy", "npz"), _convert)
TIFFS = SourceFormat("a TIFF", ("tif", "tiff"), _convert)
