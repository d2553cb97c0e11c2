"""The same bytes of every stage, however and wherever it is trained, for each kind of experts that train apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from cluster.run.settings import RunSettings
from freqgan.errors import FreqganError
from tests.campaigns.islands.jobs import Island
from tests.support.free_runs import KINDS, digests_together, free_settings, stage_digests, together, trained_apart
from tests.support.namespaces import STORE, Host, islands
from tests.support.runs import trained, write_small_shards
from tests.support.s3_server import BUCKET, aws_variables, running_s3_server

STEPS = 12
SMALL: dict[str, Any] = {"max_steps": STEPS, "checkpoint_every": 5, "plan": {"bands": ["LL1", "HL1", "HH1"]}}


def on_ray(settings: RunSettings) -> RunSettings:
    return settings.model_copy(update={"executor": "ray"})


def train_jobs(settings: RunSettings, groups: Sequence[Sequence[str]], folder: Path, hosts: Sequence[Host | None],
               at_once: bool = True, **environment: str) -> None:  # fmt: skip
    """A job for each group of stages, at the same time or one after the other; AssertionError where one fails."""
    jobs = [Island(settings, only, folder, host, environment) for only, host in zip(groups, hosts, strict=True)]
    try:
        for job in jobs:
            job.start()
            if not at_once:
                job.wait()
        codes = [job.wait() for job in jobs]
        assert codes == [0] * len(jobs), [job.told() for job in jobs]
    finally:
        for job in jobs:
            job.clean()


@contextmanager
def bucket() -> Iterator[str]:
    """URL of an empty bucket of a server that islands reach, whose variables are set for this process."""
    with running_s3_server(STORE) as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(endpoint).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"


def ways(kind: str, folder: Path, data: Path) -> dict[str, Callable[[], str]]:
    """What trains the run of a kind in each way, and returns its folder."""

    def settings(name: str) -> RunSettings:
        return free_settings(folder / kind / name, data, kind, **SMALL)

    parts = [own.only for own in settings("x").by_component().values()]
    none: list[Host | None] = [None]

    def joint_on_ray() -> str:
        joint = together(on_ray(settings("x")), folder / kind / "together on Ray")
        trained(joint)
        return joint.run

    def in_turns() -> str:
        trained_apart(settings("in turns"))
        return settings("in turns").run

    def one_after_another() -> str:
        for only in reversed(parts):
            trained_apart(settings("one after another"), *only)
        return settings("one after another").run

    def jobs(name: str, groups: Sequence[Sequence[str]], **how: Any) -> str:
        chosen = how.pop("change", on_ray)(settings(name))
        train_jobs(chosen, groups, folder, none * len(groups), **how)
        return str(chosen.run)

    def two_hosts() -> str:
        with islands([None, None]) as hosts, bucket() as url:
            chosen = on_ray(settings("x")).model_copy(update={"run": f"{url}/run"})
            rest = [name for only in parts[1:] for name in only]
            train_jobs(chosen, [parts[0], rest], folder, list(hosts))
            BYTES_IN_BUCKET[kind] = stage_digests(chosen.run)
        return chosen.run

    return {
        "together, on Ray": joint_on_ray,
        "free, in turns, inline": in_turns,
        "one component after another, inline": one_after_another,
        "free, on one Ray": lambda: jobs("on one Ray", [()]),
        "a job for each, inline": lambda: jobs("inline jobs", parts, change=lambda x: x),
        "a job for each, on Rays of their own": lambda: jobs("jobs", parts),
        "two hosts with a Ray each, sharing a bucket alone": two_hosts,
    }


BYTES_IN_BUCKET: dict[str, dict[str, str]] = {}
"""By kind, while the bucket was there."""


def campaign(folder: Path) -> int:
    """Prints a table; how many rows are wrong."""
    data, wrong = write_small_shards(folder), 0
    print(f"{'experts':14} {'way':50} {'s':>6}  stages with the bytes of `together, inline`", flush=True)
    for kind in KINDS:
        expected = digests_together(free_settings(folder / "x", data, kind, **SMALL), folder / kind / "together")
        for way, train in ways(kind, folder, data).items():
            began_s = time.monotonic()
            try:
                run = train()
                digests = BYTES_IN_BUCKET[kind] if run.startswith("s3://") else stage_digests(run)
                right = sum(digests.get(name) == digest for name, digest in expected.items())
                result = f"{right}/{len(expected)}"
            except (FreqganError, AssertionError, PermissionError) as error:
                result = f"{type(error).__name__}: {error}"
            wrong += result != f"{len(expected)}/{len(expected)}"
            print(f"{kind:14} {way:50} {time.monotonic() - began_s:6.1f}  {result}", flush=True)
    return wrong
