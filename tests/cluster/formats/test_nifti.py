from __future__ import annotations

import gzip
import struct
import sys
from typing import Any, get_args

import nibabel
import numpy as np
import pytest

from cluster.formats.nifti import is_nifti, read_nifti, write_nifti
from cluster.formats.scan import Axis, NoImageError
from freqgan.errors import InputError
from tests.support.scan_outcomes import NIFTI_OUTCOMES
from tests.support.scans import nibabel_files

SLOPE_AT, INTER_AT = 112, 116
"""Where a header of NIfTI-1 has scl_slope and scl_inter (nifti1.h); nibabel hides what it reads there."""
CLIPS = {"example4d.nii.gz": (24, (2, 96, 128)), "example_nifti2.nii.gz": (12, (2, 20, 32)),
         "functional.nii": (3, (20, 21, 17))}  # fmt: skip


def nifti(array: np.ndarray[Any, Any], affine: Any = None, **fields: Any) -> bytes:
    image = nibabel.Nifti1Image(array, np.diag([-2.0, -3, 4, 1]) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    return image.to_bytes()


def scaled(array: np.ndarray[Any, Any], slope: float, inter: float) -> bytes:
    data = bytearray(nifti(array))
    data[SLOPE_AT : INTER_AT + 4] = struct.pack("<ff", slope, inter)
    return bytes(data)


@pytest.mark.parametrize("name", sorted(nibabel_files()))
def test_every_file_of_nibabel_is_read_or_refused(name: str) -> None:
    try:
        (scan,) = read_nifti(nibabel_files()[name].read_bytes(), name)
        values = scan.values
        said = f"{scan.stored.shape} of {scan.stored.dtype}, {values.min():g} to {values.max():g}"
    except InputError as error:
        said = str(error)
        assert said.startswith(name)
    assert NIFTI_OUTCOMES[name] in said


@pytest.mark.parametrize("name", CLIPS)
def test_time_becomes_frames(name: str) -> None:
    path = nibabel_files()[name]
    scans = read_nifti(path.read_bytes(), name, time=True)
    assert (len(scans), scans[0].stored.shape) == CLIPS[name]
    image: Any = nibabel.load(path)
    expected = np.asarray(image.dataobj)  # all three lie as LAS: slices as they are, rows reversed
    for index, scan in enumerate(scans):
        # Its own rounding is that of a product in float64.
        np.testing.assert_allclose(scan.values, expected[:, ::-1, index].transpose(2, 1, 0), rtol=1e-12)
    assert scans[0].fps == pytest.approx(1 / float(image.header.get_zooms()[3]))


@pytest.mark.parametrize("axis", get_args(Axis))
@pytest.mark.parametrize("name", ["anatomical.nii", "reoriented_anat_moved.nii", "standard.nii.gz"])
def test_volumes_come_back_with_affine_zooms_and_values(name: str, axis: Axis) -> None:
    path = nibabel_files()[name]
    (scan,) = read_nifti(path.read_bytes(), name, axis=axis)
    written = gzip.decompress(write_nifti(scan.values, scan.placement))
    reference: Any = nibabel.load(path)
    image = nibabel.Nifti1Image.from_bytes(written)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(reference.dataobj))
    np.testing.assert_array_equal(image.affine, reference.affine)
    assert image.header.get_zooms() == reference.header.get_zooms()
    for field in ("srow_x", "quatern_b", "qoffset_x", "qform_code", "sform_code"):
        np.testing.assert_array_equal(image.header[field], reference.header[field])
    assert struct.unpack_from("<ff", written, SLOPE_AT) == (1, 0)


def test_slices_run_in_one_way_however_the_file_lies() -> None:
    """Up, from front to back, and from right to left: the same volume in all 48 ways that a file may have it."""
    array = np.random.default_rng(0).integers(-9, 9, (2, 3, 4)).astype(np.int16)  # (left, back, up)
    image = nibabel.Nifti1Image(array, np.diag([-2.0, -3, 4, 1]))
    expected = {"axial": array.transpose(2, 1, 0), "coronal": array.transpose(1, 2, 0)[:, ::-1],
                "sagittal": array.transpose(0, 2, 1)[:, ::-1]}  # fmt: skip
    spacing = {"axial": (4, 3, 2), "coronal": (3, 4, 2), "sagittal": (2, 4, 3)}
    count = 0
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for flips in np.ndindex(2, 2, 2):
            turned = image.as_reoriented(np.array([order, 1 - 2 * np.array(flips)]).T)
            for axis in get_args(Axis):
                (scan,) = read_nifti(turned.to_bytes(), "a", axis=axis)
                np.testing.assert_array_equal(scan.stored, expected[axis])
                assert scan.spacing == spacing[axis]
            count += 1
    assert count == 48


def test_slope_and_offset_are_exact() -> None:
    array = np.array([[[-32768, 32767, 5]]], np.int16)
    (scan,) = read_nifti(scaled(array, 0.1, -7.5), "a")
    assert float(scan.scale.slope) == float(np.float32(0.1))
    assert scan.scale.offset == -7.5
    assert sorted(scan.stored.ravel().tolist()) == [-32768, 5, 32767]
    (negative,) = read_nifti(scaled(array, -0.5, 1), "a")
    assert sorted(negative.values.ravel().tolist()) == sorted((array.ravel() * -0.5 + 1).tolist())
    assert negative.scale.slope > 0


def test_whole_floats_are_integers_and_others_floats() -> None:
    (whole,) = read_nifti(nifti(np.array([[[1, -1024, 3]]], np.float32)), "a")
    assert whole.stored.dtype == np.int64
    (half,) = read_nifti(nifti(np.array([[[1, 0.5, 3]]], np.float64)), "a")
    assert half.stored.dtype == np.float64


def test_colours_are_colours() -> None:
    rgb = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"], rgb["G"] = 200, np.arange(4)
    (scan,) = read_nifti(nifti(rgb), "a")
    assert scan.is_colour
    assert scan.stored[3, 0, 0].tolist() == [200, 3, 0]


def test_units_of_length_are_mm() -> None:
    array = np.zeros((2, 3, 4), np.int16)
    (scan,) = read_nifti(nifti(array, xyzt_units=1), "a")  # metres
    assert scan.spacing == (4000, 3000, 2000)


@pytest.mark.parametrize("values", [
    np.arange(24, dtype=np.int64).reshape(2, 3, 4) * 2900 - 5, np.arange(24).reshape(2, 3, 4) % 5 * 0.5,
    np.arange(24, dtype=np.int64).reshape(2, 3, 4) - 9, np.arange(24.0).reshape(2, 3, 4),
    np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 2700,
])  # fmt: skip
def test_values_come_back_from_a_file_without_reference(values: np.ndarray[Any, Any]) -> None:
    data = write_nifti(values, spacing=(4, 2, 3))
    (scan,) = read_nifti(data, "a")
    np.testing.assert_array_equal(scan.values, values)
    assert scan.spacing == (4, 2, 3)
    assert data == write_nifti(values, spacing=(4, 2, 3))
    assert nibabel.aff2axcodes(nibabel.Nifti1Image.from_bytes(gzip.decompress(data)).affine) == ("L", "P", "S")


@pytest.mark.parametrize(("values", "said"), [
    (np.zeros((2, 2)), "is no volume"), (np.full((1, 1, 1), 2**40), "does not fit into 32 bits"),
    (np.full((1, 1, 2), np.nan), "2 values that are no finite numbers"),
    (np.zeros((1, 1, 40000)), "sides from 1 to 32767"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(values: np.ndarray[Any, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_nifti(values)


def test_no_text_of_a_header_comes_out() -> None:
    from nibabel.nifti1 import Nifti1Extension

    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4))
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = b"Nemo 4711"
    image.header.extensions.append(Nifti1Extension("comment", b"Nemo 4711"))
    data = image.to_bytes()
    assert data.count(b"Nemo") == 5
    (scan,) = read_nifti(data, "a")
    assert "Nemo" not in repr(scan)
    assert b"Nemo" not in gzip.decompress(write_nifti(scan.values, scan.placement))


def test_every_cut_and_many_flipped_bytes_end_in_an_error_or_a_volume() -> None:
    data = nifti(np.arange(120, dtype=np.int16).reshape(4, 5, 6), descrip=b"Nemo 4711")
    random, damaged = np.random.default_rng(3), [data[:length] for length in range(0, len(data), 9)]
    for _ in range(300):
        copy = bytearray(data)
        for place in random.integers(0, 352, 3):
            copy[place] = random.integers(256)
        damaged.append(bytes(copy))
    damaged += [gzip.compress(data)[:length] for length in range(3, 300, 9)]
    refused = []
    for copy_ in damaged:
        try:
            read_nifti(copy_, "a", max_values=10**6)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > len(damaged) // 3
    assert all(message.startswith("a ") and "Nemo" not in message for message in refused)


def test_what_is_cut_off_says_so() -> None:
    data = nifti(np.zeros((4, 5, 6), np.int16))
    with pytest.raises(InputError, match=r"a is cut off after 582 of 592 bytes"):
        read_nifti(data[:-10], "a")
    with pytest.raises(InputError, match=r"a is cut off or damaged \(gzip\)"):
        read_nifti(gzip.compress(data)[:-20], "a")


def test_a_bomb_is_inflated_no_further_than_its_header_says() -> None:
    data = gzip.compress(nifti(np.arange(24, dtype=np.int16).reshape(2, 3, 4)) + bytes(2**24))
    assert read_nifti(data, "a")[0].stored.shape == (4, 3, 2)
    with pytest.raises(InputError, match="more than the 10 allowed"):
        read_nifti(data, "a", max_values=10)
    far = bytearray(nifti(np.zeros((2, 2, 2), np.int16)))
    far[108:112] = struct.pack("<f", 1e12)  # vox_offset
    with pytest.raises(InputError, match="a says that it is 999999995920 bytes long"):
        read_nifti(gzip.compress(bytes(far)), "a")


def test_complex_numbers_and_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="a holds numbers of the type complex64"):
        read_nifti(nifti(np.zeros((2, 2, 2), np.complex64)), "a")
    with pytest.raises(InputError, match="a holds one volume and no time"):
        read_nifti(nifti(np.zeros((2, 2, 2), np.int16)), "a", time=True)
    with pytest.raises(InputError, match="the axis is 'oblique'"):
        read_nifti(b"", "a", axis="oblique")  # type: ignore[arg-type]
    with pytest.raises(NoImageError):
        read_nifti(nifti(np.zeros((2, 2, 2, 1, 3), np.int16)), "a")
    flat = bytearray(nifti(np.zeros((2, 2, 2), np.int16)))
    flat[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    with pytest.raises(InputError, match="an affine that is no map of space"):
        read_nifti(bytes(flat), "a")


def test_without_nibabel_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r'a is a NIfTI file, which needs nibabel: pip install "freqgan\[medical\]"'):
        read_nifti(b"", "a")
    with pytest.raises(InputError, match="a NIfTI file needs nibabel"):
        write_nifti(np.zeros((1, 1, 1)))


def test_files_are_told_by_their_names() -> None:
    assert is_nifti("A.NII.GZ")
    assert is_nifti("a.nii")
    assert not is_nifti("a.gz")
