"""Disks without space: every writer of a run's folder says so in the words of storage, and leaves whole records."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.data.quarantine import Quarantine, QuarantinedImage
from cluster.evaluation.background import Evaluation
from cluster.execution.callbacks import StepRecord
from cluster.execution.failure_policy import Recovery
from cluster.ray_engine.session_folder import ray_folder
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.storage.checksummed_files import write_files
from cluster.storage.folder import open_folder
from cluster.training.train import train
from freqgan.errors import RunError
from launch.console.progress import ProgressReporter
from launch.run_folder.evaluations import EvaluationLog
from launch.run_folder.event_log import EventLog
from launch.run_folder.failures import FailureLog
from launch.run_folder.metrics import MetricsLog
from tests.support.commands import ROOT
from tests.support.runs import tiny_run_settings, trained

FULL = "no space is left on the disk; free some or name another folder"


def step(number: int) -> StepRecord:
    return StepRecord(number, 8 * number, float(number), 1.0, {"LL1": {"loss_d": 0.5, "loss_g": 0.25}})


def score(number: int) -> Evaluation:
    return Evaluation(number, 8 * number, {"spectrum_db": {"value": 1.0, "floor": 1.0, "ratio": 1.0}})


def failure(number: int) -> Recovery:
    return Recovery(number, ("LL1",), "it died", "replay", 0, 1, 0.5)


def writers(folder: Path) -> dict[str, Callable[[], object]]:
    """By the file that each writes; every call writes a little more."""
    metrics, events = MetricsLog(folder / "metrics.jsonl", 0), EventLog(folder / "tensorboard", 1)
    scores, storage = EvaluationLog(folder / "evaluations.jsonl", 0), open_folder(str(folder))
    failures = FailureLog(folder / "failures.jsonl")
    quarantine, numbers = Quarantine(storage, 10**6), iter(range(1, 10**6))

    def tell() -> None:
        events.add({"loss": 1.0}, next(numbers))
        events.flush()

    def leave_out() -> None:
        number = next(numbers)
        quarantine.add([QuarantinedImage("a.tar", f"{number}.png", "damaged", 0, number, number)], 10**6)

    return {
        "metrics.jsonl": lambda: metrics.append(step(next(numbers))),
        "tensorboard": tell,
        "evaluations.jsonl": lambda: scores.append(score(next(numbers))),
        "failures.jsonl": lambda: failures.append(failure(next(numbers))),
        "quarantine.jsonl": leave_out,
        "samples": lambda: storage.write(f"samples/{next(numbers)}.png", bytes(9000)),
        "checkpoints": lambda: write_files(f"{folder}/checkpoints", {f"{next(numbers)}": bytes(9000)}),
    }


def refusal(write: Callable[[], object]) -> str:
    try:
        for _ in range(10_000):
            write()
    except RunError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def check_whole(folder: Path) -> None:
    """Every line and every event is whole."""
    for path in folder.glob("*.jsonl"):
        assert path.read_bytes().endswith(b"\n")
        assert all(json.loads(line) for line in path.read_text().splitlines()), path
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert events.Scalars("loss")
    assert not list(folder.rglob("*.part"))


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """As ``ulimit -f`` and quotas do: a write beyond it is an error of the operating system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_every_writer_tells_of_files_that_may_not_grow(tmp_path: Path) -> None:
    each = writers(tmp_path)
    for name, write in each.items():
        write()
        with files_of_at_most(8000):
            told = refusal(write)
        assert f"{tmp_path}/{name}" in told
        assert "files may not grow that large here; raise the limit (ulimit -f)" in told
    check_whole(tmp_path)
    for write in each.values():
        write()
    check_whole(tmp_path)


def test_scores_can_be_cut_where_files_may_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    log = EvaluationLog(path, 0)
    for number in range(100):
        log.append(score(number))
    before = path.read_bytes().splitlines(keepends=True)
    with files_of_at_most(2000):
        cut = EvaluationLog(path, 50)
        assert "evaluations.jsonl: files may not grow" in refusal(lambda: cut.append(score(51)))
    assert path.read_bytes().splitlines(keepends=True) == before[:51]


# -- a disk that is full -----------------------------------------------------------------------------


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "fill").open("ab", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
    assert shutil.disk_usage(disk).free == 0


class Filling(ProgressReporter):
    """Fills the disk of its run while that is being trained."""

    def on_step(self, record: StepRecord) -> None:
        if record.step == 3:
            fill(Path(self.settings.run).parent)
        super().on_step(record)


def settings_for(run: Path, data: str) -> RunSettings:
    return tiny_run_settings(run, data, plan={"bands": ["LL1"]}, max_steps=20, checkpoint_every=20)


def on_a_small_disk(disk: Path, data: str) -> None:
    """What the test below runs in a process of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    (disk / "logs").mkdir()
    each = writers(disk / "logs")
    for write in each.values():
        write()
    fill(disk)
    for name, write in each.items():
        told = refusal(write)
        assert FULL in told and f"{disk}/logs/{name}" in told, told  # noqa: PT018
    check_whole(disk / "logs")
    os.environ["RAY_TMPDIR"] = str(disk)
    told = refusal(ray_folder().check)
    assert f"no space is left on the disk of {disk}/ray (RAY_TMPDIR)" in told, told
    (disk / "fill").unlink()
    settings = settings_for(disk / "run", data)
    with Filling(settings) as reporter:
        told = refusal(lambda: train(settings, reporter))
    assert FULL in told and f"{disk}/run/" in told, told  # noqa: PT018
    (disk / "fill").unlink()
    (disk / "run" / "checkpoints" / "LEASE").unlink()  # which could not be given back, and this process lives
    with ProgressReporter(settings) as reporter:
        train(settings, reporter)
    print("digest", find_checkpoint(settings.run).digest())


def test_on_a_full_disk_it_is_told_and_the_same_command_goes_on(small_shards: Path, tmp_path: Path) -> None:
    may_mount = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*may_mount, "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    script = "import sys; from pathlib import Path; from tests.cluster.storage import test_full_disk as t; "
    script += "t.on_a_small_disk(Path(sys.argv[1]), sys.argv[2])"
    with tempfile.TemporaryDirectory(dir="/tmp") as disk:  # a short path, as Ray needs it
        done = subprocess.run(
            [*may_mount, sys.executable, "-c", script, disk, str(small_shards)],
            cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"digest {trained(settings_for(tmp_path / 'run', str(small_shards)))[2]}" in done.stdout
