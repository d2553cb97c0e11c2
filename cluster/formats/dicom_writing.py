"""Volumes and images as DICOM Secondary Capture, marked as synthetic (PS3.3, A.8): the same input gives the same bytes.

Identifiers are made from the run, the seed and the number of an image, and no date or time is written. The values that
are meant come back by RescaleSlope and RescaleIntercept. What is written passes pydicom's own checks of its format.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.formats.dicom_tags import MODALITIES, UNITS
from cluster.formats.meaning import NO_MEANING, Meaning
from cluster.formats.scan import IDENTITY, INSTALL
from freqgan.errors import InputError

if TYPE_CHECKING:
    from pydicom import FileDataset

SYNTHETIC = "SYNTHETIC"
"""What stands for the name and the number of a patient."""
NO_PATIENT = "Made by a generative model; it shows no patient"
"""What a file says of its image."""
_MAKER = "FreqGAN"
_CLASSES = {
    (False, "grey", 8): "1.2.840.10008.5.1.4.1.1.7",
    (False, "grey", 16): "1.2.840.10008.5.1.4.1.1.7",
    (False, "colour", 8): "1.2.840.10008.5.1.4.1.1.7",
    (True, "grey", 8): "1.2.840.10008.5.1.4.1.1.7.2",
    (True, "grey", 16): "1.2.840.10008.5.1.4.1.1.7.3",
    (True, "colour", 8): "1.2.840.10008.5.1.4.1.1.7.4",
}
"""Secondary Capture by whether a file has many frames, their kind and their bits (PS3.4, B.5)."""
_DECIMAL_STRING = 16
"""Characters of a number in DICOM (PS3.5, 6.2: DS)."""
_RESCALE_TYPES = {UNITS[term]: term for term in ("OD", "MGML", "PCT", "Z_EFF", "ED", "EDW", "HU")}
"""Terms of RescaleType (C.11.1.1.2) by the unit that they mean."""
_LARGEST = 65535
_ROWS_RIGHT_COLUMNS_DOWN = [1, 0, 0, 0, 1, 0]

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Origin:
    """What an image was made by, of which its identifiers are made.

    Attributes:
        run_digest: the digest of the run.
        seed: of the images.
        number: of the image.
        content: a digest of the image, where other options of the same run may give another of this number.

    """

    run_digest: str
    seed: int
    number: int
    content: str = ""

    def uid(self, *words: str | int) -> str:
        """Return an identifier below 2.25 (PS3.5, B.2): of a UUID that is a hash of run, seed and ``words``."""
        said = "\0".join(map(str, (_MAKER, self.run_digest, self.seed, *words)))
        return f"2.25.{uuid.UUID(bytes=hashlib.sha256(said.encode()).digest()[:16], version=5).int}"


def write_dicom(
    pixels: Pixels, origin: Origin, meaning: Meaning = NO_MEANING, *, in_one_file: bool = False
) -> list[bytes]:
    """Return the files of an image or a volume: one for every slice, or one with many frames.

    ``pixels`` are (T, H, W) of uint8 or uint16, or (T, H, W, 3) of uint8, of which value = pixel * slope + offset. They
    are compressed by RLE (lossless). Files of slices say where they lie: columns run to the left of the body, rows
    backwards, slices up.

    Raises:
        InputError: the array is of another kind, a side is above 65535, or slope or offset have more digits than DICOM
            allows, or pydicom is missing.

    """
    _check(pixels, meaning)
    if in_one_file and len(pixels) > 1:
        return [_written(_with_frames(pixels, origin, meaning))]
    return [_written(_with_slice(pixels, index, origin, meaning)) for index in range(len(pixels))]


def _check(pixels: Pixels, meaning: Meaning) -> None:
    is_grey = pixels.ndim == 3 and pixels.dtype in (np.uint8, np.uint16)
    is_colour = pixels.ndim == 4 and pixels.shape[3] == 3 and pixels.dtype == np.uint8
    if not (is_grey or is_colour) or min(pixels.shape) < 1 or max(pixels.shape) > _LARGEST:
        raise InputError(
            f"an array of shape {pixels.shape} and type {pixels.dtype} cannot be written as DICOM: (T, H, W) of uint8 "
            f"or uint16 can, or (T, H, W, 3) of uint8, with sides from 1 to {_LARGEST}"
        )
    if meaning.modality not in MODALITIES:
        raise InputError(f"{meaning.modality!r} is no modality of DICOM: give one of {', '.join(sorted(MODALITIES))}")
    if is_colour and meaning.scale != IDENTITY:
        raise InputError("colours have no slope and offset: write them without")


def decimal_string(number: Fraction | float) -> str:
    """Return ``number`` in at most 16 characters that read back as the same number.

    Raises InputError where there are no such.
    """
    nearest = float(number)
    forms = [str(int(nearest))] if nearest == int(nearest) else []
    forms += [repr(nearest), repr(nearest).replace("0.", ".", 1), repr(nearest).replace("e-0", "e-")]
    for form in forms:
        if len(form) <= _DECIMAL_STRING and float(form) == nearest:
            return form
    raise InputError(
        f"the number {nearest!r} has more digits than the {_DECIMAL_STRING} characters of a number in DICOM: write "
        "NIfTI, or NumPy's .npy"
    )


# -- the tags --------------------------------------------------------------------------------------


def _with_slice(pixels: Pixels, index: int, origin: Origin, meaning: Meaning) -> FileDataset:
    """Return the file of one slice of ``pixels`` (T, H, W[, 3])."""
    dataset = _dataset(pixels[index : index + 1], origin, meaning, index, is_in_frames=False)
    dataset.InstanceNumber = index + 1
    if meaning.spacing is None:
        return dataset
    step = meaning.spacing[0] or 1.0
    dataset.FrameOfReferenceUID = origin.uid("place", origin.number, origin.content)
    dataset.PositionReferenceIndicator = ""
    dataset.ImagePositionPatient = [0, 0, decimal_string(round(index * step, 6))]
    dataset.ImageOrientationPatient = _ROWS_RIGHT_COLUMNS_DOWN
    return dataset


def _with_frames(pixels: Pixels, origin: Origin, meaning: Meaning) -> FileDataset:
    """Return the file of all slices of ``pixels`` (T, H, W[, 3]), as frames with their places (C.8.6.4)."""
    dataset = _dataset(pixels, origin, meaning, 0, is_in_frames=True)
    step = (meaning.spacing[0] if meaning.spacing else 0.0) or 1.0
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = len(pixels)
    dataset.FrameIncrementPointer = 0x00182005
    dataset.SliceLocationVector = [decimal_string(round(index * step, 6)) for index in range(len(pixels))]
    dataset.BurnedInAnnotation = "NO"
    return dataset


def _dataset(pixels: Pixels, origin: Origin, meaning: Meaning, index: int, *, is_in_frames: bool) -> FileDataset:
    """Return a data set with all tags but those of its place, its pixels as they are."""
    try:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian
    except ImportError:
        raise InputError(f"DICOM files need pydicom: {INSTALL}") from None
    kind = UID(_CLASSES[is_in_frames, "colour" if pixels.ndim == 4 else "grey", 8 * pixels.itemsize])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = UID(origin.uid("image", origin.number, origin.content, index, int(is_in_frames)))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(Origin("", 0, 0).uid("implementation"))
    meta.ImplementationVersionName = _MAKER.upper()
    dataset = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    _say_origin(dataset, origin, meaning, is_in_frames)
    _say_pixels(dataset, pixels)
    if pixels.ndim == 3:
        _say_values(dataset, meaning, is_in_frames)
    if meaning.spacing is not None:
        step, *pixel = meaning.spacing
        dataset.PixelSpacing = [decimal_string(round(mm, 9)) for mm in pixel]
        if step and len(pixels):
            dataset.SliceThickness = dataset.SpacingBetweenSlices = decimal_string(round(step, 9))
    return dataset


def _say_origin(dataset: FileDataset, origin: Origin, meaning: Meaning, is_in_frames: bool) -> None:
    """Write patient, study, series and equipment (C.7.1 to C.7.5, C.8.6.1); what is not known is empty."""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientName = dataset.PatientID = SYNTHETIC
    for keyword in (
        "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
        "StudyID", "PatientOrientation",
    ):  # fmt: skip
        setattr(dataset, keyword, "")
    dataset.StudyInstanceUID = origin.uid("study")
    dataset.SeriesInstanceUID = origin.uid("series", origin.number, origin.content, int(is_in_frames))
    dataset.SeriesNumber = origin.number + 1
    dataset.Modality, dataset.ConversionType = meaning.modality, "SYN"
    dataset.Manufacturer = _MAKER
    dataset.DerivationDescription = NO_PATIENT


def _say_pixels(dataset: FileDataset, pixels: Pixels) -> None:
    dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    if pixels.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[1:3]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = 8 * pixels.itemsize - 1, 0
    dataset.LossyImageCompression = "00"
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"


def _say_values(dataset: FileDataset, meaning: Meaning, is_in_frames: bool) -> None:
    dataset.RescaleSlope = decimal_string(meaning.scale.slope)
    dataset.RescaleIntercept = decimal_string(meaning.scale.offset)
    dataset.RescaleType = _RESCALE_TYPES.get(meaning.unit, "US")
    if is_in_frames:
        dataset.PresentationLUTShape = "IDENTITY"


def _written(dataset: FileDataset) -> bytes:
    from pydicom.uid import RLELossless

    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
