"""The jointly trained system in workers of Ray Train: what they do is what one process does, whoever of them dies."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.execution.executor import RestorePoint
from cluster.ray_engine.order_log import GroupStart, Order, OrderLog
from cluster.run.checkpoints import find_checkpoint
from cluster.training.train import train
from freqgan.errors import FreqganError, RunError
from tests.campaigns.fusion.workers import KillingEvents, undisturbed, worker_pids
from tests.support.models import FUSION
from tests.support.replica_bounds import assert_near
from tests.support.runs import tiny_run_settings, trained
from tests.support.s3_server import BUCKET


def test_two_workers_one_of_which_dies_do_what_one_process_does(
    small_shards: Path, s3_server: str, ray_cluster: None
) -> None:
    """They end with the bytes of two that nothing happens to, within rounding of one; and one process goes on."""
    changes: dict[str, Any] = FUSION | {"max_steps": 4, "classes": 2, "window": 1, "checkpoint_every": 1}
    two = {"executor": "ray", "workers": {"min": 2, "max": 2}, "max_failures": 1}
    run = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    settings, events = tiny_run_settings(run, small_shards, **changes, **two), KillingEvents(after={3: 0})
    assert train(settings, events).step == 4
    assert events.checkpoints == [1, 2, 3, 4]
    assert [record.step for record in events.records] == [1, 2, 3, 4]
    assert len(events.killed) == 1
    (recovery,) = events.recoveries
    assert (recovery.step, recovery.stages, recovery.decision) == (3, ("fusion",), "roll back")
    assert (recovery.cause, recovery.steps) == ("a worker was lost", 3 - recovery.from_step)
    assert recovery.from_step <= 3  # checkpoints may still have been on their way
    state = find_checkpoint(settings.run).states()["fusion"]
    for name, x in undisturbed(settings, 2).items():
        assert torch.equal(state[name], x), name
    assert_near(state, undisturbed(settings, 1, find_checkpoint(settings.run, step=3)))
    result, after, _ = trained(tiny_run_settings(run, small_shards, **changes | {"max_steps": 5}))
    assert (after.first_step, result.step) == (4, 5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"Ray Train has given up after \d+ steps, with max_failures=0: .*run the same command again to resume"),
        (
            {"optimiser": {"learning_rate": 1e30}, "health": {"most": 0}},
            r"is not finite at step .*lambda_learning_rate",
        ),
    ],
    ids=["a worker that dies once too often", "what every group would come to"],
)
def test_a_run_that_cannot_go_on_says_why(
    changes: dict[str, Any], message: str, small_shards: Path, tmp_path: Path, ray_cluster: None
) -> None:
    workers = {"executor": "ray", "workers": {"min": 1, "max": 1}, "max_failures": 0, "window": 1, "max_steps": 20}
    settings = tiny_run_settings(tmp_path / "run", small_shards, **FUSION, **workers, **changes)
    with pytest.raises(FreqganError, match=message):
        train(settings, KillingEvents(after={2: 0}))
    assert worker_pids() == []


# -- what workers are told -------------------------------------------------------------------------


def test_workers_are_told_of_a_checkpoint_before_the_step_after_it() -> None:
    async def run() -> list[Order]:
        log = OrderLog(None, ())
        await log.submit(3, {})
        first = await log.order(0, has_saved=False)
        await log.submit(5, {4: "me"})
        return [
            first,
            await log.order(3, has_saved=False),
            await log.order(4, has_saved=False),
            await log.order(4, has_saved=True),
        ]

    assert asyncio.run(run()) == [Order(None, 3), Order(None, 4), Order("me", 4), Order(None, 5)]


def test_workers_wait_for_orders_and_end_where_they_are() -> None:
    async def run() -> tuple[bool, Order, Order]:
        log = OrderLog(None, ())
        await log.submit(1, {1: "me"})
        waiting = asyncio.ensure_future(log.order(1, has_saved=True))
        await asyncio.sleep(0)
        waits = not waiting.done()
        await log.end()
        return waits, await waiting, await log.order(0, has_saved=False)

    assert asyncio.run(run()) == (True, Order(None, 1), Order(None, 0))


def test_a_new_group_begins_at_the_newest_checkpoint_that_is_written() -> None:
    async def run() -> None:
        log = OrderLog(None, ())
        assert (await log.start(await log.begin(2))).restore is None
        points = [RestorePoint(step, "root", []) for step in (4, 2)]
        for point in points:
            await log.wrote(point)
        number = await log.begin(1)
        await log.wrote(RestorePoint(6, "root", []))
        assert (await log.start(number)).restore == points[0]  # what all of the group are told, at any time
        await log.stepped(0, {"lambda": 0.5})
        assert await log.finished(0) == {"lambda": 0.5}
        assert (await log.news()).groups == [GroupStart(2, 0), GroupStart(1, 4)]
        assert (await log.news()).groups == []
        assert await log.saved(2) == []

    asyncio.run(run())


def test_what_workers_cannot_get_over_reaches_the_coordinator() -> None:
    async def run() -> None:
        log = OrderLog(None, ())
        waiting = asyncio.ensure_future(log.finished(0))
        await asyncio.sleep(0)
        await log.fail(RunError("the shards are gone"))
        with pytest.raises(RunError, match="the shards are gone"):
            await waiting
        with pytest.raises(RunError, match="the shards are gone"):
            await log.saved(2)

    asyncio.run(run())
