"""Kills processes of a training at chosen or random moments and holds the result against a quiet run.

``python -m tests.chaos [COUNT]`` (``make chaos``) prints a table: victim, runs with the right digest, seconds lost.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import boto3
import pytest

from cluster.checkpoints import find_checkpoint, has_checkpoints
from cluster.reporting import StepRecord
from launch.configuration import load_settings
from tests.benchmarks.bench_executors import cifar10_data
from tests.runs import Events, trained_with
from tests.s3_server import BUCKET, aws_variables, running_s3_server

STEPS, SNAPSHOT_EVERY = 40, 10
UPLOADER_KILLS_PER_MOMENT, KILLS_PER_RUN = 5, 10
VICTIMS = ("LL2", "HL2", "HH2", "LL1", "LH1", "HH1", "image", "ingest")


@contextmanager
def killing(stages_by_step: Mapping[int, Sequence[str]], how: signal.Signals = signal.SIGKILL) -> Iterator[set[str]]:
    """A signal to the processes of stages ("ingest" too) as soon as a step is submitted; yields who got a new actor.

    An actor here never restarts by itself: the same handle is the same process with the same state.
    """
    import ray

    from cluster.ray_crew import INGEST
    from cluster.ray_executor import RayExecutor

    pids, due = dict[str, int](), dict(stages_by_step)
    handles: dict[str, Any] = {}
    replaced: set[str] = set()
    plain = {name: getattr(RayExecutor, name) for name in ("submit", "_start", "_recover")}

    def look(executor: RayExecutor) -> None:
        for name, actor in {**executor.crew.actors, INGEST: executor.crew.ingest}.items():
            if handles.get(name) is not actor:
                replaced.update({name} & handles.keys())
                handles[name], pids[name] = actor, ray.get(actor.pid.remote())

    def start(self: RayExecutor) -> None:
        plain["_start"](self)
        look(self)

    def recover(self: RayExecutor, error: Any) -> None:
        plain["_recover"](self, error)
        look(self)

    def submit(self: RayExecutor, step: int) -> None:
        plain["submit"](self, step)
        for name in due.pop(step, ()):  # once, also where the step comes again
            os.kill(pids[name], how)

    with pytest.MonkeyPatch.context() as patch:
        for name, method in (("submit", submit), ("_start", start), ("_recover", recover)):
            patch.setattr(RayExecutor, name, method)
        yield replaced


@contextmanager
def killing_uploaders(rng: random.Random, longest_s: float, most: int) -> Iterator[list[int]]:
    """SIGKILL to the uploader of a run, ``most`` times, each time up to ``longest_s`` after it has come up.

    Yields the process numbers of those that were killed. Without an end to it nothing would ever be written.
    """
    import ray

    from cluster.ray_executor import RayExecutor

    running: list[RayExecutor] = []
    killed: list[int] = []
    over = threading.Event()
    start = RayExecutor._start

    def remember(self: RayExecutor) -> None:
        start(self)
        running.append(self)

    def kill() -> None:
        while len(killed) < most and not over.wait(0.02):
            for uploader in list(running[-1].crew.uploaders.values()) if running else ():
                with suppress(ray.exceptions.RayError):  # it was not up yet, or the run has ended
                    pid = ray.get(uploader.pid.remote(), timeout=5)
                    if pid not in killed and not over.wait(rng.uniform(0, longest_s)):
                        killed.append(pid)
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayExecutor, "_start", remember)
        thread.start()
        try:
            yield killed
        finally:
            over.set()
            thread.join()


@contextmanager
def reading(run: str) -> Iterator[list[int]]:
    """Somebody who reads the newest checkpoint of ``run`` all the time; yields the steps that were found.

    A checkpoint that does not verify, or one older than a checkpoint that was there before, ends up in it as -1.
    """
    found: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.02):
            if has_checkpoints(run):
                checkpoint = find_checkpoint(run)
                right = not checkpoint.notes and checkpoint.step >= max(found, default=0)
                found.append(checkpoint.step if right else -1)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


class Moments(Events):
    """A reporter that also remembers when each step was finished."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def stepped(self, record: StepRecord) -> None:
        super().stepped(record)
        self.at_s.append(time.monotonic())

    def lost_s(self) -> float:
        """The longest time without a finished step, less that of a usual one."""
        gaps = [after - before for before, after in pairwise(self.at_s)]
        return max(gaps) - statistics.median(gaps)


def campaign(count: int) -> int:
    """``count`` random moments for every victim, on the CIFAR-10 preset; 0 when every digest was right."""
    wrong = 0
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        data = cifar10_data(folder)
        common = [
            f"data={data}", f"max_steps={STEPS}", "checkpoint_every=20", "statistics_images=1000", "batch=32",
            "device=cpu", f"snapshot_every={SNAPSHOT_EVERY}",
        ]  # fmt: skip
        quiet = trained_with(load_settings("cifar10", [*common, f"run={folder}/quiet", "executor=inline"]), Events())
        print(f"{'victim':8} {'right':>7} {'lost s: median':>15} {'worst':>7}")
        for victim in VICTIMS:
            lost, right = [], 0
            for number in range(count):
                moments = Moments()
                run = f"{folder}/{victim}{number}"
                with killing({rng.randrange(3, STEPS - 3): [victim]}) as replaced:
                    digest = trained_with(load_settings("cifar10", [*common, f"run={run}", "executor=ray"]), moments)
                right += digest == quiet and replaced == {victim}
                lost.append(moments.lost_s())
            wrong += right != count
            print(f"{victim:8} {right:3}/{count:<3} {statistics.median(lost):15.1f} {max(lost):7.1f}", flush=True)
        wrong += not uploads(UPLOADER_KILLS_PER_MOMENT * count, common, quiet, rng)
    return int(wrong > 0)


def uploads(count: int, common: Sequence[str], quiet: str, rng: random.Random) -> bool:
    """``count`` kills of the uploader of runs that save to an S3 server; whether nothing of it was ever seen."""
    kills = runs = right = 0
    with running_s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(endpoint).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        while kills < count:
            run = f"s3://{BUCKET}/{runs}"
            often = [*common, f"run={run}", "executor=ray", "checkpoint_every=2", "keep_checkpoints=99"]
            with killing_uploaders(rng, 1.0, KILLS_PER_RUN) as killed, reading(run) as found:
                digest = trained_with(load_settings("cifar10", often), Events())
            runs, kills = runs + 1, kills + len(killed)
            right += digest == quiet and -1 not in found and bool(found)
    print(f"uploader {right:3}/{runs:<3} runs right, {kills} kills, no half of a checkpoint seen: {right == runs}")
    return right == runs


if __name__ == "__main__":
    sys.exit(campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
