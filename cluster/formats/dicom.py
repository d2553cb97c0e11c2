"""DICOM files as scans: modality values with an exact scale, and nothing that says whose they are.

What is read is the image (PS3.3, C.7.6.3), its modality transformation (C.11.1), where it lies (C.7.6.2), and the few
tags of :mod:`cluster.formats.dicom_tags`. The messages of pydicom quote the values of tags, names of patients among
them: here they are silenced, and never part of an error, which names a file by its path alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.formats.dicom_pixels import Frame, decoded, frame_of, joined
from cluster.formats.dicom_tags import facts_of, fps_of, frame_count, slice_of, unit_of
from cluster.formats.scan import INSTALL, MAX_VALUES, NoImageError, Scan, Spacing, check_size, refusing
from cluster.formats.slices import Slice, order
from freqgan.errors import InputError

if TYPE_CHECKING:
    from pydicom import FileDataset
    from pydicom.dataset import Dataset

_PREAMBLE = 128
_MARK = b"DICM"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MAX_INFLATED = 4 * MAX_VALUES
_GROUP_LENGTH = b"\x02\x00\x00\x00"


@dataclass(frozen=True)
class DicomHeader:
    """What tells which series a file is of: ``series`` is a hash that stands for it."""

    name: str
    series: str
    frames: int


@dataclass(frozen=True)
class _Image:
    frames: list[Frame]
    slices: list[Slice]
    unit: str
    fps: float | None
    facts: dict[str, float | str]


def check_pydicom(name: str) -> None:
    """Raise InputError where pydicom, which the file ``name`` needs, is not installed; silence it where it is."""
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise InputError(f"{name} is a DICOM file, which needs pydicom: {INSTALL}") from None
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # loggers below it have no level of their own


def is_dicom(data: bytes) -> bool:
    """Return whether ``data`` begins as a file of DICOM does (PS3.10, 7.1): "DICM" after 128 bytes."""
    return data[_PREAMBLE : _PREAMBLE + len(_MARK)] == _MARK


def read_dicom(data: bytes, name: str, *, allow_burned_in: bool = False, max_values: int = MAX_VALUES) -> Scan:
    """Return the image of one file, its frames in the order of their positions where it says them.

    Values of MONOCHROME1 are turned over, so that more is brighter; padding becomes the least of the other values.
    ``allow_burned_in`` takes images that say that text is burnt into them.

    Raises:
        NoImageError: the file is in order and holds something else.
        InputError: it is no DICOM file, damaged, too large, or compressed in a way that nothing installed decodes.

    """
    image = _image(data, name, allow_burned_in, max_values)
    indices, step = _frame_order(image)
    return _scan(name, [image], [(image.frames[index], image.slices[index]) for index in indices], step)


def read_header(data: bytes, name: str) -> DicomHeader:
    """Return which series a file is of, without decoding its pixels; errors as of :func:`read_dicom`."""
    dataset = _dataset(data, name)
    with refusing(name, _WRONG):
        frames = frame_count(dataset)
        _check_geometry(dataset, name, frames, MAX_VALUES)
        series = str(dataset.get("SeriesInstanceUID") or dataset.get("SOPInstanceUID") or name)
        digest = hashlib.sha256(series.encode("utf-8", "replace")).hexdigest()
        return DicomHeader(name, digest, frames)


def group_series(headers: Sequence[DicomHeader]) -> list[list[DicomHeader]]:
    """Return the series of ``headers``, sorted by names; a file of many frames is a series by itself."""
    groups: dict[str, list[DicomHeader]] = {}
    for header in sorted(headers, key=lambda header: header.name):
        groups.setdefault(header.series if header.frames == 1 else f"file {header.name}", []).append(header)
    return list(groups.values())


def read_series(
    names: Sequence[str],
    read: Callable[[str], bytes],
    name: str,
    *,
    allow_burned_in: bool = False,
    max_values: int = MAX_VALUES,
) -> Scan:
    """Return the volume of the files of one series, in the order of their slices; ``read`` returns a file by its name.

    Options and errors are those of :func:`read_dicom`; it is an error, too, if slices are missing, doubled or unequal.
    """
    if len(names) == 1:
        return read_dicom(read(names[0]), names[0], allow_burned_in=allow_burned_in, max_values=max_values)
    images = []
    for file in names:
        images.append(_image(read(file), file, allow_burned_in, max_values))
        if len(images) == 1:
            first = images[0].slices[0]
            check_size(name, len(names), first.height, first.width, 1, max_values)
    indices, step = order([image.slices[0] for image in images])
    ordered = [images[index] for index in indices]
    return _scan(name, ordered, [(image.frames[0], image.slices[0]) for image in ordered], step)


# -- from a file to its frames ---------------------------------------------------------------------


_WRONG = "is damaged, or against the standard of DICOM: export it anew or remove it"
"""What is said of a file that the library cannot read."""


def _dataset(data: bytes, name: str) -> FileDataset:
    """Return the tags of a file that holds an image."""
    check_pydicom(name)
    import pydicom

    if not is_dicom(data):
        raise InputError(f'{name} is no DICOM file (no "DICM" after 128 bytes): remove it, or convert it to one')
    with refusing(name, _WRONG):
        _check_deflated(data, name)
        dataset = pydicom.dcmread(io.BytesIO(data))
        if not any(keyword in dataset for keyword in _PIXELS):
            raise _no_image(dataset, name)
        if str(dataset.get("SOPClassUID", "")) == _SEGMENTATION:
            raise NoImageError(f"{name} holds no image but masks: leave it out")
        if "TransferSyntaxUID" not in dataset.file_meta:
            raise InputError(f"{name} does not say how it is encoded (no transfer syntax): export it anew or remove it")
    return dataset


def _no_image(dataset: FileDataset, name: str) -> InputError:
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    said = kind.name if kind is not None and not kind.is_private else ""
    if "Image Storage" in said:
        return InputError(f"{name} is damaged: it holds no pixels, which {said} has; export it anew")
    if said.startswith("1.") or not said:
        said = "an object of no known kind"
    return NoImageError(f"{name} holds no image ({said}): leave it out")


def _check_deflated(data: bytes, name: str) -> None:
    """Refuse a deflated file (PS3.5, A.5) that becomes more bytes than an image may have: pydicom would inflate all."""
    if _DEFLATED not in data[_PREAMBLE : _PREAMBLE + 1024]:
        return
    if data[132:136] != _GROUP_LENGTH:
        raise InputError(f"{name} is deflated and does not say from where on: export it anew or remove it")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[144 + int.from_bytes(data[140:144], "little") :], _MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise InputError(f"{name} inflates to more than {_MAX_INFLATED} bytes: split it or make it smaller")


def _image(data: bytes, name: str, allow_burned_in: bool, max_values: int) -> _Image:
    """Return all that is kept of a file."""
    dataset = _dataset(data, name)
    with refusing(name, _WRONG):
        if not allow_burned_in and str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
            raise InputError(
                f"{name} says that text is burnt into its pixels, which may name the patient and cannot be taken out: "
                "leave it out, or allow burnt-in text where you have seen that it names nobody"
            )
        frames = frame_count(dataset)
        _check_geometry(dataset, name, frames, max_values)
        slices = [slice_of(dataset, name, index) for index in range(frames)]
        pixels = decoded(dataset, name).reshape(frames, slices[0].height, slices[0].width, -1)
        made = [frame_of(dataset, name, index, pixels[index]) for index in range(frames)]
        return _Image(made, slices, unit_of(dataset), fps_of(dataset) if frames > 1 else None, facts_of(dataset))


def _check_geometry(dataset: Dataset, name: str, frames: int, max_values: int) -> None:
    check_size(name, frames, int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel), max_values)


# -- from frames to a scan -------------------------------------------------------------------------


def _frame_order(image: _Image) -> tuple[list[int], float | None]:
    """Return the order of the frames of a file, and the mm between them: as they are where they have no positions."""
    if len(image.frames) > 1 and all(slice_.position and slice_.orientation for slice_ in image.slices):
        return order(image.slices)
    return list(range(len(image.frames))), image.slices[0].thickness


def _scan(name: str, images: Sequence[_Image], frames: Sequence[tuple[Frame, Slice]], step: float | None) -> Scan:
    """Return the scan of ``frames`` in their order, with what ``images``, the files they are of, have in common."""
    first = images[0]
    units = {image.unit for image in images}
    if len(units) > 1:
        raise InputError(f"{name}: its slices are in {' and '.join(sorted(units))}: pack its slices one by one")
    spacing: Spacing | None = None
    if pixel := frames[0][1].pixel:
        spacing = (step or 0.0, pixel[0], pixel[1])
    stored, scale = joined(name, [frame for frame, _ in frames])
    facts = {word: said for word, said in first.facts.items() if all(image.facts.get(word) == said for image in images)}
    unit, fps = ("" if stored.ndim == 4 else first.unit), (first.fps if len(images) == 1 else None)
    return Scan(name, stored, scale, spacing, unit, fps, facts)
