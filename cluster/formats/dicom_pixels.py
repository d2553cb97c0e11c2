"""The pixels of a DICOM file as integers with their exact scale, and frames of several files as one array.

The numbers of sections are those of DICOM PS3.3, where no other part is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.formats.dicom_tags import functional_group
from cluster.formats.scan import IDENTITY, Scale, Stored, common_scale, in_scale, whole_or_float
from freqgan.errors import InputError

if TYPE_CHECKING:
    from pydicom import FileDataset
    from pydicom.dataset import Dataset

_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
_KINDS = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT",
    "YBR_PARTIAL_420",
)  # fmt: skip
"""Defined terms of PhotometricInterpretation (C.7.6.3.1.2)."""
_RLE = "1.2.840.10008.1.2.5"
_PLUGINS = (
    ("JPEG-LS", "pip install pyjpegls"),
    ("High-Throughput JPEG 2000", "pip install pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG 2000", "pip install Pillow, or pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG", "pip install pylibjpeg pylibjpeg-libjpeg"),
)
"""What decodes the syntaxes whose names contain a word, the first that does."""


@dataclass(frozen=True)
class Frame:
    """The values of a slice: integers (H, W) or floats or colours, a mask of what is padding, and the scale."""

    stored: Stored
    padding: NDArray[np.bool_] | None
    scale: Scale


def decoded(dataset: FileDataset, name: str) -> Stored:
    """Return the decoded pixels (T, H, W) or (T, H, W, 3), T and its axis missing for one frame.

    Bits beyond those that are stored are still in place where nothing compressed them.
    """
    if str(dataset.PhotometricInterpretation) not in _KINDS:
        raise InputError(f"{name} has pixels of no known kind (PhotometricInterpretation): convert it to RGB or grey")
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    said = "an unknown way" if syntax.is_private or syntax.name == str(syntax) else syntax.name
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"{name} is compressed in {said}, which is not for single images: convert it") from None
    remedy = next((remedy for word, remedy in _PLUGINS if word in said), "convert it to an uncompressed file")
    if not decoder.is_available:
        raise InputError(f"{name} is compressed as {said}, which nothing installed here decodes: {remedy}")
    try:
        return pixel_array(dataset, correct_unused_bits=syntax.is_compressed and str(syntax) != _RLE)
    # Every decoder raises errors of its own, and pydicom others for pixels that are cut off.
    except Exception:
        if syntax.is_compressed and str(syntax) != _RLE:
            raise InputError(
                f"{name} is compressed as {said} and cannot be decoded by what is installed here: {remedy}; "
                "if that is there, the file is damaged"
            ) from None
        raise InputError(
            f"{name} is damaged: its pixels are cut off, or do not fit its header; export it anew"
        ) from None


def frame_of(dataset: Dataset, name: str, index: int, pixels: Stored) -> Frame:
    """Return the values of a frame, of which the decoded pixels are (H, W, C)."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return Frame(_from_palette(dataset, pixels[..., 0]), None, IDENTITY)
    if pixels.shape[-1] == 3:
        return Frame(_colours(pixels, name), None, IDENTITY)
    if not photometric.startswith("MONOCHROME") or pixels.shape[-1] != 1:
        raise InputError(f"{name} has {pixels.shape[-1]} channels, which do not fit its kind of pixels: export it anew")
    if pixels.dtype.kind == "f":
        if photometric == "MONOCHROME1":
            raise InputError(f"{name} holds floats of MONOCHROME1, of which no greatest is known: convert it")
        return Frame(whole_or_float(pixels[..., 0], name), None, IDENTITY)
    return _grey(dataset, name, index, pixels[..., 0])


def _from_palette(dataset: Dataset, indices: Stored) -> NDArray[np.uint8]:
    """Return the colours (H, W, 3) of ``indices`` (H, W): of entries of 16 bits their high bytes (C.7.9.2)."""
    from pydicom.pixels.processing import apply_color_lut

    colours = apply_color_lut(indices, dataset)[..., :3]
    return (colours >> 8 if colours.dtype.itemsize > 1 else colours).astype(np.uint8)


def _colours(pixels: Stored, name: str) -> Stored:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name} has colours of {8 * pixels.dtype.itemsize} bits a channel: convert it to 8 or 16")
    return pixels


def _grey(dataset: Dataset, name: str, index: int, pixels: Stored) -> Frame:
    """Return integers (H, W) from the stored bits of ``pixels`` (H, W), turned over for MONOCHROME1."""
    integers, bits = _stored_bits(dataset, name, pixels)
    padding = _padding(dataset, pixels, integers)
    if lut := dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        integers = apply_modality_lut(integers, dataset).astype(np.int64)
        bits, is_signed, scale = int(lut[0].LUTDescriptor[2]), False, IDENTITY
    else:
        is_signed, scale = bool(dataset.PixelRepresentation), _rescale(dataset, name, index)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        integers = (-1 if is_signed else 2**bits - 1) - integers
    if scale.slope < 0:
        integers, scale = -integers, Scale(-scale.slope, scale.offset)
    return Frame(_narrow(integers), padding, scale)


def _stored_bits(dataset: Dataset, name: str, pixels: Stored) -> tuple[NDArray[np.int64], int]:
    """Return the bits from HighBit down as integers (H, W) of their sign, and how many there are (PS3.5, 8.1.1)."""
    allocated, bits, high = int(dataset.BitsAllocated), int(dataset.BitsStored), int(dataset.HighBit)
    if not (1 <= bits <= allocated and bits - 1 <= high < allocated):
        raise InputError(f"{name} stores {bits} bits up to bit {high} of {allocated}, which cannot be: export it anew")
    shift = high + 1 - bits if not dataset.file_meta.TransferSyntaxUID.is_compressed else 0
    integers = (pixels.astype(np.int64) >> shift) & (2**bits - 1)
    if dataset.PixelRepresentation:
        integers -= (integers >> (bits - 1)) << bits
    return integers, bits


def _padding(dataset: Dataset, pixels: Stored, integers: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Return which pixels (H, W) are padding (C.7.5.1.1.2): of one value, or from it to a limit; None without such.

    Some files write the value unsigned although their pixels are signed, or with more bits than are stored.
    """
    value, limit = (dataset.get(word) for word in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None or value == "":
        return None
    modulus = 2 ** int(dataset.BitsAllocated)
    if limit is None or limit == "":
        number = int(value)
        return np.asarray((integers == number) | (pixels.astype(np.int64) % modulus == number % modulus))
    signed = bool(dataset.PixelRepresentation)
    ends = sorted(
        number - modulus if signed and number >= modulus // 2 else number for number in (int(value), int(limit))
    )
    return (integers >= ends[0]) & (integers <= ends[1])


def _rescale(dataset: Dataset, name: str, index: int) -> Scale:
    """Return slope and intercept of a frame, or of a dose its scaling, in exact decimals."""
    groups = functional_group(dataset, index, "PixelValueTransformationSequence") or dataset
    slope = _exact(groups, "RescaleSlope", Fraction(1))
    if str(dataset.get("SOPClassUID", "")) == _DOSE:
        slope = _exact(dataset, "DoseGridScaling", Fraction(1))
    if slope == 0:
        raise InputError(f"{name} has a RescaleSlope of 0, which makes all of its values one: export it anew")
    return Scale(slope, _exact(groups, "RescaleIntercept", Fraction(0)))


def _exact(dataset: Dataset, keyword: str, default: Fraction) -> Fraction:
    """Return a decimal string as it is written, which a float would round."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return default
    try:
        decimal = Decimal(str(getattr(value, "original_string", value)).strip())
    except InvalidOperation:
        raise ValueError(keyword) from None
    if not decimal.is_finite() or (abs(decimal.adjusted()) > 300 and decimal):
        raise ValueError(keyword)
    return Fraction(decimal)


def joined(name: str, frames: Sequence[Frame]) -> tuple[Stored, Scale]:
    """Return the values of ``frames`` as one array (T, H, W) or (T, H, W, 3), in one scale."""
    if len({(frame.stored.ndim, frame.stored.dtype) for frame in frames}) > 1 and any(
        frame.stored.ndim == 3 for frame in frames
    ):
        raise InputError(
            f"{name} has slices of different kinds, grey and colour or 8 and 16 bits: pack them one by one"
        )
    if frames[0].stored.ndim == 3:
        return np.stack([frame.stored for frame in frames]), IDENTITY
    scale = common_scale(frame.scale for frame in frames)
    parts = [in_scale(frame.stored, frame.scale, scale) if frame.stored.dtype.kind != "f" else None for frame in frames]
    if any(part is None for part in parts):  # their slopes have no common step: they are what they mean, rounded
        stored, scale = np.stack([frame.scale.values(frame.stored).astype(np.float64) for frame in frames]), IDENTITY
    else:
        stored = np.stack([part for part in parts if part is not None])
    padding = np.stack([_mask(frame) for frame in frames])
    if padding.all():
        raise InputError(f"{name} holds nothing but padding: leave it out")
    if padding.any():
        stored[padding] = stored[~padding].min()
    return _narrow(stored), scale


def _mask(frame: Frame) -> NDArray[np.bool_]:
    return np.zeros(frame.stored.shape, np.bool_) if frame.padding is None else frame.padding


def _narrow(stored: Stored) -> Stored:
    """Return int64 (T, H, W) as int32 where it fits, and floats as they are."""
    if stored.dtype.kind == "f" or max(abs(int(stored.min())), abs(int(stored.max()))) >= 2**31:
        return stored
    return stored.astype(np.int32)
