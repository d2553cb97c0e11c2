from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.formats.dicom import group_series, read_header, read_series
from cluster.formats.scan import Scan
from freqgan.errors import InputError
from tests.support.scans import dicom_file, series


def volume(files: dict[str, bytes]) -> Scan:
    """The one series of ``files``."""
    (headers,) = group_series([read_header(data, name) for name, data in files.items()])
    return read_series([header.name for header in headers], files.__getitem__, "the series ct")


def test_slices_are_in_the_order_of_their_positions() -> None:
    scan = volume(series(6))
    assert scan.values[:, 0, 0].tolist() == [0, 100, 200, 300, 400, 500]
    assert scan.spacing == (2.5, 0.5, 0.75)
    assert scan.facts == {"Modality": "CT"}


def test_oblique_slices_are_ordered_along_their_normal() -> None:
    """The normal of these points to -x, so that the order is the reverse of that of x."""
    files = {}
    for k in range(4):
        place: dict[str, Any] = {
            "ImagePositionPatient": [10 - 3 * k, 7 * (k % 2), 0], "ImageOrientationPatient": [0, 0, 1, 0, 1, 0],
        }  # fmt: skip
        files[f"{3 - k}"] = dicom_file(np.full((2, 2), k, np.int16), **place)
    scan = volume(files)
    assert scan.values[:, 0, 0].tolist() == [0, 1, 2, 3]


def test_without_positions_numbers_order() -> None:
    scan = volume(series(4, ImagePositionPatient=None, SliceThickness=5))
    assert scan.values[:, 0, 0].tolist() == [300, 200, 100, 0]
    assert scan.spacing == (5, 0.5, 0.75)


def test_a_missing_slice_is_named_by_its_neighbours() -> None:
    with pytest.raises(InputError, match=r"1 of the slices of a series are missing between ct/02.dcm and ct/04.dcm"):
        volume(series(6, gap=3))
    with pytest.raises(InputError, match="1 of the slices of a series are missing"):
        volume(series(6, gap=3, ImagePositionPatient=None))


def test_a_doubled_slice_is_named() -> None:
    files = series(4)
    files["ct/again.dcm"] = files["ct/01.dcm"]
    with pytest.raises(InputError, match=r"ct/01.dcm and ct/again.dcm are the same slice of a series"):
        volume(files)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PixelSpacing": [0.5, 0.8]}, "the pixels of ct/00.dcm are 0.5 x 0.75 mm and those of ct/odd.dcm"),
        ({"PixelSpacing": None}, "of no known size"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "lie in different directions"),
        ({"ImagePositionPatient": None}, "ct/odd.dcm has no position, ct/00.dcm of the same series has one"),
        ({"ImagePositionPatient": [0, 0, 11.2]}, "slices of a series are 3.7 mm apart between .* others 2.5"),
    ],
)
def test_unequal_slices_are_named(tags: dict[str, Any], said: str) -> None:
    files = series(4)
    place: dict[str, Any] = {
        "ImagePositionPatient": [0, 0, 10], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.75],
    }  # fmt: skip
    files["ct/odd.dcm"] = dicom_file(np.zeros((4, 5), np.int16), **(place | tags))
    with pytest.raises(InputError, match=said):
        volume(files)


def test_unequal_sizes_are_named() -> None:
    files = series(3)
    place: dict[str, Any] = {"ImagePositionPatient": [0, 0, 7.5], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    files["ct/odd.dcm"] = dicom_file(np.zeros((5, 5), np.int16), PixelSpacing=[0.5, 0.75], **place)
    with pytest.raises(InputError, match=r"ct/00.dcm has 5 x 4 pixels and ct/odd.dcm of the same series 5 x 5"):
        volume(files)


def test_slices_without_order_are_refused() -> None:
    files = {name: dicom_file(np.zeros((2, 2), np.int16)) for name in ("a", "b")}
    with pytest.raises(InputError, match="a has neither a position nor a number"):
        volume(files)


def test_series_are_told_apart_and_files_of_many_frames_are_by_themselves() -> None:
    files = series(3) | {
        "b": dicom_file(np.zeros((2, 2), np.int16), SeriesInstanceUID="2.25.999.8"),
        "c": dicom_file(np.zeros((3, 2, 2), np.int16), NumberOfFrames=3),
    }
    groups = group_series([read_header(data, name) for name, data in files.items()])
    assert [[header.name for header in group] for group in groups] == [
        ["b"], ["c"], ["ct/00.dcm", "ct/01.dcm", "ct/02.dcm"],
    ]  # fmt: skip
    assert not any("2.25" in header.series for group in groups for header in group)


def test_slices_with_slopes_of_their_own_are_one_volume() -> None:
    files = {}
    for k in range(3):
        tags: dict[str, Any] = {"RescaleSlope": ["0.1", "0.3", "0.25"][k], "RescaleIntercept": "0"}
        place = {"ImagePositionPatient": [0, 0, k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        files[str(k)] = dicom_file(np.full((2, 2), 10, np.int16), **(tags | place))
    assert volume(files).values[:, 0, 0].tolist() == pytest.approx([1, 3, 2.5])
    assert volume(files).stored.dtype == np.int32


def test_slices_of_different_units_are_refused() -> None:
    files = series(2)
    place: dict[str, Any] = {"ImagePositionPatient": [0, 0, 5], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    files["ct/02.dcm"] = dicom_file(np.zeros((4, 5), np.int16), PixelSpacing=[0.5, 0.75], RescaleType="OD", **place)
    with pytest.raises(InputError, match="the series ct: its slices are in HU and OD"):
        volume(files)
