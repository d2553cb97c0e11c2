"""Files of DICOM made of arrays, and the test files that pydicom and nibabel ship."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
PATIENT = "Impossible^Nemo"
"""The name in every file that is made here: it may come out nowhere."""
SECRETS = (PATIENT, "NEMO-4711", "19700102", "2.25.999", "Doctor^Nobody", "St. Elsewhere")


def dicom_file(pixels: NDArray[Any], **tags: Any) -> bytes:
    """A CT of ``pixels`` (H, W), (T, H, W) or (H, W, 3) in Explicit VR Little Endian, with ``tags`` for its own.

    A tag that is None is left out.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    syntax = tags.pop("syntax", ExplicitVRLittleEndian)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        UID(tags.get("SOPClassUID") or CT_CLASS),
        ExplicitVRLittleEndian,
    )
    meta.MediaStorageSOPInstanceUID = UID("2.25.999.3")
    dataset = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3 and tags.get("NumberOfFrames") is None
    own: dict[str, Any] = {
        "SOPClassUID": CT_CLASS, "SOPInstanceUID": "2.25.999.3", "SeriesInstanceUID": "2.25.999.2",
        "StudyInstanceUID": "2.25.999.1", "PatientName": PATIENT, "PatientID": SECRETS[1], "StudyDate": SECRETS[2],
        "ReferringPhysicianName": SECRETS[4], "InstitutionName": SECRETS[5], "PatientComments": PATIENT,
        "Modality": "CT", "Rows": pixels.shape[-3 if is_colour else -2],
        "Columns": pixels.shape[-2 if is_colour else -1],
        "BitsAllocated": 8 * pixels.itemsize, "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "SamplesPerPixel": 3 if is_colour else 1, "PhotometricInterpretation": "RGB" if is_colour else "MONOCHROME2",
        "PixelData": np.ascontiguousarray(pixels).tobytes(),
    }  # fmt: skip
    own |= {"PlanarConfiguration": 0} if is_colour else {}
    own["BitsStored"] = tags.get("BitsStored", own["BitsAllocated"])
    own["HighBit"] = own["BitsStored"] - 1
    for keyword, value in (own | tags).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, encoding_plugin="pydicom")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def series(count: int, *, gap: int | None = None, **tags: Any) -> dict[str, bytes]:
    """Files of slices 2.5 mm apart, slice k all of 100 k, by names in another order; slice ``gap`` is left out."""
    files = {}
    for k in range(count):
        if k != gap:
            name = f"ct/{(k * 7) % count:02d}.dcm"
            place = {"ImagePositionPatient": [0, 0, 2.5 * k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            files[name] = dicom_file(
                np.full((4, 5), 100 * k, np.int16), PixelSpacing=[0.5, 0.75], InstanceNumber=count - k, **(place | tags)
            )
    return files


def pydicom_files() -> dict[str, Path]:
    """The files that pydicom ships (none is downloaded), by their path."""
    import pydicom.data

    root = Path(str(pydicom.data.__file__)).parent
    left_out = {".py", ".pyc", ".json", ".txt", ".dump", ".md"}
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in left_out)
    return {str(path.relative_to(root)): path for path in files}


def nibabel_files() -> dict[str, Path]:
    """The files of NIfTI that nibabel ships, by their names."""
    import nibabel

    folder = Path(str(nibabel.__file__)).parent / "tests" / "data"
    return {path.name: path for path in sorted(folder.iterdir()) if path.name.endswith((".nii", ".nii.gz", ".hdr"))}


WRITTEN_TAGS = {
    "BitsAllocated", "BitsStored", "BurnedInAnnotation", "Columns", "ConversionType", "DerivationDescription",
    "FrameIncrementPointer", "FrameOfReferenceUID", "HighBit", "ImageOrientationPatient", "ImagePositionPatient",
    "ImageType", "InstanceNumber", "LossyImageCompression", "Manufacturer", "Modality", "NumberOfFrames", "PatientID",
    "PatientName", "PhotometricInterpretation", "PixelData", "PixelRepresentation", "PixelSpacing",
    "PlanarConfiguration", "PositionReferenceIndicator", "PresentationLUTShape", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "Rows", "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "SeriesInstanceUID", "SeriesNumber",
    "SliceLocationVector", "SliceThickness", "SpacingBetweenSlices", "StudyInstanceUID",
    "AccessionNumber", "PatientBirthDate", "PatientOrientation", "PatientSex", "ReferringPhysicianName", "StudyDate",
    "StudyID", "StudyTime",
}  # fmt: skip
"""All that is in a file of DICOM that is written; those of the last two lines are empty."""
