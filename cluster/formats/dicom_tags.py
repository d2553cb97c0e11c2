"""What is kept of the tags of a DICOM file: where its image lies, its unit, and a few facts that identify nobody.

The numbers of sections are those of DICOM PS3.3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cluster.formats.slices import Slice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MODALITIES = frozenset({
    "AR", "BI", "BMD", "CR", "CT", "DG", "DX", "ECG", "EPS", "ES", "GM", "HD", "IO", "IVOCT", "IVUS", "KER", "LEN",
    "LS", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPV", "OSS", "OT", "PT", "PX", "RF", "RG", "RTDOSE",
    "RTIMAGE", "SM", "SRF", "TG", "US", "VA", "XA", "XC",
})  # fmt: skip
"""Kinds of equipment by the defined terms of PS3.3, C.7.3.1.1.1; another word is not kept."""
UNITS = {
    "HU": "HU", "OD": "OD", "MGML": "mg/ml", "PCT": "%", "Z_EFF": "Z_eff", "ED": "1e23/ml",
    "EDW": "relative to water", "HU_MOD": "modified HU", "CNTS": "counts", "CPS": "counts/s", "BQML": "Bq/ml",
    "GML": "g/ml", "GY": "Gy",
}  # fmt: skip
"""Units by the defined terms of RescaleType (C.11.1.1.2), of PET's Units (C.8.9.1.1.3) and of DoseUnits (C.8.8.3)."""
KEPT_NUMBERS = (
    "SliceThickness", "KVP", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "MagneticFieldStrength",
)  # fmt: skip
KEPT_TAGS = ("Modality", *KEPT_NUMBERS, "LossyImageCompression")
"""All tags whose values are kept beside pixels and geometry: of words only those known here, else numbers."""


def frame_count(dataset: Dataset) -> int:
    """Return the number of frames (C.7.6.6), which is 1 where a file does not say it."""
    frames = dataset.get("NumberOfFrames")
    return 1 if frames is None or frames == "" else int(frames)


def functional_group(dataset: Dataset, index: int, sequence: str) -> Dataset | None:
    """Return the item of a frame, or of all frames, in an enhanced file (C.7.6.16); None where there is none."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in [*list(per_frame)[index : index + 1], *(dataset.get("SharedFunctionalGroupsSequence") or [])]:
        if items := groups.get(sequence):
            return items[0]  # type: ignore[no-any-return]
    return None


def numbers_of(dataset: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return the ``count`` finite numbers of a tag; None where there are not so many."""
    value = None if dataset is None else dataset.get(keyword)
    values = [value] if isinstance(value, int | float) else list(value or [])
    if len(values) != count:
        return None
    numbers = tuple(float(number) for number in values)
    return numbers if all(map(math.isfinite, numbers)) else None


def slice_of(dataset: Dataset, name: str, index: int) -> Slice:
    """Return where a frame is."""
    plane = functional_group(dataset, index, "PlanePositionSequence") or dataset
    direction = functional_group(dataset, index, "PlaneOrientationSequence") or dataset
    measures = functional_group(dataset, index, "PixelMeasuresSequence") or dataset
    pixel = numbers_of(measures, "PixelSpacing", 2) or numbers_of(dataset, "ImagerPixelSpacing", 2)
    pixel = pixel or numbers_of(dataset, "NominalScannedPixelSpacing", 2)
    thickness = numbers_of(measures, "SpacingBetweenSlices", 1) or numbers_of(measures, "SliceThickness", 1)
    position, orientation = (
        numbers_of(plane, "ImagePositionPatient", 3),
        numbers_of(direction, "ImageOrientationPatient", 6),
    )
    if position and orientation and plane is dataset and frame_count(dataset) > 1:
        position = _moved(dataset, index, position, orientation)
    number = dataset.get("InstanceNumber")
    return Slice(
        f"frame {index + 1} of {name}" if frame_count(dataset) > 1 else name,
        int(dataset.Rows),
        int(dataset.Columns),
        position,
        orientation,
        (pixel[0], pixel[1]) if pixel and min(pixel) > 0 else None,
        abs(thickness[0]) if thickness else None,
        int(number) if number is not None and number != "" else None,
    )


def _moved(
    dataset: Dataset, index: int, position: tuple[float, ...], orientation: tuple[float, ...]
) -> tuple[float, ...] | None:
    """Return the position of a frame of a dose (GridFrameOffsetVector, C.8.8.3.2); None where frames have none."""
    offsets = numbers_of(dataset, "GridFrameOffsetVector", frame_count(dataset))
    if offsets is None:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    return tuple((np.array(position) + (offsets[index] - offsets[0]) * normal).tolist())


def unit_of(dataset: Dataset) -> str:
    """Return the unit of the values by ``UNITS``; "" where it is another one or not said, or values are turned over."""
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        return ""
    transformation = functional_group(dataset, 0, "PixelValueTransformationSequence") or dataset
    word = transformation.get("RescaleType") or dataset.get("Units") or dataset.get("DoseUnits")
    if not word and dataset.get("Modality") == "CT":
        return "HU"  # C.8.2.1.1.2
    return UNITS.get(str(word or "").strip().upper(), "")


def fps_of(dataset: Dataset) -> float | None:
    """Return the frames in a second of a clip (C.7.6.5)."""
    if (time := numbers_of(dataset, "FrameTime", 1)) and time[0] > 0:
        return 1000 / time[0]
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        if (rate := numbers_of(dataset, keyword, 1)) and rate[0] > 0:
            return rate[0]
    return None


def facts_of(dataset: Dataset) -> dict[str, float | str]:
    """Return the tags of ``KEPT_TAGS`` that the file has."""
    facts: dict[str, float | str] = {}
    if (modality := str(dataset.get("Modality") or "").strip()) in MODALITIES:
        facts["Modality"] = modality
    for keyword in KEPT_NUMBERS:
        if (numbers := numbers_of(dataset, keyword, 1)) is not None:
            facts[keyword] = numbers[0]
    if (lossy := str(dataset.get("LossyImageCompression") or "").strip()) in ("00", "01"):
        facts["LossyImageCompression"] = lossy
    return facts
