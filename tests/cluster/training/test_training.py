"""Training end to end in one process: every interruption gives the same bytes. (In Ray: cluster/ray_engine.)"""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from cluster.execution.callbacks import StepRecord
from cluster.execution.coordinator import MOST_SAVES
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import measure_statistics, open_source
from cluster.stages.host import build_chain, build_host, tensor_of
from cluster.stages.replicas import StageReplica
from cluster.storage.folder import open_folder
from cluster.training.train import train
from freqgan.errors import InputError, RunError
from freqgan.tensor_dicts import tensors_of
from tests.support.runs import Events, tiny_run_settings, trained
from tests.support.s3_server import BUCKET as S3_BUCKET
from tests.support.scripts import start_training, wait_for_step

LONG = pytest.mark.long


def test_the_digest_sees_every_setting_that_counts(quiet: str, small_shards: Path, tmp_path: Path) -> None:
    assert trained(tiny_run_settings(tmp_path / "a", small_shards))[2] == quiet
    assert trained(tiny_run_settings(tmp_path / "b", small_shards, seed=1))[2] != quiet


def test_float16_between_stages_resumes_and_rounds_little(quiet: str, small_shards: Path, tmp_path: Path) -> None:
    half = {"exchange": "float16"}
    one_go = trained(tiny_run_settings(tmp_path / "one", small_shards, **half))
    assert one_go[2] != quiet
    run = tmp_path / "two"
    trained(tiny_run_settings(run, small_shards, max_steps=4, **half))
    assert trained(tiny_run_settings(run, small_shards, **half))[2] == one_go[2]
    full = trained(tiny_run_settings(tmp_path / "full", small_shards))[1].records[-1].stages
    for name, numbers in one_go[1].records[-1].stages.items():
        assert numbers["loss_d"] == pytest.approx(full[name]["loss_d"], rel=0.02)
        if "feedback" in numbers:
            assert numbers["feedback"] == pytest.approx(full[name]["feedback"], rel=0.1)


def test_a_finished_run_is_left_as_it_is(quiet: str, small_shards: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards)
    trained(settings)
    result, events, digest = trained(settings)
    assert (result.step, events.records, events.checkpoints, digest) == (6, [], [], quiet)


@pytest.mark.parametrize("kill_at", [pytest.param(1, marks=LONG), 3, pytest.param(4, marks=LONG)])
def test_kill_9_and_resume_equals_one_go(kill_at: int, quiet: str, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start_training(run, small_shards, 6) as process:
        wait_for_step(process, kill_at)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    _, events, digest = trained(tiny_run_settings(run, small_shards))
    assert digest == quiet
    assert events.first_step <= kill_at + 2


def test_reads_shards_from_and_writes_checkpoints_to_s3(quiet: str, small_shards: Path, s3_server: str) -> None:
    bucket = f"s3://{S3_BUCKET}"
    source, target = open_folder(str(small_shards)), open_folder(f"{bucket}/data/small")
    for name in source.list():
        target.write(name, source.read(name))
    run = f"{bucket}/runs/{int(time.time())}"
    settings = tiny_run_settings(run, f"{bucket}/data/small", max_steps=3)
    assert trained(settings)[0].step == 3
    _, events, digest = trained(tiny_run_settings(run, f"{bucket}/data/small"))
    assert events.first_step == 3
    assert digest == quiet
    assert "checkpoints/LATEST" in open_folder(run).list()


def test_steps_are_idempotent_and_refuse_gaps(small_shards: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards)
    source = open_source(settings)
    statistics = {k: v.numpy() for k, v in measure_statistics(source).tensors().items()}
    host = build_host(settings, StageReplica("LL1", 0, 1), build_chain(settings, statistics))
    batch = source.ingest().batch(0, 8)
    images, labels = tensor_of(batch.images), tensor_of(batch.targets)
    first = host.step(0, images, labels, {})
    weights = {name: tensor.clone() for name, tensor in tensors_of(host.stage.state_dict()).items()}
    again = host.step(0, images, labels, {})
    assert (again.outputs["LL1"] == first.outputs["LL1"]).all()
    assert all((weights[name] == tensor).all() for name, tensor in tensors_of(host.stage.state_dict()).items())
    with pytest.raises(RunError, match="LL1 has done 1 steps and was asked for step 2"):
        host.step(2, images, labels, {})
    with pytest.raises(RunError, match="asked to save step 3"):
        host.save(3, "attempt")


def test_a_second_run_of_one_name_is_refused_while_the_first_lives(small_shards: Path, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", 100_000
    process = start_training(run, small_shards, steps, pause_s=0.1, lease_s=3.0)
    wait_for_step(process, 2 * MOST_SAVES + 3)  # before the step after so many saves the first is in the folder
    assert process.stdout is not None
    reader = threading.Thread(target=process.stdout.read)  # a full pipe would stop it
    reader.start()
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"run is in use by process {process.pid} on .*choose another run"):
        trained(tiny_run_settings(run, small_shards, max_steps=steps, images=8 * steps))
    assert time.monotonic() - started < 60
    process.kill()
    process.wait()
    reader.join()
    process.stdout.close()
    step = find_checkpoint(str(run)).step + 2
    _, events, _ = trained(tiny_run_settings(run, small_shards, max_steps=step, images=8 * steps))
    assert events.ended == (step, "done")  # the dead hold nothing


def test_a_coordinator_that_was_overtaken_commits_nothing(small_shards: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards)
    record = {"host": "elsewhere", "pid": 1, "epoch": 9, "until_s": time.time() + 60, "nonce": "x"}

    class Overtaken(Events):
        def on_step(self, record_: StepRecord) -> None:
            super().on_step(record_)
            if record_.step == 3:  # after the checkpoint of step 2
                folder = open_folder(settings.run).child("checkpoints")
                folder.write("LEASE", json.dumps(record).encode())
                pointer = json.loads(folder.read("LATEST")) | {"epoch": 9, "first_step": 2}
                folder.write("LATEST", json.dumps(pointer).encode())

    with pytest.raises(RunError, match=r"later lease \(epoch 9, ours is 1\); the checkpoint of step 4 is not"):
        train(settings, Overtaken())
    latest = json.loads(open_folder(settings.run).read("checkpoints/LATEST"))
    assert (latest["step"], latest["epoch"]) == (2, 9)
    assert find_checkpoint(settings.run).step == 2


def test_another_runs_settings_are_refused_with_the_keys(small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(tiny_run_settings(run, small_shards, max_steps=1))
    with pytest.raises(InputError, match=r"seed is 0 there and 7 here.*another run="):
        trained(tiny_run_settings(run, small_shards, seed=7))
    other = tmp_path / "fewer"
    other.mkdir()
    first = sorted(small_shards.glob("*.tar"))[0]
    (other / first.name).write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"are not those .* was trained on"):
        trained(tiny_run_settings(run, other))


def test_labels_are_checked_before_anything_starts(small_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has label 1.*set classes=0 to ignore labels"):
        trained(tiny_run_settings(tmp_path / "run", small_shards, classes=1))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_metrics_hold_plain_numbers(small_shards: Path, tmp_path: Path) -> None:
    _, events, _ = trained(tiny_run_settings(tmp_path / "run", small_shards, max_steps=1))
    stages = json.loads(json.dumps(events.records[0].stages))
    assert stages["image"]["alpha"] == pytest.approx(0.5, abs=0.01)
    assert {"loss_d", "loss_g", "r1", "r2", "seconds"} <= set(stages["HH1"])
