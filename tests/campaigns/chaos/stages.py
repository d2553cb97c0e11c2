"""Cases in which the driver lives on: stages, reader of shards, replicas, uploaders, machines."""

from __future__ import annotations

import logging
import os
import random
import signal
import statistics
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from tenacity import Retrying, stop_after_attempt

from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.training.train import train
from freqgan.errors import FreqganError
from tests.campaigns.chaos.faults import executors, killing_uploaders, reading
from tests.campaigns.chaos.monkey import Fault, Look, Monkey, kill, raises
from tests.campaigns.chaos.rows import Row
from tests.campaigns.chaos.trainings import (
    BANDS,
    QUIET_EVERY,
    Moments,
    Quiet,
    chaos_settings,
    pictures,
    stop_this_process,
)
from tests.support.s3_server import BUCKET, aws_variables, running_s3_server

REPLICATED: dict[str, Any] = {"replicas": {"HL1": 2}, "replica_timeout_s": 5.0}
UPLOADER_KILLS_PER_MOMENT = 5
NODE_ATTEMPTS, NODE_STORE_BYTES = 3, 100 * 2**20


def quiet_of(folder: Path) -> Quiet:
    return Quiet(chaos_settings(folder / "quiet", pictures(folder), executor="inline"))


def quiet_replicas_of(folder: Path) -> Quiet:
    """Replicas add up gradients in another order than one process: their quiet run has replicas as well."""
    return Quiet(chaos_settings(folder / "quiet-replicas", pictures(folder), **REPLICATED))


def struck(row: Row, fault: Fault, settings: RunSettings, quiet: Quiet, moments: int) -> Monkey:
    """One training that is struck ``moments`` times and then stopped; its digest and losses go into ``row``."""
    reporter = Moments()
    with executors() as running:
        monkey = Monkey(fault, running, reporter, random.Random(row.fault), most=moments)
        monkey.start()
        try:
            result = train(settings, reporter)
        except FreqganError as error:
            row.wrong.append(raises(error))
            return monkey
        finally:
            monkey.over.set()
    monkey.join()
    row.compare(find_checkpoint(settings.run).digest(), quiet.digest(result.step))
    row.moments += len(monkey.struck)
    row.lost_s += [moment.lost_s for moment in monkey.struck]
    row.wrong += monkey.wrong
    row.notes.append(f"{result.step} steps")
    return monkey


def others_kept(row: Row, monkey: Monkey) -> None:
    """All stages but those that were hit are the same processes, and have never gone back a step."""
    kept = sum(moment.others_kept for moment in monkey.struck)
    row.notes.append(f"the others kept process and step counter {kept}/{len(monkey.struck)} times")
    if kept < len(monkey.struck):
        row.wrong.append("others lost their state")


def stage_case(fault: str, names: Collection[str], folder: Path, moments: int) -> Row:
    row = Row(fault)
    settings = chaos_settings(folder / fault, pictures(folder))
    others_kept(row, struck(row, kill(names), settings, quiet_of(folder), moments))
    if row.lost_s and max(row.lost_s) >= 5:
        row.notes.append(f"{sum(lost >= 5 for lost in row.lost_s)} losses of 5 s or more")
    return row


@contextmanager
def whole_groups() -> Iterator[list[float]]:
    """When a recovery had the groups of replicas formed anew (time.monotonic)."""
    from cluster.ray_engine.recovery import Replayer

    at_s: list[float] = []
    revive = Replayer._restart

    def timed(self: Replayer, *arguments: Any) -> Any:
        revive(self, *arguments)
        at_s.append(time.monotonic())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replayer, "_restart", timed)
        yield at_s


def replica_case(folder: Path, moments: int) -> Row:
    row = Row("replica")
    settings = chaos_settings(folder / "replica", pictures(folder), **REPLICATED)
    with whole_groups() as at_s:
        monkey = struck(row, kill(["HL1", "HL1@1"]), settings, quiet_replicas_of(folder), moments)
    formed = [min((s for s in at_s if s > m.at_s), default=m.settled_s) - m.at_s for m in monkey.struck]
    if formed:
        row.notes.append(
            f"group formed anew after {statistics.median(formed):.1f} s, worst {max(formed):.1f} "
            f"(bound: 3 + its timeout of {REPLICATED['replica_timeout_s']:g})"
        )
        if max(formed) >= 3 + REPLICATED["replica_timeout_s"]:
            row.wrong.append("the group took longer")
    return row


@contextmanager
def s3_bucket() -> Iterator[str]:
    """URL of an empty bucket of a server on loopback, whose variables are set for this process."""
    with running_s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(endpoint).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"


class StopAfterKills(Moments):
    """Stops the run once ``killed`` has ``most`` members, and some more checkpoints were made."""

    def __init__(self, killed: list[int], most: int) -> None:
        super().__init__()
        self.killed, self.most, self.more = killed, most, 3

    def on_checkpoint(self, checkpoint: Any) -> None:
        super().on_checkpoint(checkpoint)
        self.more -= len(self.killed) >= self.most
        if self.more == 0:
            stop_this_process()


def uploader_case(folder: Path, moments: int) -> Row:
    """Kills of the uploader of a run that saves to an S3 server, while somebody reads all the time."""
    from cluster.ray_engine.worker_group import UPLOADER

    row, most = Row("uploader"), UPLOADER_KILLS_PER_MOMENT * moments
    quiet, digests = quiet_of(folder), dict[int, str]()
    with s3_bucket() as bucket:
        settings = chaos_settings(f"{bucket}/run", pictures(folder), checkpoint_every=5, keep_checkpoints=4)
        with (
            killing_uploaders(random.Random(0), 1.0, most) as killed,
            reading(settings.run, digests) as found,
        ):
            reporter = StopAfterKills(killed, most)
            result = train(settings, reporter)
        row.compare(find_checkpoint(settings.run).digest(), quiet.digest(result.step))
    row.moments = len(killed)
    comparable = [step for step in digests if step % QUIET_EVERY == 0]
    mixed = [step for step in comparable if digests[step] != quiet.digest(step)]
    stages = [recovery for recovery in reporter.recoveries if recovery.stages != (UPLOADER,)]
    row.notes.append(
        f"{len(found)} loads of {len(digests)} checkpoints, {found.count(-1)} partial; {len(comparable)} digests "
        f"compared, {len(mixed)} mixed; {len(stages)} recoveries of stages"
    )
    if -1 in found or mixed or not found:
        row.wrong.append("a load saw a partial or mixed state")
    return row


def add_node(cluster: Any, cpus: int) -> None:
    """Again where it does not come up: Ray's nodes give up when a busy machine takes too long to start their agents."""
    attempts = Retrying(stop=stop_after_attempt(NODE_ATTEMPTS), reraise=True)
    attempts(cluster.add_node, num_cpus=cpus, object_store_memory=NODE_STORE_BYTES)


@contextmanager
def small_cluster() -> Iterator[Any]:
    """Two worker nodes beside a head that takes no work; this process is its driver."""
    import ray
    from ray.cluster_utils import Cluster

    # Without hooks at the exit, which are handlers of SIGTERM: nodes are added by a thread, and the run has its own.
    cluster = Cluster(shutdown_at_exit=False)
    try:
        for cpus in (0, 1, 1):
            add_node(cluster, cpus)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, namespace="freqgan")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def machine_case(folder: Path, moments: int) -> Row:
    """SIGKILL of the raylet of a worker node; a new node comes right afterwards."""
    row = Row("machine")
    with small_cluster() as cluster:
        settings = chaos_settings(folder / "machine", pictures(folder))
        struck(row, kill_machine(cluster), settings, quiet_of(folder), moments)
    return row


def kill_machine(cluster: Any) -> Fault:
    """SIGKILL of the raylet of a worker node of ``cluster``; its workers die with it, and a new node is added."""

    def fault(executor: Any, seen: Look, rng: random.Random) -> Collection[str]:
        node = rng.choice(sorted(cluster.worker_nodes, key=lambda found: str(found.node_id)))
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        seats = executor.workers.allocation.by_actor
        victims = {name for name, seat in seats.items() if seat.node_id == node.node_id}
        cluster.remove_node(node, allow_graceful=False)
        add_node(cluster, 1)
        return victims

    return fault


STAGE_CASES = {"band": BANDS, "image": ("image",), "ingest": ("ingest",)}
