from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from cluster.data.packing import PackReport, pack
from cluster.data.settings import ImagePolicy
from cluster.data.stored_images import read_image
from cluster.formats.scan import ScanOptions
from cluster.formats.source_format import PieceOptions
from freqgan.errors import InputError
from tests.support.commands import refused, run_command
from tests.support.scan_outcomes import DICOM_OUTCOMES, NIFTI_OUTCOMES, secrets
from tests.support.scans import SECRETS, dicom_file, nibabel_files, pydicom_files, series

Capsys = pytest.CaptureFixture[str]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def packed(
    source: Path, options: PieceOptions | None = None
) -> tuple[PackReport, list[dict[str, bytes]], dict[str, Any]]:
    """The report, the samples by extension in the order of their keys, and what the index says of values."""
    shards = source.parent / "shards"
    report = pack(str(source), str(shards), options=options or PieceOptions())
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[extension] = file.read()
    return (
        report,
        [samples[key] for key in sorted(samples)],
        json.loads((shards / "index.json").read_text()).get("values", {}),
    )


def pixels(sample: dict[str, bytes]) -> np.ndarray[Any, Any]:
    if "png" in sample:
        return np.asarray(Image.open(io.BytesIO(sample["png"])))
    return np.asarray(np.load(io.BytesIO(sample["image.npy"]), allow_pickle=False))


def fields(sample: dict[str, bytes]) -> dict[str, Any]:
    return dict(json.loads(sample["json"]))


def scans(**options: Any) -> PieceOptions:
    return PieceOptions(scans=ScanOptions(**options))


def test_every_slice_is_an_image_with_the_label_of_its_folder(tmp_path: Path) -> None:
    files = {f"b/{name}": data for name, data in series(4).items()}
    files["a/other.dcm"] = dicom_file(np.full((4, 5), -1000, np.int16))
    report, samples, values = packed(write(tmp_path / "in", files))
    assert (report.images, report.classes) == (5, ["a", "b"])
    assert (fields(samples[0])["offset"], fields(samples[0])["slope"]) == (-1000, 100)
    shared = {"size": [4, 5], "bits": 16, "modality": "CT"}
    assert values == {"offset": -1000, "slope": 100, "unit": "HU", **shared}
    found = sorted((sample["cls"].decode(), float(pixels(sample)[0, 0] * values["slope"] - 1000)) for sample in samples)
    assert found == [("0", -1000), ("1", 0), ("1", 100), ("1", 200), ("1", 300)]
    assert all(pixels(sample).dtype == np.uint16 for sample in samples)
    assert fields(samples[0])["Modality"] == "CT"


def test_a_series_is_one_sample_in_the_order_of_its_slices(tmp_path: Path) -> None:
    files = series(5) | {
        name.replace("ct/", "mr/"): data for name, data in series(3, SeriesInstanceUID="2.25.999.9").items()
    }
    report, samples, values = packed(write(tmp_path / "in", files), scans(are_volumes=True))
    assert report.images == 2
    by_frames = {fields(sample)["frames"]: sample for sample in samples}
    strip = pixels(by_frames[5])
    assert strip.shape == (20, 5)
    assert (strip.reshape(5, 4, 5)[:, 0, 0] * values["slope"] + values["offset"]).tolist() == [0, 100, 200, 300, 400]
    assert fields(by_frames[3])["spacing"] == [2.5, 0.5, 0.75]


def test_a_model_is_shown_values_in_their_unit(tmp_path: Path) -> None:
    _, samples, _ = packed(write(tmp_path / "in", series(4)), scans(are_volumes=True))
    sample = samples[0]
    policy = ImagePolicy(size=(4, 5), channels=1, bit_depth=32, frames=4, value_range=(-1000, 1000))
    clip = read_image(sample["png"], "a", policy, fields(sample))
    np.testing.assert_allclose(clip[:, 0, 0], [0, 0.1, 0.2, 0.3], atol=1e-7)


def test_clips_of_slices_are_cut_from_volumes(tmp_path: Path) -> None:
    report, samples, values = packed(write(tmp_path / "in", series(8)), PieceOptions(frames=3, stride=2))
    assert (report.images, report.tally.left_over) == (1, 2)
    assert fields(samples[0])["spacing"] == [5, 0.5, 0.75]
    found = pixels(samples[0]).reshape(3, 4, 5)[:, 0, 0] * values["slope"] + values["offset"]
    assert found.tolist() == [0, 200, 400]


def test_a_zip_of_a_series_gives_what_its_folder_gives(tmp_path: Path) -> None:
    files = series(4)
    _, in_folder, values = packed(write(tmp_path / "1" / "in", files), scans(are_volumes=True))
    (tmp_path / "2").mkdir()
    with zipfile.ZipFile(tmp_path / "2" / "in.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    _, in_zip, of_zip = packed(tmp_path / "2" / "in.zip", scans(are_volumes=True))
    assert (in_zip, of_zip) == (in_folder, values)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "in", series(4))
    for name in ("one", "two"):
        pack(str(tmp_path / "in"), str(tmp_path / name))
    for name in ("shard-00000.tar", "index.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_values_are_shared_or_own_or_floats(tmp_path: Path) -> None:
    files = {
        "a.dcm": dicom_file(np.array([[1, 2], [3, 4]], np.int16), RescaleSlope="0.001", RescaleIntercept="0"),
        "b.dcm": dicom_file(np.array([[0, 9000], [1, 2]], np.int16), RescaleSlope="1", RescaleIntercept="-7"),
    }
    write(tmp_path / "in", files)
    with pytest.raises(InputError, match="levels, and 16 bits have 65536: keep each scan's own slope"):
        packed(tmp_path / "in")
    _, samples, values = packed(tmp_path / "in", scans(values="own"))
    assert values == {"unit": "HU", "size": [2, 2], "bits": 16, "modality": "CT"}
    slopes = {fields(sample)["slope"]: sample for sample in samples}
    assert slopes.keys() == {0.001, 1}
    back = pixels(slopes[0.001]) * 0.001 + fields(slopes[0.001])["offset"]
    np.testing.assert_allclose(back, [[0.001, 0.002], [0.003, 0.004]])
    (tmp_path / "again").mkdir()
    write(tmp_path / "again" / "in", files)
    _, samples, values = packed(tmp_path / "again" / "in", scans(values="float32"))
    assert values == {"offset": 0, "slope": 1, "unit": "HU", "size": [2, 2], "bits": 32, "modality": "CT"}
    assert sorted(float(pixels(sample)[0, 0]) for sample in samples) == [-7, pytest.approx(0.001)]
    assert all(pixels(sample).dtype == np.float32 for sample in samples)


def test_nifti_gives_slices_along_an_axis_volumes_and_frames_of_a_time(tmp_path: Path) -> None:
    path = nibabel_files()["anatomical.nii"]
    expected = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    source = write(tmp_path / "in", {"x.nii": path.read_bytes(), "x.json": b'{"PatientName": "Nemo"}'})
    report, samples, values = packed(source, scans(are_volumes=True))
    assert report.others == 1  # what lies beside scans says whose they are
    strip = pixels(samples[0]).astype(int) + values["offset"]
    np.testing.assert_array_equal(strip.reshape(25, 41, 33), expected.transpose(2, 1, 0)[:, ::-1])
    assert "Nemo" not in str(samples)
    other = write(tmp_path / "2" / "in", {"x.nii": path.read_bytes()})
    report, samples, _ = packed(other, scans(axis="sagittal"))
    assert report.images == 33
    assert pixels(samples[0]).shape == (25, 41)
    clip = write(tmp_path / "3" / "in", {"f.nii": nibabel_files()["functional.nii"].read_bytes()})
    with pytest.raises(InputError, match="holds 20 volumes one after another in time"):
        packed(clip)
    report, samples, values = packed(clip, PieceOptions(frames=8, scans=ScanOptions(has_time=True)))
    assert report.images == 6
    assert fields(samples[0])["fps"] == 0.5
    assert values["slope"] == float(np.float32(0.07540696859359741))


def test_what_holds_no_image_is_passed_over_and_said(tmp_path: Path, capsys: Capsys) -> None:
    known = pydicom_files()
    files = series(2) | {
        "DICOMDIR": known["test_files/dicomdirtests/DICOMDIR"].read_bytes(),
        "plan.dcm": known["test_files/rtplan.dcm"].read_bytes(),
        "report": known["test_files/reportsi.dcm"].read_bytes(),
    }
    write(tmp_path / "in", files)
    outcome = run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "2 images" in outcome.out
    for line in (
        "not packed: DICOMDIR holds no image (Media Storage Directory Storage): leave it out",
        "not packed: plan.dcm holds no image (RT Plan Storage): leave it out",
        "not packed: report holds no image (Basic Text SR Storage): leave it out",
    ):
        assert line in outcome.out


def test_damaged_scans_are_all_named(tmp_path: Path, capsys: Capsys) -> None:
    files = series(3) | {"ct/bad.dcm": b"x" * 500, "ct/cut.dcm": series(1)["ct/00.dcm"][:-30]}
    message = refused(run_command(capsys, "shards", "pack", write(tmp_path / "in", files), tmp_path / "out"))
    assert "2 of 5 images cannot be packed" in message
    assert "bad.dcm" in message
    assert "is no DICOM file" in message
    assert "cut.dcm" in message
    assert "pixels are cut off" in message
    assert not (tmp_path / "out").exists()


def test_options_of_the_command(tmp_path: Path, capsys: Capsys) -> None:
    files = {"a.dcm": dicom_file(np.zeros((4, 4), np.int16), BurnedInAnnotation="YES")}
    command = ("shards", "pack", write(tmp_path / "in", files), tmp_path / "out")
    assert "text is burnt into its pixels" in refused(run_command(capsys, *command))
    assert "--axis up: give one of axial, coronal, sagittal" in refused(run_command(capsys, *command, "--axis", "up"))
    assert "--values int8: give one of" in refused(run_command(capsys, *command, "--values", "int8"))
    both = refused(run_command(capsys, *command, "--volumes", "--frames", 4))
    assert "--frames cuts volumes into clips, and --volumes leaves them whole" in both
    assert run_command(capsys, *command, "--allow-burned-in", "--volumes").code == 0


def test_kinds_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    colours = dicom_file(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"is grey and .* in colour: pack each kind by itself"):
        packed(write(tmp_path / "1" / "in", series(1) | {"ct/c.dcm": colours}))
    units = dicom_file(np.zeros((4, 4), np.int16), Modality="MR")
    with pytest.raises(InputError, match=r"is in HU and ct/m.dcm in .* in no known unit"):
        packed(write(tmp_path / "2" / "in", series(1) | {"ct/m.dcm": units}))
    with pytest.raises(InputError, match="is a DICOM file, and others are not"):
        packed(write(tmp_path / "3" / "in", series(1) | {"ct/x.nii": nibabel_files()["anatomical.nii"].read_bytes()}))


def test_colours_are_packed_as_they_are(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    _, samples, values = packed(write(tmp_path / "in", {"c.dcm": dicom_file(colours, Modality="US")}))
    assert values == {"size": [4, 5], "bits": 8, "modality": "US"}
    np.testing.assert_array_equal(pixels(samples[0]), colours)


def test_no_name_or_identifier_is_in_shards_or_said(tmp_path: Path, capsys: Capsys) -> None:
    write(tmp_path / "in", series(4))
    outcome = run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out")
    said = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir()) + (outcome.out + outcome.err).encode()
    assert [secret for secret in SECRETS if secret.encode() in said] == []


def test_without_the_libraries_it_is_said_once_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in", series(3))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'^ct/00.dcm in .* which needs pydicom: pip install "freqgan\[medical\]"$'):
        packed(tmp_path / "in")


@pytest.mark.parametrize("name", sorted(DICOM_OUTCOMES))
def test_every_file_of_pydicom_goes_through_pack_and_leaves_no_text(name: str, tmp_path: Path, capsys: Capsys) -> None:
    data = pydicom_files()[name].read_bytes()
    write(tmp_path / "in", {"a.dcm": data})
    kind = "float32" if "dose" in name else "shared"  # doses have more than 16 bits
    outcome = run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out", "--values", kind)
    said = (outcome.out + outcome.err).encode()
    expected = DICOM_OUTCOMES[name]
    if re.match(r"\d", expected):
        assert outcome.code == 0, outcome.err
        frames = expected.split("x")[0]
        assert f"{frames} image" in outcome.out
        hidden = secrets(pydicom.dcmread(io.BytesIO(data)))
        assert hidden
        said += b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
        # Checksums and sizes in tars are digits, among which some happen to be those of a number.
        assert [text for text in hidden if text in said and (len(text) > 5 or not text.isdigit())] == []
    else:
        message = refused(outcome)
        assert "holds no images" in message or expected.removeprefix("a ") in message
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(name for name in NIFTI_OUTCOMES if not name.endswith(".hdr")))
def test_every_file_of_nibabel_goes_through_pack(name: str, tmp_path: Path, capsys: Capsys) -> None:
    extension = name.partition(".")[2].replace("dconn.", "")
    write(tmp_path / "in", {f"a.{extension}": nibabel_files()[name].read_bytes()})
    kind = "float32" if "float32" in NIFTI_OUTCOMES[name] else "shared"
    command = ("shards", "pack", tmp_path / "in", tmp_path / "out", "--volumes", "--values", kind)
    outcome = run_command(capsys, *command)
    if NIFTI_OUTCOMES[name].startswith("("):
        assert outcome.code == 0, outcome.err
        assert "1 image" in outcome.out
    else:
        assert NIFTI_OUTCOMES[name] in refused(outcome)
