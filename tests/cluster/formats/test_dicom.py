from __future__ import annotations

import logging
import sys
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from cluster.formats.dicom import is_dicom, read_dicom
from cluster.formats.scan import NoImageError, Scale
from freqgan.errors import InputError
from tests.support.scans import SECRETS, dicom_file, pydicom_files

RAMP = np.arange(20, dtype=np.uint16).reshape(4, 5)


def test_values_are_those_of_the_modality_and_exact() -> None:
    scan = read_dicom(dicom_file(RAMP, RescaleSlope="0.684", RescaleIntercept="-1024"), "a")
    assert scan.scale == Scale(Fraction(171, 250), Fraction(-1024))
    assert scan.unit == "HU"
    assert scan.stored.shape == (1, 4, 5)
    np.testing.assert_array_equal(scan.stored[0], RAMP)
    np.testing.assert_allclose(scan.values[0], RAMP * 0.684 - 1024)


def test_signed_pixels_keep_their_sign() -> None:
    pixels = np.array([[-32768, -1], [0, 32767]], np.int16)
    np.testing.assert_array_equal(read_dicom(dicom_file(pixels), "a").stored[0], pixels)


def test_monochrome1_is_turned_over_in_the_range_of_the_stored_bits() -> None:
    scan = read_dicom(dicom_file(RAMP, PhotometricInterpretation="MONOCHROME1", BitsStored=12), "a")
    np.testing.assert_array_equal(scan.stored[0], 4095 - RAMP.astype(int))
    assert scan.unit == ""
    pixels = np.array([[-2048, 2047]], np.int16)
    scan = read_dicom(dicom_file(pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12), "a")
    np.testing.assert_array_equal(scan.stored[0], [[2047, -2048]])


def test_bits_that_are_not_stored_do_not_count() -> None:
    """Old files have an overlay in the bits above, and the image need not lie in the lowest bits."""
    with_overlay = RAMP | 0xF000
    np.testing.assert_array_equal(read_dicom(dicom_file(with_overlay, BitsStored=12), "a").stored[0], RAMP)
    shifted = (RAMP << 4) | 0xF
    np.testing.assert_array_equal(read_dicom(dicom_file(shifted, BitsStored=12, HighBit=15), "a").stored[0], RAMP)
    signed = np.array([[0x0FFF, 0x0001]], np.int16)  # 12 bits: -1, 1
    np.testing.assert_array_equal(read_dicom(dicom_file(signed, BitsStored=12), "a").stored[0], [[-1, 1]])


@pytest.mark.parametrize("value", [-2000, 2**16 - 2000])
def test_padding_becomes_the_least_value(value: int) -> None:
    """It is written unsigned in some files of signed pixels."""
    pixels = np.array([[-2000, 5], [7, -2000]], np.int16)
    tags: dict[str, Any] = {"RescaleIntercept": -1000, "RescaleSlope": 1}
    data = dicom_file(pixels.view(np.uint16) if value > 0 else pixels, PixelPaddingValue=value, **tags)
    if value > 0:
        data = _as_signed(data)
    np.testing.assert_array_equal(read_dicom(data, "a").values[0], [[-995, -995], [-993, -995]])


def _as_signed(data: bytes) -> bytes:
    """Set PixelRepresentation to 1, and nothing else."""
    tag = b"\x28\x00\x03\x01US\x02\x00"
    assert data.count(tag) == 1
    return data.replace(tag + b"\x00\x00", tag + b"\x01\x00")


def test_a_range_of_padding_is_padding() -> None:
    pixels = np.array([[0, 3], [10, 12]], np.uint16)
    scan = read_dicom(dicom_file(pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=5), "a")
    np.testing.assert_array_equal(scan.stored[0], [[10, 10], [10, 12]])


def test_padding_of_monochrome1_is_dark() -> None:
    pixels = np.array([[4095, 100], [7, 4095]], np.uint16)
    tags: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "PixelPaddingValue": 0}
    bright_padding = read_dicom(dicom_file(np.where(pixels == 4095, 0, pixels).astype(np.uint16), **tags), "a")
    np.testing.assert_array_equal(bright_padding.stored[0], [[3995, 3995], [4088, 3995]])


def test_nothing_but_padding_is_refused() -> None:
    with pytest.raises(InputError, match="a holds nothing but padding"):
        read_dicom(dicom_file(np.zeros((2, 2), np.uint16), PixelPaddingValue=0), "a")


def test_a_negative_slope_gives_the_same_values_with_a_positive_one() -> None:
    scan = read_dicom(dicom_file(RAMP, RescaleSlope=-2, RescaleIntercept=10), "a")
    assert scan.scale.slope == 2
    np.testing.assert_array_equal(scan.values[0], 10 - 2 * RAMP.astype(int))


def test_a_table_of_the_modality_is_applied() -> None:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [20, 0, 16], "US"
    item.add_new("LUTData", "OW", np.array([1000 - 3 * k for k in range(20)], np.uint16).tobytes())
    scan = read_dicom(dicom_file(RAMP, ModalityLUTSequence=[item]), "a")
    np.testing.assert_array_equal(scan.values[0], 1000 - 3 * RAMP.astype(int))


def test_rle_is_lossless_and_many_frames_are_slices() -> None:
    from pydicom.uid import RLELossless

    frames = np.random.default_rng(0).integers(-3000, 3000, (6, 7, 9)).astype(np.int16)
    plain = read_dicom(dicom_file(frames, NumberOfFrames=6, SpacingBetweenSlices=3, PixelSpacing=[1, 2]), "a")
    small = read_dicom(dicom_file(frames, NumberOfFrames=6, syntax=RLELossless), "a")
    np.testing.assert_array_equal(plain.stored, frames)
    np.testing.assert_array_equal(small.stored, frames)
    assert plain.spacing == (3, 1, 2)
    assert small.spacing is None


def _enhanced(frames: np.ndarray[Any, Any], heights: list[float], slopes: list[str]) -> bytes:
    """A file with the place and the scale of every frame by itself."""
    from pydicom.dataset import Dataset

    def item(**tags: Any) -> Dataset:
        made = Dataset()
        for keyword, value in tags.items():
            setattr(made, keyword, value)
        return made

    own = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, height])],
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept="0", RescaleType="HU")],
        )
        for height, slope in zip(heights, slopes, strict=True)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.25], SliceThickness=9)],
    )
    groups: dict[str, Any] = {"PerFrameFunctionalGroupsSequence": own, "SharedFunctionalGroupsSequence": [shared]}
    return dicom_file(frames, NumberOfFrames=len(frames), **groups)


def test_frames_of_an_enhanced_file_lie_where_they_say() -> None:
    frames = np.stack([np.full((2, 3), k, np.uint16) for k in (30, 10, 20)])
    scan = read_dicom(_enhanced(frames, [6, 2, 4], ["1", "1", "1"]), "a")
    assert scan.stored[:, 0, 0].tolist() == [10, 20, 30]
    assert scan.spacing == (2, 0.5, 0.25)
    with pytest.raises(InputError, match=r"frame 2 of a and frame 3 of a are the same slice"):
        read_dicom(_enhanced(frames, [6, 2, 2], ["1", "1", "1"]), "a")


def test_frames_with_slopes_of_their_own_get_a_common_one() -> None:
    frames = np.stack([np.full((2, 3), k, np.uint16) for k in (3, 4, 5)])
    scan = read_dicom(_enhanced(frames, [0, 2, 4], ["0.5", "0.75", "1"]), "a")
    assert scan.scale.slope == Fraction(1, 4)
    assert scan.values[:, 0, 0].tolist() == [1.5, 3, 5]
    odd = read_dicom(_enhanced(frames, [0, 2, 4], ["1.2345678901234", "7.65432109876e-9", "1"]), "a")
    assert odd.stored.dtype == np.float64
    assert odd.values[:, 0, 0] == pytest.approx([3.70370367, 3.0617e-8, 5], rel=1e-4)


def test_colours_and_palettes_are_colours() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    scan = read_dicom(dicom_file(colours, Modality="US"), "a")
    assert scan.is_colour
    np.testing.assert_array_equal(scan.values[0], colours)
    table = np.arange(20, dtype=np.uint16) << 8
    tags: dict[str, Any] = {}
    for channel, factor in (("Red", 1), ("Green", 2), ("Blue", 3)):
        tags[f"{channel}PaletteColorLookupTableDescriptor"] = [20, 0, 16]
        tags[f"{channel}PaletteColorLookupTableData"] = (table * factor).tobytes()
    painted = read_dicom(dicom_file(RAMP.astype(np.uint8), PhotometricInterpretation="PALETTE COLOR", **tags), "a")
    np.testing.assert_array_equal(painted.values[0], RAMP[..., None] * np.array([1, 2, 3]))


def test_only_known_words_and_numbers_are_kept() -> None:
    tags: dict[str, Any] = {
        "SliceThickness": 2.5, "KVP": 120, "ProtocolName": "of Nemo", "BodyPartExamined": "NEMO", "StationName": "NEMO",
    }  # fmt: skip
    scan = read_dicom(dicom_file(RAMP, **tags), "a")
    assert scan.facts == {"Modality": "CT", "SliceThickness": 2.5, "KVP": 120}
    assert read_dicom(dicom_file(RAMP, Modality="NEMO"), "a").facts == {}
    assert read_dicom(dicom_file(RAMP, RescaleType="NEMO"), "a").unit == ""


def test_burnt_in_text_is_refused_unless_it_is_allowed() -> None:
    data = dicom_file(RAMP, BurnedInAnnotation="YES")
    with pytest.raises(InputError, match="a says that text is burnt into its pixels"):
        read_dicom(data, "a")
    np.testing.assert_array_equal(read_dicom(data, "a", allow_burned_in=True).stored[0], RAMP)
    read_dicom(dicom_file(RAMP, BurnedInAnnotation="NO"), "a")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PixelData": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.5"}, "a holds no image (RT Plan Storage)"),
        ({"PixelData": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "no image (Basic Text SR Storage)"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "a holds no image but masks"),
        ({"PixelData": None, "SOPClassUID": "1.3.6.1.4.1.99.4711"}, "a holds no image (an object of no known kind)"),
    ],
)
def test_what_is_no_image_is_said(tags: dict[str, Any], said: str) -> None:
    with pytest.raises(NoImageError) as refusal:
        read_dicom(dicom_file(RAMP, **tags), "a")
    assert said in str(refusal.value)
    assert "4711" not in str(refusal.value)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PixelData": None}, "a is damaged: it holds no pixels"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "a has a RescaleSlope of 0"),
        ({"Rows": 40}, "a is damaged: its pixels are cut off"),
        ({"Rows": 0}, "a is an image of 1 x 0 x 5 pixels"),
        ({"Rows": 60000, "Columns": 60000}, "more than the 536870912 allowed"),
        ({"BitsStored": 12, "HighBit": 7}, "a stores 12 bits up to bit 7 of 16"),
        ({"PhotometricInterpretation": "NEMO"}, "a has pixels of no known kind"),
        ({"SamplesPerPixel": None}, "a is damaged, or against the standard"),
    ],
)
def test_damage_is_refused_with_what_is_wrong(tags: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_dicom(dicom_file(RAMP, **tags), "a")
    assert said in str(refusal.value)


def test_every_cut_and_many_flipped_bytes_end_in_an_error_or_an_image() -> None:
    """None in another exception, and none in a message that quotes the file."""
    data = dicom_file(np.arange(64, dtype=np.int16).reshape(8, 8), RescaleSlope="1.5", RescaleIntercept="-3", KVP=120)
    random = np.random.default_rng(3)
    damaged = [data[:length] for length in range(0, len(data), 7)]
    for _ in range(300):
        copy = bytearray(data)
        for place in random.integers(132, len(data), 3):
            copy[place] = random.integers(256)
        damaged.append(bytes(copy))
    refused = []
    for copy_ in damaged:
        try:
            read_dicom(copy_, "a")
        except InputError as error:
            refused.append(error)
    assert len(refused) > len(damaged) // 3
    assert not any(secret in str(error) for secret in SECRETS for error in refused)
    assert all(error.__cause__ is None for error in refused)
    assert all(error.__suppress_context__ or error.__context__ is None for error in refused)


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.formats.dicom._MAX_INFLATED", 2**16)
    data = pydicom_files()["test_files/image_dfl.dcm"].read_bytes()  # deflated: 4,637 bytes for 262,144 pixels
    with pytest.raises(InputError, match="a inflates to more than 65536 bytes"):
        read_dicom(data, "a")


def test_what_is_no_dicom_is_refused() -> None:
    assert not is_dicom(b"\x89PNG")
    for data in (b"", b"DICM", bytes(1000)):
        with pytest.raises(InputError, match="a is no DICOM file"):
            read_dicom(data, "a")


def test_without_pydicom_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom_file(RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'a is a DICOM file, which needs pydicom: pip install "freqgan\[medical\]"'):
        read_dicom(data, "a")


def test_pydicom_logs_and_warns_of_nothing(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Its messages quote values."""

    data = dicom_file(RAMP).replace(b"19700102", b"Nemo 4711")[: -len(RAMP.tobytes()) - 1]
    longer = dicom_file(RAMP, PixelData=RAMP.tobytes() + b"Nemo")
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for copy in (data, longer):
            try:
                read_dicom(copy, "a")
            except InputError:
                continue
    assert [str(warning.message) for warning in warned] == []
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""
