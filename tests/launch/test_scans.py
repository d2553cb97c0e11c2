"""Scans from pack to DICOM and NIfTI: slices of CT as floats, volumes of MR as integers of 16 bits."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom import config

import freqgan
from cluster.data.packing import pack
from cluster.formats.dicom import read_dicom
from cluster.formats.scan import ScanOptions
from cluster.formats.source_format import PieceOptions
from cluster.imaging.image_writing import stored_arrays
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import open_source
from cluster.run.trained_model import open_model
from freqgan.errors import InputError
from tests.support.commands import refused, run_command
from tests.support.runs import tiny_run_settings, trained, whole_and_resumed
from tests.support.scans import SECRETS, WRITTEN_TAGS, dicom_file, nibabel_files, pydicom_files
from tests.support.serving import FLOWS

Capsys = pytest.CaptureFixture[str]
COUNT, SIDE, SLICES = 132, 16, 4
FLOATS: dict[str, Any] = {"channels": 1, "bit_depth": 32, "value_range": [-1024, 3071], "clip_values": True}
VOLUMES: dict[str, Any] = {
    "channels": 1, "bit_depth": 16, "frames": SLICES, "time_levels": 1, "noise": {"dimensions": 64},
}  # fmt: skip


def crops(values: NDArray[Any], *sides: int) -> list[NDArray[Any]]:
    """COUNT parts of ``values`` of the size ``sides``, at random places."""
    rng, parts = np.random.default_rng(0), []
    for _ in range(COUNT):
        first = [int(rng.integers(0, whole - side + 1)) for whole, side in zip(values.shape, sides, strict=True)]
        parts.append(values[tuple(slice(at, at + side) for at, side in zip(first, sides, strict=True))])
    return parts


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of parts of pydicom's CT, 16 x 16 pixels of 1.5 and 0.75 mm, and of nibabel's head, 4 x 16 x 16."""
    folder = tmp_path_factory.mktemp("scans")
    for name in ("ct", "mr"):
        (folder / name).mkdir()
    ct = pydicom.dcmread(pydicom_files()["test_files/CT_small.dcm"])
    for number, part in enumerate(crops(ct.pixel_array, 2 * SIDE, 2 * SIDE)):
        tags = {"RescaleIntercept": "-1024", "RescaleSlope": "1", "PixelSpacing": [0.75, 0.375], "SliceThickness": 5}
        (folder / "ct" / f"{number:03d}.dcm").write_bytes(dicom_file(part.astype(np.int16), **tags))
    head = np.asarray(nibabel.load(nibabel_files()["anatomical.nii"]).dataobj)  # type: ignore[attr-defined]
    for number, part in enumerate(crops(head, SIDE, SIDE, SLICES)):
        image = nibabel.Nifti1Image(part.astype(np.int16), np.diag([-2.0, 2.0, 3.0, 1.0]))
        nibabel.save(image, folder / "mr" / f"{number:03d}.nii")
    pack(str(folder / "ct"), str(folder / "slices"), shard_samples=60)
    options = PieceOptions(scans=ScanOptions(are_volumes=True))
    pack(str(folder / "mr"), str(folder / "volumes"), shard_samples=60, options=options)
    return folder


@pytest.fixture(scope="module")
def runs(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Slices by flow experts, volumes by GANs."""
    folder = tmp_path_factory.mktemp("runs")
    trained(tiny_run_settings(folder / "slices", scans / "slices", max_steps=2, **FLOATS, **FLOWS))
    trained(tiny_run_settings(folder / "volumes", scans / "volumes", max_steps=2, **VOLUMES))
    return {name: folder / name for name in ("slices", "volumes")}


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that pydicom finds wrong in what it reads is an error."""
    monkeypatch.setattr(config.settings, "_reading_validation_mode", config.RAISE)


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        ("slices", FLOATS),
        ("volumes", VOLUMES | FLOWS),
        pytest.param("slices", FLOATS | FLOWS, marks=pytest.mark.long),
        pytest.param("volumes", VOLUMES, marks=pytest.mark.long),
        pytest.param("volumes", VOLUMES | {"bit_depth": 8}, marks=pytest.mark.long),
        pytest.param("volumes", VOLUMES | FLOATS | {"value_range": [0, 8000]}, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_ends_with_the_bytes_of_one_in_one_go(
    data: str, changes: dict[str, Any], scans: Path, tmp_path: Path
) -> None:
    def settings(name: str, steps: int) -> Any:
        return tiny_run_settings(tmp_path / name, scans / data, max_steps=steps, **changes)

    whole, parts = whole_and_resumed(settings)
    assert whole.digest() == parts.digest()
    assert whole.values == parts.values != {}


def test_what_numbers_mean_travels_from_shards_to_runs(scans: Path, runs: dict[str, Path]) -> None:
    slices, volumes = (find_checkpoint(str(runs[name])).values for name in ("slices", "volumes"))
    assert (slices["unit"], slices["modality"], slices["slope"], slices["bits"]) == ("HU", "CT", 1, 16)
    assert slices["spacing"] == [5, 1.5, 0.75]  # pixels of 32 x 32 become 16 x 16
    assert volumes["spacing"] == [3, 2, 2]
    index = json.loads((scans / "volumes" / "index.json").read_text())["values"]
    assert (volumes["offset"], volumes["slope"], volumes["unit"]) == (index["offset"], index["slope"], "")


@pytest.mark.usefixtures("strict")
def test_slices_become_dicom_in_hounsfield_units(runs: dict[str, Path], capsys: Capsys, tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = ("generate", runs["slices"], "--count", 3, "--format", "dicom", "--out", tmp_path / name)
        outcome = run_command(capsys, *command)
        assert outcome.code == 0, outcome.err
    _, model = open_model(str(runs["slices"]))
    expected = stored_arrays(model.sample(0, 3).images, model.settings)
    for number, array in enumerate(expected):
        file = tmp_path / "one" / f"{number:05d}.dcm"
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
        scan = read_dicom(file.read_bytes(), "a")
        assert (scan.unit, scan.spacing, scan.facts["Modality"]) == ("HU", (5, 1.5, 0.75), "CT")
        assert np.abs(scan.values[0] - array[:, :, 0]).max() <= 0.5
        dataset = pydicom.dcmread(file)
        assert {element.keyword for element in dataset.iterall()} <= WRITTEN_TAGS
        assert not any(secret.encode() in file.read_bytes() for secret in SECRETS)
    assert (tmp_path / "one" / "grid.png").exists()


@pytest.mark.usefixtures("strict")
def test_volumes_become_series_files_of_many_frames_and_nifti(
    runs: dict[str, Path], scans: Path, capsys: Capsys, tmp_path: Path
) -> None:
    reference = scans / "mr" / "000.nii"
    asked: dict[str, tuple[object, ...]] = {
        "series": ("--format", "dicom"),
        "one": ("--format", "dicom", "--one-file"),
        "nifti": ("--format", "nifti", "--reference", reference),
        "npy": ("--format", "npy"),
    }
    for name, options in asked.items():
        outcome = run_command(capsys, "generate", runs["volumes"], "--count", 2, "--out", tmp_path / name, *options)
        assert outcome.code == 0, outcome.err
        assert outcome.err == ""
    checkpoint = find_checkpoint(str(runs["volumes"]))
    stored = np.load(tmp_path / "npy" / "00001.npy")[..., 0]
    values = stored.astype(np.float64) * checkpoint.values["slope"] + checkpoint.values["offset"]
    for number in range(SLICES):
        one = pydicom.dcmread(tmp_path / "series" / "00001" / f"{number + 1:03d}.dcm")
        np.testing.assert_array_equal(one.pixel_array, stored[number])
        assert (one.PixelSpacing, one.ImagePositionPatient[2]) == ([2, 2], 3 * number)
    whole = pydicom.dcmread(tmp_path / "one" / "00001.dcm")
    np.testing.assert_array_equal(whole.pixel_array, stored)
    written: Any = nibabel.load(tmp_path / "nifti" / "00001.nii.gz")
    source: Any = nibabel.load(reference)
    np.testing.assert_array_equal(written.affine, source.affine)
    assert written.header.get_zooms() == source.header.get_zooms()
    np.testing.assert_array_equal(np.asarray(written.dataobj).transpose(2, 1, 0)[:, ::-1], values)


@pytest.mark.usefixtures("brief_critic", "brief_likelihood")
@pytest.mark.parametrize("name", ["slices", "volumes"])
def test_every_command_takes_a_run_of_scans(
    name: str, runs: dict[str, Path], scans: Path, capsys: Capsys, tmp_path: Path
) -> None:
    run = runs[name]
    commands: list[tuple[object, ...]] = [
        ("evaluate", run, "--data", scans / name, "--count", 64, "--no-learned"),
        ("report", run),
        ("export", run, "--out", tmp_path / "export"),
        ("generate", tmp_path / "export", "--count", 1, "--format", "dicom", "--one-file", "--out", tmp_path / "a"),
        ("generate", run, "--count", 1, "--format", "dicom", "--one-file", "--out", tmp_path / "b"),
        ("generate", run, "--count", 1, "--format", "nifti", "--out", tmp_path / "c"),
    ]
    for command in commands:
        outcome = run_command(capsys, *command)
        assert outcome.code == 0, (command, outcome.err)
    assert (tmp_path / "a" / "00000.dcm").read_bytes() == (tmp_path / "b" / "00000.dcm").read_bytes()
    header = gzip.decompress((tmp_path / "c" / "00000.nii.gz").read_bytes())
    image: Any = nibabel.Nifti1Image.from_bytes(header)
    spacing = find_checkpoint(str(run)).values["spacing"]
    assert image.header.get_zooms() == tuple(spacing[::-1])
    loaded = freqgan.load_model(str(tmp_path / "export"))
    _, model = open_model(str(run))
    assert torch.equal(loaded.sample(3, 1).images, model.sample(3, 1).images)


def test_options_of_scans_that_mean_nothing_are_refused(runs: dict[str, Path], capsys: Capsys, tmp_path: Path) -> None:
    command = ("generate", runs["slices"], "--count", 1, "--out", tmp_path / "out")
    assert "--one-file is for scans" in refused(run_command(capsys, *command, "--one-file"))
    assert "--reference is for scans" in refused(run_command(capsys, *command, "--reference", "a.nii"))
    missing = refused(run_command(capsys, *command, "--format", "nifti", "--reference", tmp_path / "a.nii"))
    assert "there is no such file" in missing
    assert not (tmp_path / "out").exists()


# -- what shards say, and what is refused before the first step ------------------------------------


def test_shards_say_what_is_stored(scans: Path, capsys: Capsys, tmp_path: Path) -> None:
    slices = run_command(capsys, "shards", "info", scans / "slices", "--grid", tmp_path / "slices.png")
    assert slices.code == 0, slices.err
    text = " ".join(slices.out.split())
    assert "pixels 32 px, 1 channel of 16 bits" in text
    assert " HU (offset -886, slope 1)" in text
    volumes = run_command(capsys, "shards", "info", scans / "volumes", "--grid", tmp_path / "volumes.png")
    assert volumes.code == 0, volumes.err
    assert "clips 4 frames of 16 px, 1 channel of 16 bits" in " ".join(volumes.out.split())
    for name in ("slices", "volumes"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("data", "changes", "said"),
    [
        ("volumes", FLOATS, "has 4 frames, and the model's images are no clips: set frames=4"),
        ("slices", VOLUMES, "has 1 frame, and the model's clips have 4: set frames=1, or pack clips"),
        ("volumes", VOLUMES | {"frames": 8}, "has 4 frames, and the model's clips have 8: pack longer clips"),
        ("slices", FLOATS | {"channels": 12, "noise": {"dimensions": 64}}, "is a picture, grey or in colour"),
    ],
)
def test_data_of_another_kind_is_refused_before_the_first_step(
    data: str, changes: dict[str, Any], said: str, scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        trained(tiny_run_settings(tmp_path / "run", scans / data, max_steps=1, **changes))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_data_of_two_meanings_are_refused(scans: Path, tmp_path: Path) -> None:
    pattern = f"{scans}/{{slices,volumes}}/*.tar"
    other = scans.parent / "other"
    shutil.copytree(scans / "slices", other)
    content = json.loads((other / "index.json").read_text())
    (other / "index.json").write_text(json.dumps(content | {"values": content["values"] | {"offset": 0.0}}))
    both = f"{{{scans / 'slices'},{other}}}/*.tar"
    open_source(tiny_run_settings(tmp_path / "run", both, **FLOATS))  # which is shown values
    with pytest.raises(InputError, match=r"with offset -886 and slope 1, and in .* in HU, with offset 0 and slope 1"):
        open_source(tiny_run_settings(tmp_path / "run", both, channels=1, bit_depth=16))
    with pytest.raises(InputError, match=r"are in HU, with offset -886 and slope 1, and in .* in no known unit"):
        trained(tiny_run_settings(tmp_path / "run", pattern, max_steps=1, **FLOATS))


def test_old_runs_without_values_are_read(runs: dict[str, Path]) -> None:
    checkpoint = find_checkpoint(str(runs["slices"]))
    del checkpoint.manifest["data"]["values"]
    assert checkpoint.values == {}
