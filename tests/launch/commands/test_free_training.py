"""``freqgan train`` at a free pace: what is refused, who comes first, and a process for each component on one Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.run.free_run import find_free_run
from cluster.run.settings import RunSettings
from cluster.storage.lease import Lease
from launch.settings.load import dump_settings
from tests.campaigns.chaos.processes import MARK, end_marked
from tests.support.commands import ROOT, Outcome, command_line, refused, run_command
from tests.support.free_runs import digests_together, free_settings, stage_digests, trained_apart

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def settings(small_shards: Path, tmp_path: Path) -> RunSettings:
    return free_settings(tmp_path / "run", small_shards, plan={"bands": ["LL1", "HL1"]}, max_steps=2)


def train(capsys: Capsys, settings: RunSettings, *texts: str) -> Outcome:
    file = Path(settings.run).with_suffix(".yaml")
    file.write_text(dump_settings(settings))
    return run_command(capsys, "train", file, *texts)


def test_islands_by_the_command_line(capsys: Capsys, settings: RunSettings, tmp_path: Path) -> None:
    assert train(capsys, settings, "only=HL1").code == 0
    refusal = refused(run_command(capsys, "digest", settings.run))
    assert "no whole model yet: a checkpoint of LL1 is missing; train what is missing with `freqgan train" in refusal
    assert f"run={settings.run} only=LL1`" in refusal
    assert train(capsys, settings, "only=LL1").code == 0
    shown = run_command(capsys, "digest", settings.run)
    assert shown.code == 0
    assert stage_digests(settings.run) == digests_together(settings, tmp_path / "together")
    assert {path.name for path in Path(settings.run).iterdir()} >= {"config.yaml", "components"}


def test_what_cannot_train_apart_is_refused(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    mixed = free_settings(tmp_path / "mixed", small_shards, "mixed chain")
    refusal = refused(train(capsys, mixed, "only=HL1"))
    assert "only: HL1 exchanges outputs or feedback with LH1, HH1, image in every step" in refusal
    assert "name all of them (only=HL1,LH1,HH1,image), or use experts that train apart" in refusal
    assert "no stage is called 'HL2' (did you mean HL1" in refused(train(capsys, mixed, "only=HL2"))
    refusal = refused(train(capsys, mixed, "pace=together", "only=LL1"))
    assert "set pace=free, or leave only out" in refusal
    assert not (tmp_path / "mixed").exists()


def test_refusals_leave_the_run_as_it_is(capsys: Capsys, settings: RunSettings, held_out: Path) -> None:
    trained_apart(settings, "LL1")
    before = {path: path.stat().st_mtime_ns for path in Path(settings.run).rglob("*") if path.is_file()}
    assert "seed is 0 there and 3 here" in refused(train(capsys, settings, "seed=3", "only=LL1"))
    assert "are not those" in refused(train(capsys, settings, f"data={held_out}", "only=HL1"))
    record = Path(settings.run, "components/shared.json")
    stored = record.read_bytes()
    record.write_bytes(json.dumps({**json.loads(stored), "format": 0}).encode())
    for command in (("digest",), ("status",), ("generate", "--count", "2", "--out", "x")):
        assert "has format 0, this version reads 1" in refused(
            run_command(capsys, command[0], settings.run, *command[1:])
        )
    assert "has format 0, this version reads 1" in refused(train(capsys, settings, "only=LL1"))
    record.write_bytes(stored)
    after = {path: path.stat().st_mtime_ns for path in Path(settings.run).rglob("*") if path.is_file()}
    assert {path for path in before if after[path] != before[path]} <= {record}


def test_a_stage_in_use_is_left_and_the_next_one_taken(capsys: Capsys, settings: RunSettings) -> None:
    trained_apart(settings, "HL1")
    run = find_free_run(settings.run)
    assert run is not None
    with Lease(run.checkpoints_of("LL1"), "LEASE", "LL1", duration_s=1.0):
        assert f"components/LL1 is in use by process {os.getpid()} on" in refused(train(capsys, settings, "only=LL1"))
        both = train(capsys, settings, "only=LL1,HL1")
        assert both.code == 0
        assert "note: " in both.err
        assert f"components/LL1 is in use by process {os.getpid()} on" in both.err
        assert "HL1: done at step 2 of 2" in both.err


@contextmanager
def supervisor(settings: RunSettings, *texts: str) -> Iterator[subprocess.Popen[str]]:
    """``freqgan train`` as a process; all that it starts is gone afterwards."""
    file, mark = Path(settings.run).with_suffix(".yaml"), f"free{os.getpid()}"
    file.write_text(dump_settings(settings))
    environment = os.environ | {MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    with Path(settings.run).with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            command_line("train", file, "executor=ray", *texts), cwd=ROOT, env=environment, stderr=log, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        end_marked(mark)


def wait_for(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + 120
    while not there() and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.1)
    assert there()


def processes_of(component: str) -> list[int]:
    """Those that train it, of any run in a folder of this test's process."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"only={component}".encode() in words and f"{MARK}=free{os.getpid()}".encode() in environment:
                found.append(int(folder.name))
    return found


@pytest.mark.alone
@pytest.mark.long
def test_processes_on_one_ray_and_one_of_them_killed(settings: RunSettings, tmp_path: Path) -> None:
    longer = settings.model_copy(update={"max_steps": 40, "checkpoint_every": 5, "executor": "ray"})
    with supervisor(longer) as process:
        wait_for(lambda: list(Path(longer.run, "components/HL1/checkpoints").glob("0*/*/manifest.json")), process)
        victim = processes_of("HL1")
        for pid in victim:
            os.kill(pid, signal.SIGKILL)
        assert process.wait(240) == 0
    said = Path(longer.run).with_suffix(".log").read_text()
    assert victim
    assert "HL1: its process ended (signal SIGKILL); another goes on from its checkpoint" in said
    inline = longer.model_copy(update={"executor": "inline"})
    assert stage_digests(longer.run) == digests_together(inline, tmp_path / "together")


@pytest.mark.alone
@pytest.mark.long
def test_the_processes_of_a_supervisor_that_is_killed_end_with_it(settings: RunSettings) -> None:
    longer = settings.model_copy(update={"max_steps": 50})
    with supervisor(longer) as process:
        wait_for(lambda: processes_of("HL1") and processes_of("LL1"), process)
        time.sleep(1)
        process.kill()
        process.wait()
        end_s = time.monotonic() + 60
        while processes_of("HL1") + processes_of("LL1") and time.monotonic() < end_s:
            time.sleep(0.1)
        assert processes_of("HL1") + processes_of("LL1") == []
    with supervisor(longer) as process:
        assert process.wait(240) == 0
