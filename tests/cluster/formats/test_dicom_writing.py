from __future__ import annotations

import io
import re
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import config

from cluster.formats.dicom import group_series, read_dicom, read_header, read_series
from cluster.formats.dicom_writing import Origin, decimal_string, write_dicom
from cluster.formats.meaning import Meaning
from cluster.formats.scan import Scale, Scan
from freqgan.errors import InputError

ORIGIN = Origin("ab12" * 16, 7, 3)
CT = Meaning(Scale(Fraction("0.684"), Fraction(-1024)), "HU", (2.5, 0.7, 0.61), "CT")


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that pydicom finds wrong in what it reads or writes is an error."""
    monkeypatch.setattr(config.settings, "_reading_validation_mode", config.RAISE)
    monkeypatch.setattr(config.settings, "_writing_validation_mode", config.RAISE)


def noise(*shape: int, dtype: Any = np.uint16) -> Any:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def read_back(files: list[bytes]) -> Scan:
    (headers,) = group_series([read_header(data, str(number)) for number, data in enumerate(files)])
    return read_series([header.name for header in headers], lambda name: files[int(name)], "a")


@pytest.mark.parametrize("in_one_file", [False, True])
def test_a_volume_comes_back_exactly(in_one_file: bool) -> None:
    pixels = noise(5, 33, 31)
    files = write_dicom(pixels, ORIGIN, CT, in_one_file=in_one_file)
    assert len(files) == (1 if in_one_file else 5)
    scan = read_back(files[::-1])
    np.testing.assert_array_equal(scan.stored, pixels)
    assert (scan.scale, scan.spacing, scan.unit) == (CT.scale, CT.spacing, "HU")
    assert scan.facts["Modality"] == "CT"


@pytest.mark.parametrize("in_one_file", [False, True])
@pytest.mark.parametrize("pixels", [noise(2, 7, 9), noise(2, 7, 9, dtype=np.uint8), noise(2, 7, 9, 3, dtype=np.uint8)])
def test_pydicom_reads_it_with_its_format_enforced(pixels: Any, in_one_file: bool) -> None:
    files = write_dicom(pixels, ORIGIN, in_one_file=in_one_file)
    for number, data in enumerate(files):
        dataset = pydicom.dcmread(io.BytesIO(data))
        assert all(element.value is not None for element in dataset.iterall())
        expected = pixels if in_one_file else pixels[number]
        np.testing.assert_array_equal(dataset.pixel_array, expected)
        assert "Secondary Capture Image Storage" in dataset.SOPClassUID.name
        assert dataset.file_meta.TransferSyntaxUID.name == "RLE Lossless"
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
        assert (dataset.ConversionType, dataset.PatientName, dataset.PatientID) == ("SYN", "SYNTHETIC", "SYNTHETIC")
        assert dataset.BitsStored == 8 * pixels.itemsize
        assert dataset.PhotometricInterpretation == ("RGB" if pixels.ndim == 4 else "MONOCHROME2")
        dataset.save_as(io.BytesIO(), enforce_file_format=True)


def test_the_same_input_gives_the_same_bytes_and_no_date() -> None:
    pixels = noise(3, 4, 5)
    files = write_dicom(pixels, ORIGIN, CT)
    assert files == write_dicom(pixels, ORIGIN, CT)
    for data in files:
        for element in pydicom.dcmread(io.BytesIO(data)).iterall():
            assert element.VR not in ("DA", "TM", "DT") or not element.value


def test_identifiers_are_those_of_run_seed_and_number() -> None:
    keywords = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")

    def uids(origin: Origin, in_one_file: bool = False) -> list[list[str]]:
        files = write_dicom(noise(2, 4, 5), origin, CT, in_one_file=in_one_file)
        datasets = [pydicom.dcmread(io.BytesIO(data)) for data in files]
        return [[str(dataset.get(keyword)) for dataset in datasets] for keyword in keywords]

    instances, series, studies, places = uids(ORIGIN)
    assert len(set(instances)) == 2
    assert len(set(series)) == len(set(studies)) == len(set(places)) == 1
    assert all(re.fullmatch(r"2\.25\.[1-9][0-9]{30,38}", uid) for uid in [*instances, *series, *studies, *places])
    other_image = uids(Origin(ORIGIN.run_digest, 7, 4))
    assert other_image[2] == studies
    for other in (other_image, uids(Origin(ORIGIN.run_digest, 8, 3)), uids(Origin("cd", 7, 3)), uids(ORIGIN, True)):
        assert not set(other[0]) & set(instances)
        assert not set(other[1]) & set(series)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0.684, "0.684"), (-1024, "-1024"), (1, "1"), (0, "0"), (1e-7, "1e-07"), (2.0**-16, "1.52587890625e-5"),
        (0.12345678901234, "0.12345678901234"), (0.123456789012345, ".123456789012345"), (1e300, "1e+300"),
    ],
)  # fmt: skip
def test_numbers_have_16_characters(number: float, said: str) -> None:
    assert decimal_string(Fraction(repr(number))) == said
    assert float(said) == number
    assert len(said) <= 16


def test_numbers_of_more_digits_are_refused() -> None:
    with pytest.raises(InputError, match=r"the number 0.07540696859359741 has more digits than the 16 characters"):
        write_dicom(noise(1, 2, 2), ORIGIN, Meaning(Scale(Fraction(0.07540696859359741))))


@pytest.mark.parametrize(
    ("pixels", "meaning", "said"),
    [
        (np.zeros((1, 2, 2), np.float32), Meaning(), r"shape \(1, 2, 2\) and type float32 cannot be written"),
        (np.zeros((1, 2, 2, 4), np.uint8), Meaning(), "cannot be written"),
        (np.zeros((1, 2, 2, 3), np.uint16), Meaning(), "cannot be written"),
        (np.zeros((2, 2), np.uint16), Meaning(), "cannot be written"),
        (np.zeros((1, 1, 70000), np.uint16), Meaning(), "sides from 1 to 65535"),
        (np.zeros((1, 2, 2), np.uint16), Meaning(modality="NEMO"), "'NEMO' is no modality of DICOM"),
        (np.zeros((1, 2, 2, 3), np.uint8), CT, "colours have no slope and offset"),
    ],
)
def test_what_cannot_be_written_is_refused(pixels: Any, meaning: Meaning, said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_dicom(pixels, ORIGIN, meaning)


def test_without_pydicom_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom.dataset", None)
    with pytest.raises(InputError, match=r'DICOM files need pydicom: pip install "freqgan\[medical\]"'):
        write_dicom(noise(1, 2, 2), ORIGIN)


def test_one_slice_without_a_place_is_one_file() -> None:
    (data,) = write_dicom(noise(1, 6, 4), ORIGIN, in_one_file=True)
    scan = read_dicom(data, "a")
    assert scan.spacing is None
    assert scan.unit == ""
    np.testing.assert_array_equal(scan.stored, noise(1, 6, 4))
