"""Training end to end: every executor, window, cluster and interruption gives the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.execution.callbacks import StepRecord
from cluster.ray_engine.address import LOOPBACK_VARIABLE
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import measure_statistics, open_source
from cluster.stages.host import build_chain, build_host, tensor_of
from cluster.stages.replicas import StageReplica
from cluster.stages.snapshots import delete_snapshots
from cluster.storage.folder import open_folder
from cluster.training.train import train
from freqgan.errors import InputError, RunError
from freqgan.tensor_dicts import tensors_of
from tests.campaigns.chaos import killing, killing_writers, reading
from tests.support.runs import Events, tiny_run_settings, trained
from tests.support.s3_server import BUCKET as S3_BUCKET
from tests.support.scripts import PAIR, run_script

"""Two GANs: a Ray training takes as long as its actors take to import torch."""
LONG = pytest.mark.long
UNSPARED = {"max_failures": 0}
"""No actor that waits to take the place of another, where none is to die."""


@pytest.fixture(scope="module")
def quiet(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an uninterrupted inline run."""
    run = tmp_path_factory.mktemp("quiet") / "run"
    result, events, digest = trained(tiny_run_settings(run, small_shards))
    assert (result.step, result.reason) == (6, "done")
    assert events.checkpoints == [2, 4, 6]
    assert [record.step for record in events.records] == [1, 2, 3, 4, 5, 6]
    assert events.records[-1].images == 48
    assert set(events.records[0].stages) == {"LL1", "HL1", "LH1", "HH1", "image"}
    return digest


@pytest.fixture(scope="module")
def quiet_pair(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with two GANs."""
    return trained(tiny_run_settings(tmp_path_factory.mktemp("quiet") / "run", small_shards, **PAIR))[2]


def test_the_digest_sees_every_setting_that_counts(quiet: str, small_shards: Path, tmp_path: Path) -> None:
    assert trained(tiny_run_settings(tmp_path / "a", small_shards))[2] == quiet
    assert trained(tiny_run_settings(tmp_path / "b", small_shards, seed=1))[2] != quiet


def test_ray_equals_inline(quiet: str, small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    """With the usual window; tests of failures below use smaller ones."""
    settings = tiny_run_settings(tmp_path / "run", small_shards, executor="ray")
    result, events, digest = trained(settings)
    assert digest == quiet
    assert events.checkpoints == [2, 4, 6]
    assert result.step == 6


VARIANTS: dict[str, dict[str, Any]] = {
    "cycles and ensembles": {"plan": {"cycles": 2, "low_gans": {1: 2}, "high_gans": {1: 4}}},
    "two levels, joint high bands, labels": {
        "levels": 2, "classes": 2, "plan": {"high_gans": {1: 1, 2: 1}}, "image_stage": {"alpha": "per_band"},
    },
    "no feedback": {"feedback": {"weight": 0.0}, **PAIR},
    "float16 between stages": {"exchange": "float16", **PAIR},
    "one GAN": {"plan": {"bands": ["LL1"]}},
    "no GANs": {"plan": {"bands": "none"}},
}  # fmt: skip
SHORT_VARIANTS = ("cycles and ensembles", "two levels, joint high bands, labels")


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[LONG] * (name not in SHORT_VARIANTS)) for name in VARIANTS]
)
def test_ray_equals_inline_for_other_plans(variant: str, small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    changes = VARIANTS[variant] | {"max_steps": 3} | UNSPARED
    inline = trained(tiny_run_settings(tmp_path / "inline", small_shards, **changes))[2]
    assert trained(tiny_run_settings(tmp_path / "ray", small_shards, executor="ray", **changes))[2] == inline


def test_resume_in_steps_and_across_executors_equals_one_go(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    run = tmp_path / "run"
    assert trained(tiny_run_settings(run, small_shards, max_steps=3, **PAIR))[0].step == 3
    result, events, _ = trained(tiny_run_settings(run, small_shards, max_steps=5, executor="ray", **PAIR, **UNSPARED))
    assert (events.first_step, result.step) == (3, 5)
    assert "resumes after step 3" in events.notes[-1]
    assert trained(tiny_run_settings(run, small_shards, **PAIR))[2] == quiet_pair


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


SCRIPT = """
import json, sys
from tests.support.runs import Events, tiny_run_settings
from cluster.training.train import train
class Slow(Events):
    def on_step(self, record):
        super().on_step(record)
        print(record.step, flush=True)
steps = int(sys.argv[3])
changes = {"max_steps": steps, "images": max(400, 8 * steps), "executor": sys.argv[4]} | json.loads(sys.argv[5])
result = train(tiny_run_settings(sys.argv[1], sys.argv[2], **changes), Slow())
print(result.reason, result.step, flush=True)
"""


def start_training(
    run: Path, shards: Path, steps: int, executor: str = "inline", **changes: Any
) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(run), str(shards), str(steps), executor, json.dumps(changes)],
        cwd=root, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("kill_at", [pytest.param(1, marks=LONG), 3, pytest.param(4, marks=LONG)])
def test_kill_9_and_resume_equals_one_go(kill_at: int, quiet: str, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_training(run, small_shards, 6)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == str(kill_at):
            break
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    _, events, digest = trained(tiny_run_settings(run, small_shards))
    assert digest == quiet
    assert events.first_step <= kill_at + 2


@LONG
def test_kill_9_of_a_driver_and_the_same_command_at_once(quiet_pair: str, small_shards: Path, tmp_path: Path) -> None:
    """What the killed run's Ray has left running must not be in the way."""
    run = tmp_path / "run"
    process = start_training(run, small_shards, 6, "ray", **PAIR)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "3":
            break
    process.kill()
    process.wait()
    again = start_training(run, small_shards, 6, "ray", **PAIR)
    assert again.communicate()[0].split()[-2:] == ["done", "6"]
    assert find_checkpoint(str(run)).digest() == quiet_pair


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_sigterm_ends_at_a_step_boundary_with_a_checkpoint(executor: str, small_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_training(run, small_shards, 50, executor, **PAIR, **UNSPARED)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "1":
            break
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # a group and its process both get one
    rest = process.stdout.read().split()
    assert process.wait() == 0
    step = int(rest[-1])
    assert rest[-2] == "stopped"
    assert 1 <= step < 50
    assert find_checkpoint(str(run)).step == step


@LONG
def test_three_nodes_give_the_same_digest(quiet_pair: str, small_shards: Path, tmp_path: Path) -> None:
    """In a process of its own: one process can be the driver of one cluster only."""
    script = """
import sys
import ray
from ray.cluster_utils import Cluster
from tests.support.runs import tiny_run_settings, trained
from tests.support.s3_server import BUCKET as S3_BUCKET
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
for _ in range(2):
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")
from cluster.ray_engine.worker_group import Allocation
seats = {}
place = Allocation._place
Allocation._place = lambda self: seats.update(place(self)) or dict(seats)
pair = {"plan": {"bands": ["LL1", "HL1"]}, "max_failures": 0}
digest = trained(tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", **pair))[2]
print(len({seat.node_id for seat in seats.values()}), digest)
ray.shutdown()
cluster.shutdown()
"""
    assert run_script(script, tmp_path / "run", small_shards)[-2:] == ["3", quiet_pair]


def test_stages_share_whole_gpus_of_a_placement_group(quiet: str, small_shards: Path, tmp_path: Path) -> None:
    """GPUs that Ray believes in: where the stages sit is real, what they compute on is the CPU."""
    script = """
import os, sys
import ray
from ray.cluster_utils import Cluster
os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
from tests.support.runs import tiny_run_settings, trained
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
for gpus in (1, 2):
    labels = {"ray.io/accelerator-type": "T4", "ray.io/market-type": "spot" if gpus == 2 else "on-demand"}
    cluster.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=100 * 2**20, labels=labels)
ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")
from cluster.ray_engine.executor import RayExecutor
seats, close = {}, RayExecutor.close
def look(self):
    seats.update(self.workers.allocation.by_actor)
    print("free", ray.available_resources().get("GPU", 0))
    close(self)
RayExecutor.close = look
digest = trained(tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", device="auto"))[2]
image = next(n["Labels"] for n in ray.nodes() if n["NodeID"] == seats["image"].node_id)
print(len({(seat.node_id, seat.gpu) for seat in seats.values()}), image["ray.io/market-type"], digest)
ray.shutdown()
cluster.shutdown()
"""
    assert run_script(script, tmp_path / "run", small_shards)[-5:] == ["free", "0", "3", "on-demand", quiet]


def test_a_ray_of_our_own_listens_on_loopback_alone_and_is_gone_afterwards(
    quiet: str, small_shards: Path, tmp_path: Path
) -> None:
    script = """
import os, sys
from cluster.training.train import train
from tests.campaigns.chaos.processes import below, listening
from tests.support.runs import Events, tiny_run_settings

LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
class Watch(Events):
    def on_step(self, record):
        found = listening([os.getpid(), *below(os.getpid())])
        print(len(found) > 3, sum(not row.startswith(LOOPBACK) for row in found))
settings = tiny_run_settings(sys.argv[1], sys.argv[2], executor="ray", max_steps=1, max_failures=0)
train(settings, Watch())
import ray
print(ray.is_initialized())
"""
    assert run_script(script, tmp_path / "run", small_shards) == ["True", "0", "False"]


@LONG
def test_a_ray_that_does_not_start_is_started_again_and_then_an_error() -> None:
    script = """
import os, sys, threading
folder = sys.argv[2]
os.environ |= {"RAY_TMPDIR": f"{folder}/ray", sys.argv[1]: "0"}
from cluster.ray_engine import connection as ray_start
from freqgan.errors import RunError
open(f"{folder}/ray", "w").close()  # a file where Ray wants a folder
try:
    ray_start.start_local_ray(100 * 2**20, cpus=1)
except RunError as error:
    print("3 times in a row" in str(error) and "executor=inline" in str(error))
threading.Timer(1, os.remove, [f"{folder}/ray"]).start()
ray_start.start_local_ray(100 * 2**20, cpus=1)
print(ray_start.ray.cluster_resources()["CPU"])
ray_start.ray.shutdown()
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # Ray's sockets lie in it: a short path
        assert run_script(script, LOOPBACK_VARIABLE, folder) == ["True", "1.0"]


def test_reads_shards_from_and_writes_checkpoints_to_s3(
    quiet: str, small_shards: Path, s3_server: str, ray_cluster: None
) -> None:

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


def test_an_actor_that_dies_without_a_budget_is_a_clear_error_and_the_run_resumes(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards, **PAIR, executor="ray", max_failures=0)
    with (
        killing({2: ["HL1"]}),
        pytest.raises(RunError, match=r"an actor died.*run the same command again"),
    ):
        train(settings, Events())
    assert trained(settings)[2] == quiet_pair


@pytest.mark.parametrize(
    ("deaths", "snapshot_every"),
    [
        pytest.param({1: ["LL1"], 4: ["HL1"]}, 2, marks=LONG),  # before there is a snapshot, and after
        ({2: ["ingest"], 4: ["image"]}, 1),
        pytest.param({5: ["LL1", "HL1", "image", "ingest"]}, 2, marks=LONG),  # all at once
    ],
)
def test_dead_stages_are_replayed_and_the_others_go_on(
    deaths: dict[int, list[str]],
    snapshot_every: int,
    quiet_pair: str,
    small_shards: Path,
    tmp_path: Path,
    ray_cluster: None,
) -> None:
    settings = tiny_run_settings(
        tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=snapshot_every, window=3
    )
    with killing(deaths) as replaced:
        _, events, digest = trained(settings)
    assert digest == quiet_pair
    killed = {name for names in deaths.values() for name in names}
    assert replaced == killed  # all others kept their process and their state
    assert {name for recovery in events.recoveries for name in recovery.stages} == killed
    assert all(recovery.decision == "replay" for recovery in events.recoveries)
    assert [record.step for record in events.records] == [1, 2, 3, 4, 5, 6]


@LONG
def test_a_stage_that_dies_again_while_it_is_replaced(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from cluster.ray_engine.worker_group import WorkerGroup

    settings = tiny_run_settings(tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=2, window=3)
    build, built, killed = WorkerGroup.build, list[str](), list[int]()

    def build_and_kill(self: WorkerGroup, member: StageReplica) -> Any:
        ref = build(self, member)
        built.append(member.name)
        if built.count(member.name) > 1 and len(killed) < 2:
            killed.append(ray.get(self.actors[member.name].pid.remote()))
            os.kill(killed[-1], signal.SIGKILL)
        return ref

    monkeypatch.setattr(WorkerGroup, "build", build_and_kill)
    with killing({4: ["HL1"]}):
        _, events, digest = trained(settings)
    assert digest == quiet_pair
    assert len(set(killed)) == 2
    assert [recovery.stages for recovery in events.recoveries] == [("HL1",)]


def lost_reply() -> Any:
    """A reference to the result of a call whose reply was lost."""
    import ray
    from ray.exceptions import ActorUnavailableError

    def lose() -> None:
        raise ActorUnavailableError("lost on its way", None)

    return ray.remote(num_cpus=0)(lose).remote()


@LONG
def test_a_reply_that_is_lost_to_a_step_done_once_more_is_asked_for_when_others_need_it(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.ray_engine.replay_log import ReplayLog

    call_replica, lost = ReplayLog._call_replica, list[int]()

    def call_and_lose(self: ReplayLog, step: int, call: Any, replica: StageReplica, refs: Any, *arguments: Any) -> Any:
        again = replica.name in refs.metrics
        parts = call_replica(self, step, call, replica, refs, *arguments)
        if again and not lost and (step, replica.name) == (0, "LL1"):
            lost.append(step)
            return {replica.index: lost_reply()}
        return parts

    monkeypatch.setattr(ReplayLog, "_call_replica", call_and_lose)
    settings = tiny_run_settings(tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=50, window=2)
    with killing({2: ["LL1"], 4: ["HL1"]}):  # who comes second takes what the first has given for step 0
        _, events, digest = trained(settings)
    assert lost == [0]
    assert digest == quiet_pair
    assert [recovery.stages for recovery in events.recoveries] == [("LL1",), ("HL1",)]


@LONG
def test_what_the_image_stage_has_kept_is_asked_for_again_where_its_reply_was_lost(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.ray_engine.replay_log import ReplayLog

    remember, asked = ReplayLog.remember_gradients, list[list[int]]()

    def remember_and_lose(self: ReplayLog, steps: Any) -> None:
        asked.append(list(steps))
        remember(self, asked[-1])
        if len(asked) == 1:
            for told in self.earlier_gradients.values():
                told["HL1"] = lost_reply()

    base = tiny_run_settings(tmp_path / "run", small_shards, **PAIR)
    trained(base.model_copy(update={"max_steps": 3}))
    monkeypatch.setattr(ReplayLog, "remember_gradients", remember_and_lose)
    _, events, digest = trained(base.model_copy(update={"executor": "ray"}))
    assert digest == quiet_pair
    assert len(asked) == 2
    assert asked[0] == asked[1] != []
    assert len(events.recoveries) == 1


@LONG
def test_a_stage_that_hangs_is_ended_and_replayed(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    settings = tiny_run_settings(
        tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=2, step_deadline_s=8
    )
    with killing({3: ["HL1"]}, signal.SIGSTOP) as replaced:
        _, events, digest = trained(settings)
    assert digest == quiet_pair
    assert replaced == {"HL1"}
    assert [recovery.stages for recovery in events.recoveries] == [("HL1",)]


def test_a_step_beyond_its_deadline_writes_where_it_is(small_shards: Path, tmp_path: Path) -> None:
    script = """
import os, sys
import numpy as np
from cluster.ray_engine.actors import StageActor
from cluster.stages.replicas import replicas_of
from cluster.run.data_source import measure_statistics, open_source
from tests.support.runs import tiny_run_settings

os.dup2(1, 2)  # where Ray's log is in an actor
settings = tiny_run_settings(sys.argv[1], sys.argv[2], step_deadline_s=float(sys.argv[3]))
statistics = {name: tensor.numpy() for name, tensor in measure_statistics(open_source(settings)).tensors().items()}
actor = StageActor()
actor.build(settings.model_dump(mode="json"), replicas_of(settings)["LL1"][0], statistics)
actor.step(0, [], np.zeros((8, 16, 16, 3), np.uint8), np.zeros(8, np.int64), None)
"""
    late = " ".join(run_script(script, tmp_path / "run", small_shards, "0.001"))
    assert "most recent call first" in late
    assert "host.py" in late
    assert run_script(script, tmp_path / "run", small_shards, "600") == []


@LONG
def test_without_its_snapshot_a_dead_stage_takes_all_back_to_the_checkpoint(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.ray_engine.recovery import Replayer

    settings = tiny_run_settings(tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=1, window=1)
    revive = Replayer._restart

    def lose_snapshots_and_revive(self: Replayer, dead: tuple[str, ...], alone: tuple[str, ...]) -> None:
        delete_snapshots(settings.run)
        revive(self, dead, alone)

    monkeypatch.setattr(Replayer, "_restart", lose_snapshots_and_revive)
    with killing({4: ["HL1"]}):
        _, events, digest = trained(settings)
    assert digest == quiet_pair
    (recovery,) = events.recoveries
    assert (recovery.decision, recovery.stages) == ("roll back", ("HL1",))
    assert recovery.from_step in (0, 2, 4)  # the newest whose upload was over by then
    assert "cannot be read" in recovery.cause


def test_a_killed_uploader_costs_no_checkpoint_and_nobody_sees_half_of_one(
    quiet_pair: str, small_shards: Path, s3_server: str, ray_cluster: None
) -> None:
    run = f"s3://{S3_BUCKET}/uploads/{time.time_ns()}"
    settings = tiny_run_settings(run, small_shards, **PAIR, executor="ray", checkpoint_every=1, keep_checkpoints=9)
    with killing_writers(most=3) as killed, reading(run) as found:
        _, events, digest = trained(settings)
    assert digest == quiet_pair
    assert events.checkpoints == [1, 2, 3, 4, 5, 6]
    assert killed
    # There is always another checkpoint to write, so each death is noticed; no stage loses a step.
    assert {(r.decision, r.stages, r.steps) for r in events.recoveries} == {("replay", ("uploader",), 0)}
    assert -1 not in found


@LONG
def test_dead_uploaders_count_in_the_budget_and_the_run_resumes(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    run = tmp_path / "run"
    settings = tiny_run_settings(run, small_shards, **PAIR, executor="ray", checkpoint_every=1, max_failures=0)
    with killing_writers(most=1), pytest.raises(RunError, match=r"writes checkpoints.*resume"):
        trained(settings)
    assert trained(settings)[2] == quiet_pair


@LONG
def test_a_ring_is_replayed_too(small_shards: Path, tmp_path: Path, ray_cluster: None) -> None:
    ring = {"plan": {"cycles": 2, **PAIR["plan"]}, "max_steps": 4}
    quiet = trained(tiny_run_settings(tmp_path / "quiet", small_shards, **ring))[2]
    settings = tiny_run_settings(tmp_path / "run", small_shards, executor="ray", snapshot_every=2, window=2, **ring)
    with killing({3: ["HL1"]}) as replaced:
        assert trained(settings)[2] == quiet
    assert replaced == {"HL1"}


def test_steps_are_idempotent_and_refuse_gaps(small_shards: Path, tmp_path: Path) -> None:
    settings = tiny_run_settings(tmp_path / "run", small_shards)
    source = open_source(settings)
    statistics = {k: v.numpy() for k, v in measure_statistics(source).tensors().items()}
    host = build_host(settings, StageReplica("LL1", 0, 1), build_chain(settings, statistics))
    batch = source.ingest().batch(0, 8)
    images, labels = tensor_of(batch.images), tensor_of(batch.labels)
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
    process = start_training(run, small_shards, steps)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "1"
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
