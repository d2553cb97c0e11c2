"""Actors that die, hang or lose replies: replayed or rolled back, to the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.stages.replicas import StageReplica
from cluster.stages.snapshots import delete_snapshots
from cluster.training.train import train
from freqgan.errors import RunError
from tests.campaigns.chaos import killing, killing_writers, reading
from tests.support.runs import Events, tiny_run_settings, trained
from tests.support.s3_server import BUCKET as S3_BUCKET
from tests.support.scripts import PAIR, run_script

LONG = pytest.mark.long


def test_an_actor_that_dies_without_a_budget_is_a_clear_error_and_the_run_resumes(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """Of a run that another executor has begun, and another one ends."""
    run, events = tmp_path / "run", Events()
    assert trained(tiny_run_settings(run, small_shards, **PAIR, max_steps=3))[0].step == 3
    settings = tiny_run_settings(run, small_shards, **PAIR, executor="ray", max_failures=0)
    with (
        killing({4: ["HL1"]}),
        pytest.raises(RunError, match=r"an actor died.*run the same command again"),
    ):
        train(settings, events)
    assert events.first_step == 3
    assert "resumes after step 3" in events.notes[-1]
    _, events, digest = trained(tiny_run_settings(run, small_shards, **PAIR))
    assert events.first_step >= 3
    assert digest == quiet_pair


@LONG
def test_after_a_death_the_same_command_goes_on(
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
    ("deaths", "snapshot_every", "readers"),
    [
        pytest.param({1: ["LL1"], 4: ["HL1"]}, 2, 1, marks=LONG),  # before there is a snapshot, and after
        ({1: ["ingest@1"], 4: ["image", "ingest", "ingest@2"]}, 1, 3),
        pytest.param({2: ["ingest"], 4: ["image"]}, 1, 1, marks=LONG),
        pytest.param({1: ["ingest@1"], 4: ["ingest", "ingest@2"]}, 10, 3, marks=LONG),
        pytest.param({5: ["LL1", "HL1", "image", "ingest"]}, 2, 1, marks=LONG),  # all at once
    ],
)
def test_dead_stages_are_replayed_and_the_others_go_on(
    deaths: dict[int, list[str]],
    snapshot_every: int,
    readers: int,
    quiet_pair: str,
    small_shards: Path,
    tmp_path: Path,
    ray_cluster: None,
) -> None:
    settings = tiny_run_settings(
        tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=snapshot_every, window=3, readers=readers
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
for step_deadline_s in (600, 0.001):
    settings = tiny_run_settings(sys.argv[1], sys.argv[2], step_deadline_s=step_deadline_s)
    statistics = {name: tensor.numpy() for name, tensor in measure_statistics(open_source(settings)).tensors().items()}
    actor = StageActor()
    actor.build(settings.model_dump(mode="json"), replicas_of(settings)["LL1"][0], statistics)
    actor.step(0, [], np.zeros((8, 16, 16, 3), np.uint8), np.zeros(8, np.int64), None)
    print("stepped", flush=True)
"""
    in_time, _, late = " ".join(run_script(script, tmp_path / "run", small_shards)).partition("stepped")
    assert in_time == ""
    assert "most recent call first" in late
    assert "host.py" in late


@LONG
def test_without_its_snapshot_a_dead_stage_takes_all_back_to_the_checkpoint(
    quiet_pair: str, small_shards: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.ray_engine.recovery import Replayer

    settings = tiny_run_settings(tmp_path / "run", small_shards, **PAIR, executor="ray", snapshot_every=1, window=1)
    restart = Replayer._restart

    def lose_snapshots_and_restart(self: Replayer, dead: tuple[str, ...], alone: tuple[str, ...]) -> None:
        delete_snapshots(settings.run)
        restart(self, dead, alone)

    monkeypatch.setattr(Replayer, "_restart", lose_snapshots_and_restart)
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
