"""``freqgan distil`` and ``freqgan evaluate --over-evaluations`` from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.data.packing import pack
from cluster.run.checkpoints import find_checkpoint
from launch.cli import main
from tests.support.commands import refused, run_command

Capsys = pytest.CaptureFixture[str]
FLOWS = (
    "experts.default=flow", "image_stage.enabled=false", "plan.strict_nesting=true", "plan.high_gans={1: 1}",
    "flow.coarse_network={width: 8, coarse_width: 8}", "flow.band_network={width: 8, coarse_width: 8}",
    "checkpoint_every=1", "executor=inline",
)  # fmt: skip
QUICK = ("distil.evaluations=2", "max_steps=2")


@pytest.fixture(scope="module")
def flows(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of flow experts."""
    folder = tmp_path_factory.mktemp("flows") / "run"
    with pytest.raises(SystemExit) as leaving:
        main(["train", "smoke", f"data={small_shards}", f"run={folder}", *FLOWS, "max_steps=3"])
    assert leaving.value.code == 0
    return folder


@pytest.fixture(scope="module")
def students(flows: Path) -> Path:
    """A run of their students."""
    folder = flows.parent / "students"
    with pytest.raises(SystemExit) as leaving:
        main(["distil", str(flows), f"run={folder}", *QUICK])
    assert leaving.value.code == 0
    return folder


def test_students_are_a_run_like_any_other(flows: Path, students: Path, capsys: Capsys, tmp_path: Path) -> None:
    settings = find_checkpoint(str(students)).settings
    theirs = find_checkpoint(str(flows)).settings
    assert [gan.kind for gan in settings.band_plan().gans] == ["student", "student"]
    assert (settings.images, settings.data) == (max(theirs.batch, theirs.images // 5), theirs.data)
    for command in (
        ("generate", students, "--count", 3, "--out", tmp_path / "images"),
        ("status", students),
        ("report", students),
        ("edit", students, "--resample", "HL1", "--count", 2, "--out", tmp_path / "edited"),
        ("super-resolve", students, tmp_path / "images" / "00000.png", "--out", tmp_path / "large"),
        ("distil", flows, "--dry-run", f"run={students}", *QUICK),
        ("plan", students / "config.yaml", "--nodes", "2xT4", "--estimate"),
    ):
        outcome = run_command(capsys, *command)
        assert outcome.code == 0, (command, outcome.err)
    assert (students / "report.html").is_file()


def test_the_same_command_resumes_with_the_teacher_that_is_there(
    flows: Path, students: Path, capsys: Capsys, tmp_path: Path
) -> None:
    run, step = tmp_path / "run", ("--at", 3)
    assert run_command(capsys, "distil", flows, *step, f"run={run}", "distil.evaluations=2", "max_steps=1").code == 0
    outcome = run_command(capsys, "distil", flows, f"run={run}", *QUICK)
    assert outcome.code == 0, outcome.err
    assert "resumes after step 1" in outcome.err
    digests = [run_command(capsys, "digest", folder).out for folder in (run, students)]
    assert digests[0] == digests[1]
    assert f"step 3 of {flows}" in refused(run_command(capsys, "distil", flows, "--at", 2, f"run={run}", *QUICK))
    outcome = run_command(capsys, "train", run / "config.yaml")
    assert outcome.code == 0, outcome.err


def test_what_cannot_be_distilled_is_refused(flows: Path, students: Path, capsys: Capsys, tmp_path: Path) -> None:
    out = f"run={tmp_path / 'out'}"
    settings = tmp_path / "changes.yaml"
    settings.write_text("levels: 2\n")
    for arguments, message in (
        ((tmp_path / "nothing", out), "nothing is not there"),
        ((flows,), "give a folder for the students, run="),
        ((students, out), "LL1=student.*flow experts alone can be distilled"),
        ((flows, settings, out), "levels is 1 there and 2 here"),
        ((flows, out, "distil.guidance.default=1"), "flow.guide_at is 0"),
        ((flows, out, "--best", "--at", 1), "--best and --at 1 name two checkpoints"),
        ((flows, out, "--at", 77), "no checkpoint of step 77"),
        ((flows, f"run={flows}"), "holds a training that is no distillation"),
        ((flows, out, "data="), "no shards are named"),
    ):
        assert re.search(message, refused(run_command(capsys, "distil", *arguments)))
    assert not (tmp_path / "out").exists()
    encode = ("encode", students, flows / "report" / "none.png", "--out", tmp_path / "noise")
    assert re.search("students.*encode with the run of their teacher", refused(run_command(capsys, *encode)))
    message = refused(run_command(capsys, "train", students / "config.yaml", out))
    assert f"freqgan distil RUN {out}" in message


# -- quality over evaluations ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 128 pictures of noise."""
    folder = tmp_path_factory.mktemp("real")
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for i in range(128):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / "pictures" / f"{i:03d}.png")
    pack(str(folder / "pictures"), str(folder / "shards"))
    return folder / "shards"


def test_metrics_by_evaluations(flows: Path, students: Path, real: Path, capsys: Capsys, tmp_path: Path) -> None:
    table = tmp_path / "curve.json"
    evaluate = ("evaluate", flows, "--data", real, "--count", 64, "--no-learned", "--over-evaluations", "2,1")
    whole = run_command(capsys, "evaluate", students, "--data", real, "--count", 64, "--no-learned")
    assert whole.code == 0, whole.err
    assert "no likelihoods: students make a band in one step" in whole.out
    outcome = run_command(capsys, *evaluate, "--students", students, "--json", table)
    assert outcome.code == 0, outcome.err
    assert "students: 1" in outcome.out
    curve = json.loads(table.read_text())
    assert curve.keys() == {"cross_band_frechet", "sliced_wasserstein", "feature_frechet"}
    for values in curve.values():
        assert list(values["evaluations"]) == ["1", "2"]
        assert len({*values["evaluations"].values(), values["students"], values["floor"]}) == 4

    noises = ("--over-condition-noise", "0,1e2", "--evaluations", 2, "--json", table)
    outcome = run_command(capsys, *evaluate, *noises)
    assert outcome.code == 0, outcome.err
    for name, values in json.loads(table.read_text()).items():
        assert values["evaluations"] == curve[name]["evaluations"]
        assert list(values["condition_noise"]) == ["0", "100"]
        assert values["condition_noise"]["0"] == values["evaluations"]["2"] != values["condition_noise"]["100"]


def test_what_cannot_be_measured_over_evaluations_is_refused(
    flows: Path, students: Path, real: Path, capsys: Capsys
) -> None:
    for arguments, message in (
        ((flows, "--over-evaluations", "1,zwei"), "'zwei' is no number from 1 to 1000"),
        ((flows, "--over-evaluations", "1,0"), "'0' is no number from 1 to 1000"),
        ((students, "--over-evaluations", "1"), "the run has no flow experts"),
        ((flows, "--over-evaluations", "1", "--students", flows), "--students: the run has no students"),
        ((flows, "--students", students), "give --over-evaluations"),
        ((flows, "--over-condition-noise", "0,-1"), "'-1' is no number from 0 on"),
        ((flows, "--over-condition-noise", "0,nan"), "'nan' is no number from 0 on"),
        ((flows, "--over-evaluations", "1", "--evaluations", "2"), "--evaluations 2: --over-evaluations says"),
        ((flows, "--over-evaluations", "1", "--guidance", "1"), "have no guides to lead away from"),
        ((flows, "--over-evaluations", "1", "--parts"), "leave --size, --parts, .* and --conditioning-run out"),
    ):
        command = ("evaluate", arguments[0], "--data", real, "--count", 64, *arguments[1:])
        assert re.search(message, refused(run_command(capsys, *command)))
