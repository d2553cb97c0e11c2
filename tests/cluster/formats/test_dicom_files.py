"""Every file that pydicom ships goes through the reader: what is packed of it, or with which message it is refused."""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut

from cluster.formats.dicom import group_series, read_dicom, read_header, read_series
from cluster.formats.dicom_writing import Origin, write_dicom
from cluster.formats.meaning import Meaning
from cluster.formats.nifti import write_nifti
from cluster.formats.scan import Scan
from cluster.formats.shared_scale import shared_scale, span_of, to_integers
from freqgan.errors import InputError
from tests.support.scan_outcomes import DICOM_OUTCOMES, packed, packed_grey, secrets
from tests.support.scans import pydicom_files

WITHOUT_PIXELS = "test_files/dicomdirtests/TINY_ALPHA/"
"""A folder of 50 images whose pixels were taken out, and an index of them."""


def outcome(name: str) -> str:
    try:
        scan = read_dicom(pydicom_files()[name].read_bytes(), "a")
    except InputError as error:
        return str(error)
    values, shape = scan.values, "x".join(map(str, scan.stored.shape))
    return f"{shape} {scan.stored.dtype}, {values.min():g} to {values.max():g} {scan.unit}".rstrip()


@pytest.mark.parametrize("name", sorted(name for name in pydicom_files() if not name.startswith(WITHOUT_PIXELS)))
def test_every_file_is_packed_or_refused(name: str) -> None:
    said = outcome(name)
    assert DICOM_OUTCOMES[name] in said
    assert re.match(r"\d", said) or (said.startswith("a ") and len(said) > 30)


def test_images_without_pixels_are_refused() -> None:
    names = [name for name in pydicom_files() if name.startswith(WITHOUT_PIXELS)]
    said = [outcome(name).split(", ")[0].split(" (")[0] for name in names]
    assert len(names) == 52
    assert {text: said.count(text) for text in said} == {
        "a is damaged: it holds no pixels": 50, "a holds no image": 1, "a is no DICOM file": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", packed_grey())
def test_values_are_those_of_pydicom(name: str) -> None:
    """Of grey images; it neither turns MONOCHROME1 over nor takes padding out, nor does it scale doses."""
    dataset = pydicom.dcmread(pydicom_files()[name])
    scan = read_dicom(pydicom_files()[name].read_bytes(), "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 2**dataset.BitsStored - 1 - pixels
    expected = apply_modality_lut(pixels, dataset)
    padding = pixels == dataset.get("PixelPaddingValue", 2**40)
    expected = np.where(padding, expected[~padding].min(), expected)
    np.testing.assert_allclose(scan.values.reshape(expected.shape), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("77654033/CR1", "(1, 16, 16)"), ("98892001/CT5N", "(5, 16, 16)"),
        ("98892003/MR1", "(1, 16, 16) (1, 16, 16) (1, 16, 16)"),
        ("77654033/CT2", "161 of the slices of a series are missing between 17106 and 17136: they are 202.5 mm apart"),
        ("98892001/CT2N", "6293 and 6924 of one series lie in different directions"),
        ("98892003/MR2", "4950 and 4981 of one series lie in different directions"),
        ("98892003/MR700", "4467 and 4528 of one series lie in different directions"),
    ],
)  # fmt: skip
def test_folders_of_series(folder: str, said: str) -> None:
    """They are parts of series, some thinned out, some of views of many directions: what is wrong is named."""
    files = {
        name.rpartition("/")[2]: path.read_bytes()
        for name, path in pydicom_files().items()
        if name.startswith(f"test_files/dicomdirtests/{folder}/")
    }
    try:
        headers = [read_header(data, name) for name, data in files.items()]
        groups = [[header.name for header in group] for group in group_series(headers)]
        found = " ".join(str(read_series(group, files.__getitem__, "a").stored.shape) for group in groups)
    except InputError as error:
        found = str(error)
    assert said in found


@pytest.mark.parametrize("name", [name for name in packed() if "CT" in name or "MR" in name or "CR" in name])
def test_values_of_16_bits_come_back_from_what_is_written(name: str) -> None:
    scan = read_dicom(pydicom_files()[name].read_bytes(), "a")
    scale = shared_scale([span_of(scan)])
    integers = to_integers(scan, scale)
    meaning = Meaning(scale, scan.unit, scan.spacing, str(scan.facts["Modality"]))
    again = read_dicom(write_dicom(integers, Origin("0" * 64, 0, 0), meaning)[0], "b")
    np.testing.assert_array_equal(again.values, scale.values(integers))
    expected = [int(stored) * scan.scale.slope + scan.scale.offset for stored in scan.stored.ravel()]
    assert [int(stored) * again.scale.slope + again.scale.offset for stored in again.stored.ravel()] == expected
    assert (again.unit, again.spacing) == (scan.unit, scan.spacing)


# -- nothing about a patient -----------------------------------------------------------------------


def outputs(scan: Scan) -> Iterator[bytes]:
    """Everything that is made of a scan: its strip, its .json, DICOM and NIfTI, inflated, and how it is shown."""
    yield json.dumps(scan.description()).encode()
    yield repr(scan).encode()
    if scan.is_colour:
        integers: Any = scan.stored.astype(np.uint8) if scan.stored.dtype == np.uint8 else None
        meaning = Meaning()
    elif "RTDOSE" in scan.facts.values():  # of more than 16 bits
        integers, meaning = None, Meaning()
        yield gzip.decompress(write_nifti(scan.values, scan.placement, scan.spacing))
    else:
        scale = shared_scale([span_of(scan)])
        integers, meaning = to_integers(scan, scale), Meaning(scale, scan.unit, scan.spacing)
        yield json.dumps(scale.members()).encode()
        yield gzip.decompress(write_nifti(scan.values, scan.placement, scan.spacing))
    if integers is not None:
        buffer = io.BytesIO()
        Image.fromarray(integers.reshape(-1, *integers.shape[2:])).save(buffer, "PNG")
        yield buffer.getvalue()
        for data in write_dicom(integers, Origin("0" * 64, 0, 0), meaning):
            yield data
            yield str(pydicom.dcmread(io.BytesIO(data))).encode()


@pytest.mark.parametrize("name", sorted(name for name in pydicom_files() if not name.startswith(WITHOUT_PIXELS)))
def test_no_name_or_identifier_of_a_file_comes_out(name: str, caplog: pytest.LogCaptureFixture) -> None:
    data = pydicom_files()[name].read_bytes()
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        hidden = secrets(dataset)
    except Exception:  # nor can what pydicom itself cannot read come out
        hidden = set()
    caplog.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            scan = read_dicom(data, "a")
        except InputError as error:
            said = [str(error).encode()]
        else:
            assert hidden
            said = list(outputs(scan))
    said += [record.getMessage().encode() for record in caplog.records]
    said += [str(warning.message).encode() for warning in warned]
    assert [text for text in hidden if any(text in part for part in said)] == []
