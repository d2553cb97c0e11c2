"""Images of a model as DICOM and NIfTI: values exact to the step, in the unit and the place of the data."""

from __future__ import annotations

import gzip
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom import config
from torch import Tensor

from cluster.formats.dicom import read_dicom, read_header, read_series
from cluster.formats.meaning import Meaning, SharedFacts, as_seen, shared_values
from cluster.formats.nifti import read_nifti
from cluster.formats.scan import Scale
from cluster.formats.source_format import Piece
from cluster.imaging.image_writing import formats_of, stored_arrays
from cluster.imaging.scan_writing import meaning_of, read_reference, scan_writer, shape_note
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from tests.support.runs import tiny_run_settings
from tests.support.scans import WRITTEN_TAGS, dicom_file, nibabel_files

CT: dict[str, Any] = {
    "offset": -1024.0, "slope": 1.0, "unit": "HU", "spacing": [2.5, 0.7, 0.6], "modality": "CT", "bits": 16,
}  # fmt: skip
FLOATS: dict[str, Any] = {"bit_depth": 32, "value_range": [-1024, 3071], "clip_values": True}
VOLUME: dict[str, Any] = {"frames": 4, "time_levels": 1, "noise": {"dimensions": 64}}


def model(**changes: Any) -> RunSettings:
    return tiny_run_settings("run", "data", **{"channels": 1, **changes})


def image(settings: RunSettings, seed: int = 0) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.rand((settings.channels * settings.frames, *settings.size), generator=noise) * 2.2 - 1.1


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that pydicom finds wrong in what it reads or writes is an error."""
    monkeypatch.setattr(config.settings, "_reading_validation_mode", config.RAISE)
    monkeypatch.setattr(config.settings, "_writing_validation_mode", config.RAISE)


# -- which numbers are written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "values", "scale", "unit"),
    [
        ({"bit_depth": 16}, CT, (1, -1024), "HU"),
        ({"bit_depth": 16}, {}, (1, 0), ""),
        ({"bit_depth": 16}, {"unit": "HU"}, (1, 0), ""),  # every scan has its own slope
        (FLOATS, CT, (1, -1024), "HU"),
        (FLOATS, {"unit": "HU"}, (1, -1024), "HU"),
        (FLOATS, CT | {"slope": 0.5, "unit": ""}, (0.5, -1024), ""),
        (FLOATS | {"value_range": [0, 100_000]}, CT, (1.52590219, 0), "HU"),
        (FLOATS | {"value_range": [-3, 0.125]}, {"unit": "Gy", "slope": 1.0, "offset": 0.0, "bits": 32},
         (4.76844435e-05, -3), "Gy"),
        (FLOATS | {"value_range": [0, 1]}, {}, (1.52590219e-05, 0), ""),
        ({"bit_depth": 8}, {}, (1, 0), ""),
        ({"bit_depth": 8, "channels": 3}, CT, (1, 0), ""),
    ],
)  # fmt: skip
def test_the_scale_is_that_of_the_data_or_fits_the_range(
    changes: dict[str, Any], values: dict[str, Any], scale: tuple[float, float], unit: str
) -> None:
    settings = model(**changes)
    meaning = meaning_of(settings, values)
    assert meaning.scale == Scale(*(Fraction(repr(number)) for number in scale))
    assert meaning.unit == unit
    if settings.value_range is not None:
        least, greatest = settings.value_range
        assert float(meaning.scale.offset) == least
        assert meaning.scale.slope * 65535 >= Fraction(repr(greatest)) - Fraction(repr(least))


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
@pytest.mark.parametrize("shape", [{}, VOLUME])
@pytest.mark.parametrize("changes", [{"bit_depth": 8}, {"bit_depth": 16}, FLOATS])
def test_values_come_back_to_the_step(kind: str, shape: dict[str, Any], changes: dict[str, Any]) -> None:
    settings = model(**changes, **shape)
    values = CT if settings.bit_depth > 8 else {}
    writer = scan_writer(kind, settings, values, "digest", 3)
    shown = image(settings)
    files = writer.files("00007", shown)
    assert files == writer.files("00007", shown)
    assert [file.name for file in files] == (
        ["00007.nii.gz"] if kind == "nifti" else [f"00007/00{n}.dcm" for n in range(1, 5)] if shape else ["00007.dcm"]
    )
    if kind == "nifti":
        (scan,) = read_nifti(files[0].data, "a")
    else:
        by_name = {file.name: file.data for file in files}
        scan = read_series(list(by_name), by_name.__getitem__, "a")
        assert {read_header(file.data, "a").series for file in files} == {read_header(files[0].data, "a").series}
    (array,) = stored_arrays(shown[None], settings)
    expected = array.reshape(settings.frames, *settings.size).astype(np.float64)
    if settings.bit_depth == 16:
        expected -= 1024
    step = 0.5 if settings.bit_depth == 32 else 0
    assert scan.values.shape == expected.shape
    assert np.abs(scan.values - expected).max() <= step
    assert (scan.values == np.rint(scan.values)).all()
    expected_spacing = (2.5, 0.7, 0.6) if values else (1, 1, 1)
    assert scan.spacing is not None
    np.testing.assert_allclose(scan.spacing, expected_spacing, rtol=1e-6)  # NIfTI has zooms of 32 bits
    if kind == "dicom" and values:
        assert (scan.unit, scan.facts["Modality"]) == ("HU", "CT")


@pytest.mark.parametrize("in_one_file", [False, True])
@pytest.mark.parametrize("changes", [{"bit_depth": 8, "channels": 3}, {"bit_depth": 16}, FLOATS])
def test_files_of_dicom_say_that_they_are_synthetic_and_nothing_else(
    changes: dict[str, Any], in_one_file: bool
) -> None:
    settings = model(**changes, **(VOLUME | {"noise": {"dimensions": 256}}))
    writer = scan_writer("dicom", settings, CT, "digest", 3, in_one_file=in_one_file)
    files = writer.files("00000", image(settings))
    assert files[0].name == ("00000.dcm" if in_one_file else "00000/001.dcm")
    assert len(files) == (1 if in_one_file else 4)
    for file in files:
        dataset = pydicom.dcmread(io.BytesIO(file.data))
        assert (dataset.PatientName, dataset.ConversionType) == ("SYNTHETIC", "SYN")
        assert {element.keyword for element in dataset.iterall()} <= WRITTEN_TAGS
        dataset.save_as(io.BytesIO(), enforce_file_format=True)


def test_other_images_of_one_number_have_other_identifiers() -> None:
    settings = model(**FLOATS)
    writer = scan_writer("dicom", settings, CT, "digest", 3)
    one, other = (pydicom.dcmread(io.BytesIO(writer.files("0", image(settings, seed))[0].data)) for seed in (1, 2))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.StudyInstanceUID == other.StudyInstanceUID


# -- references ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anatomical.nii", "example4d.nii.gz"])
def test_a_reference_of_nifti_gives_affine_and_zooms(name: str, tmp_path: Path) -> None:
    path = nibabel_files()[name]
    whole: Any = nibabel.load(path)
    if whole.ndim == 4:
        whole = whole.slicer[:, :, :4, 0]
        path = tmp_path / "one.nii"
        nibabel.save(whole, path)
    reference = read_reference(str(path))
    frames, *size = reference.shape
    settings = model(**FLOATS, **VOLUME | {"frames": 4})
    writer = scan_writer("nifti", settings, CT, "digest", 0, reference=reference)
    (file,) = writer.files("00000", image(settings))
    ours: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(file.data))
    np.testing.assert_array_equal(ours.affine, whole.affine)
    assert ours.header.get_zooms()[:3] == whole.header.get_zooms()[:3]
    assert f"{frames} x {size[0]} x {size[1]} voxels" in shape_note(reference, settings)
    assert ours.header["descrip"].item().startswith(b"SYNTHETIC: ")
    assert (ours.dataobj.slope, ours.dataobj.inter) == (1, 0)


def test_a_reference_of_dicom_gives_spacing(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_file(np.zeros((4, 5), np.int16), PixelSpacing=[0.5, 0.25], SliceThickness="3"))
    reference = read_reference(str(path))
    settings = model(**FLOATS)
    for kind in ("dicom", "nifti"):
        writer = scan_writer(kind, settings, CT, "digest", 0, reference=reference)
        data = writer.files("0", image(settings))[0].data
        scan = read_dicom(data, "a") if kind == "dicom" else read_nifti(data, "a")[0]
        assert scan.spacing == (3, 0.5, 0.25)
    assert shape_note(reference, settings) == ""


def test_what_cannot_be_a_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--reference .*none.nii: there is no such file"):
        read_reference(str(tmp_path / "none.nii"))
    (tmp_path / "a.png").write_bytes(b"no scan")
    with pytest.raises(InputError, match="is neither a NIfTI file"):
        read_reference(str(tmp_path / "a.png"))


def test_models_that_make_no_scans_are_refused() -> None:
    assert formats_of(model(channels=3))[-1] == "dicom"
    assert "nifti" not in formats_of(model(channels=3))
    assert not {"dicom", "nifti"} & set(formats_of(model(channels=3, bit_depth=16)))
    with pytest.raises(InputError, match=r"--format nifti: images of this model \(3 channels, 8 bits\)"):
        scan_writer("nifti", model(channels=3), {}, "digest", 0)
    with pytest.raises(InputError, match="--one-file with --format nifti"):
        scan_writer("nifti", model(), {}, "digest", 0, in_one_file=True)


# -- what data sets share --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"slope": 0}, "the slope 0"),
        ({"unit": 7}, "the unit 7"),
        ({"unit": "x" * 40}, "the unit 'x"),
        ({"spacing": [1, 0, 1]}, "more than 0 mm apart"),
        ({"spacing": [1, 1]}, "three numbers of mm"),
        ({"modality": "NEMO"}, "the modality 'NEMO'"),
    ],
)
def test_values_of_another_kind_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"x has {said}" if said.startswith("the") else said):
        Meaning.of(values, "x")


def test_facts_are_those_of_all_pieces() -> None:
    facts, plain = SharedFacts(), SharedFacts()
    for row in (0.5, 0.5):
        facts.add(Piece(np.zeros((2, 4, 6, 1), np.uint16), {"spacing": [2, row, 1], "Modality": "CT"}))
        plain.add(Piece(np.zeros((4, 6, 1), np.uint16)))
    assert facts.values({"unit": "HU"}) == {
        "unit": "HU", "spacing": [2, 0.5, 1], "modality": "CT", "size": [4, 6], "bits": 16,
    }  # fmt: skip
    assert plain.values({}) == {}
    facts.add(Piece(np.zeros((4, 6, 1), np.uint16), {"spacing": [2, 0.75, 1], "Modality": "CT"}))
    assert facts.values({}) == {"modality": "CT", "size": [4, 6], "bits": 16}


def test_a_model_sees_resampled_images_and_its_own_bits() -> None:
    values = CT | {"size": [512, 600]}
    seen = as_seen(values, 32, (128, 128), (512, 512))
    assert seen["spacing"] == [2.5, pytest.approx(2.8), pytest.approx(2.4)]
    assert (seen["slope"], seen["bits"]) == (1, 16)
    assert "spacing" not in as_seen(values, 32, (128, 128), None)
    assert as_seen(values, 8, (128, 128), (512, 512))["slope"] == 257
    assert as_seen(values | {"bits": 8}, 16, (128, 128), (512, 512))["slope"] == pytest.approx(1 / 257)


def test_data_sets_share_what_is_equal_in_all() -> None:
    assert shared_values([CT, CT]) == CT
    assert shared_values([]) == shared_values([CT, {}]) == {}
    other = shared_values([CT, CT | {"offset": 0.0}])
    assert "offset" not in other
    assert "slope" not in other
    assert other["unit"] == "HU"
