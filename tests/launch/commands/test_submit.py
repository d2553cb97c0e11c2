"""Trainings as jobs of a Ray head with a dashboard and a token: submit, follow, fail, stop, resume, refuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.run.checkpoints import find_checkpoint
from launch.commands.submit import job_name, pack_job
from launch.settings.load import load_settings
from tests.support.commands import ROOT, Outcome, command_line, refused, run_command
from tests.support.ray_head import Head, free_ports


def command(head: Head, *arguments: object, token: str | None = None) -> Outcome:
    variables = head.variables if token is None else head.variables | {"RAY_AUTH_TOKEN": token}
    done = subprocess.run(
        command_line(*arguments), cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def submit(head: Head, data: Path, run: Path, *more: object) -> Outcome:
    return command(head, "submit", "smoke", f"data={data}", f"run={run}", "--address", head.address, "--follow", *more)


@pytest.mark.alone
def test_followed_to_the_end_and_submitted_again(
    capsys: pytest.CaptureFixture[str], ray_head: Head, small_shards: Path, tmp_path: Path
) -> None:
    first = submit(ray_head, small_shards, tmp_path / "run", "max_steps=3")
    assert first.code == 0, first
    assert "checkpoint of step 3" in first.out  # of the job's own log
    assert "report:" in first.out
    assert "submitted freqgan-" in first.err
    again = submit(ray_head, small_shards, tmp_path / "run")
    assert again.code == 0, again
    assert "resumes after step 3" in again.out
    assert find_checkpoint(str(tmp_path / "run")).step == 6
    quiet = tmp_path / "quiet"
    assert run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={quiet}").code == 0
    assert find_checkpoint(str(quiet)).digest() == find_checkpoint(str(tmp_path / "run")).digest()
    status = command(ray_head, "status", ray_head.address)
    assert "SUCCEEDED" in status.out
    assert "step 6" in status.out
    assert "done" in run_command(capsys, "status", tmp_path / "run").out


FLOWS = ("experts=flow", "image_stage=none", "plan.strict_nesting=true", "plan.high_gans.1=1", "pace=free",
         "flow.coarse_network.width=8", "flow.coarse_network.coarse_width=8", "flow.band_network.width=8",
         "flow.band_network.coarse_width=8")  # fmt: skip
"""Two tiny experts that exchange nothing, ISLANDS."""
ISLANDS = ("LL1", "HL-LH-HH1")


@pytest.mark.alone
def test_two_jobs_at_once_train_one_run_as_islands(
    capsys: pytest.CaptureFixture[str], ray_head: Head, small_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(submit, ray_head, small_shards, run, *FLOWS, f"only={name}") for name in ISLANDS]
        for outcome in (one.result() for one in jobs):
            assert outcome.code == 0, outcome
            assert "the jobs of its other stages must see it too" in outcome.err
    whole = find_checkpoint(str(run))
    assert whole.stage_steps == dict.fromkeys(ISLANDS, 6)
    status = command(ray_head, "status", ray_head.address)
    assert status.code == 0, status
    for name in ISLANDS:
        assert re.search(rf" {name} +6 of 6", status.out), status.out
    training = ("smoke", f"data={small_shards}", f"run={run}", *FLOWS)
    unknown = run_command(capsys, "submit", *training, "only=LL2", "--address", ray_head.address)
    assert "only: no stage is called 'LL2'" in refused(unknown)
    other = run_command(capsys, "train", *training, "only=LL1", "seed=7")
    assert "was begun with other settings: seed is 0 there and 7 here" in refused(other)


def test_jobs_of_one_run_have_names_of_their_own() -> None:
    run = ("data=/shards", "run=s3://bucket/runs/faces", *FLOWS)
    names = [job_name(load_settings("smoke", [*run, *only])) for only in ((), (), ("only=LL1",), ("only=HL-LH-HH1",))]
    assert len(set(names)) == len(names)
    shown = [name.rpartition("-")[0].removeprefix("freqgan-s3-bucket-runs-faces") for name in names]
    assert shown == ["", "", "-LL1", "-HL-LH-HH1"]
    long = load_settings("smoke", [*run, "run=s3://bucket/" + "a/" * 500, "only=LL1,HL-LH-HH1"])
    assert re.fullmatch(r"freqgan-[A-Za-z0-9-]{1,91}", job_name(long))


@pytest.mark.alone
def test_the_exit_code_of_the_training_comes_through(ray_head: Head, small_shards: Path, tmp_path: Path) -> None:
    outcome = submit(ray_head, small_shards / "missing", tmp_path / "run")
    assert outcome.code == 2, outcome
    assert f"error: no .tar shards in {small_shards}/missing" in outcome.out
    assert "ended with exit code 2" in outcome.err


@pytest.mark.alone
@pytest.mark.long
def test_stopped_is_no_success_and_goes_on(ray_head: Head, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    longer = ("images=400000", "checkpoint_every=20")
    following = ("--address", ray_head.address, "--follow")
    process = subprocess.Popen(
        command_line("submit", "smoke", f"data={small_shards}", f"run={run}", *longer, *following),
        cwd=ROOT, env=os.environ | ray_head.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_checkpoint(run)
    script = (
        "import sys; from ray.job_submission import JobSubmissionClient as C; c = C(sys.argv[1]); "
        "[c.stop_job(j.submission_id) for j in c.list_jobs() if j.submission_id and j.status == 'RUNNING']"
    )
    stopping = [sys.executable, "-c", script, ray_head.address]
    subprocess.run(stopping, env=os.environ | ray_head.variables, check=True, timeout=120)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, (out, err)
    assert "was stopped; submitting the same run again goes on from its last checkpoint" in err
    step = find_checkpoint(str(run)).step
    assert step > 0
    again = submit(ray_head, small_shards, run, *longer, f"max_steps={step + 4}")
    assert again.code == 0, again
    assert f"resumes after step {step}" in again.out


def wait_for_checkpoint(run: Path) -> None:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        if (run / "checkpoints" / "LATEST").exists():
            return
        time.sleep(0.2)
    raise AssertionError(f"no checkpoint in {run}")


@pytest.mark.alone
def test_a_wrong_token_and_an_address_where_nothing_is(ray_head: Head, small_shards: Path, tmp_path: Path) -> None:
    training = ("submit", "smoke", f"data={small_shards}", f"run={tmp_path}/run")
    wrong = command(ray_head, *training, "--address", ray_head.address, token="f" * 32)
    assert wrong.code == 2, wrong
    assert "refuses the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in wrong.err
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    missing = command(ray_head, *training, "--address", nowhere)
    assert missing.code == 2, missing
    assert f"no Ray dashboard answers at {nowhere}" in missing.err
    for outcome in (wrong, missing):
        assert "Traceback" not in outcome.err
        assert ray_head.token not in outcome.out + outcome.err
    train = ("train", "smoke", f"data={small_shards}", f"run={tmp_path}/other", "executor=ray", "--address")
    joining = command(ray_head, *train, ray_head.gcs_address, token="f" * 32)
    assert joining.code == 2, joining
    assert f"--address {ray_head.gcs_address}: the cluster there refuses the token" in joining.err
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_submitted_is_refused_before_anybody_is_asked(
    capsys: pytest.CaptureFixture[str], small_shards: Path, tmp_path: Path
) -> None:
    to = ("--address", f"http://127.0.0.1:{free_ports(1)[0]}")
    relative = run_command(capsys, "submit", "smoke", "data=shards", f"run={tmp_path}/run", *to)
    assert "data=shards: a job runs elsewhere; give an absolute path" in refused(relative)
    training = ("submit", "smoke", f"data={small_shards}", f"run={tmp_path}/run")
    shown = run_command(capsys, *training, "conditioning=features", "conditioning.run=base", *to)
    assert "conditioning.run=base: a job runs elsewhere; give an absolute path" in refused(shown)
    unset = run_command(capsys, *training, *to, "--follow", "--env", "NOT_THERE")
    assert "this environment has no such variable" in refused(unset)
    assert not (tmp_path / "run").exists()


def test_what_a_job_takes_with_it(small_shards: Path, tmp_path: Path) -> None:
    settings = load_settings("smoke", [f"data={small_shards}", f"run={tmp_path}/run"])
    (tmp_path / "code").mkdir()
    pack_job(tmp_path / "code", settings, installed=False)
    names = {path.relative_to(tmp_path / "code").parts[0] for path in (tmp_path / "code").rglob("*") if path.is_file()}
    assert names == {"settings.yaml", "freqgan", "cluster", "launch"}
    assert (tmp_path / "code" / "launch" / "pages" / "templates" / "report.html").is_file()
    files = [path for path in (tmp_path / "code").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".yaml", ".html", ".md", ".css", ".js", ".svg"}  # sources
    assert sum(path.stat().st_size for path in files) < 3 * 2**20
    (tmp_path / "bare").mkdir()
    pack_job(tmp_path / "bare", settings, installed=True)
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["settings.yaml"]
