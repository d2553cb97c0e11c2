"""Requests gather while a pass is drawn, in order, up to 64 images; those that nobody waits for are left out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.serving.answers import Answer, Refusal
from cluster.serving.batch import ImagesTask
from cluster.serving.bodies import ImagesBody
from cluster.serving.pass_queue import PassQueue


def task(seed: int, count: int = 1) -> ImagesTask:
    return ImagesTask(ImagesBody(seed=seed, count=count))


class Passes:
    """What runs passes: each waits until it may go on; their seeds in order."""

    def __init__(self) -> None:
        self.seeds: list[list[int | None]] = []
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, tasks: Sequence[ImagesTask]) -> list[Answer | Refusal]:
        self.seeds.append([task.body.seed for task in tasks])
        self.begun.release()
        self.may_end.acquire()
        if 13 in self.seeds[-1]:
            raise RuntimeError("thirteen")
        return [Answer(str(task.body.seed).encode(), "text/plain") for task in tasks]


async def begun(passes: Passes) -> None:
    await asyncio.to_thread(passes.begun.acquire)


def test_requests_gather_while_a_pass_is_drawn() -> None:
    async def run() -> None:
        passes = Passes()
        with ThreadPoolExecutor(1) as executor:
            queue = PassQueue(passes, executor)
            first = asyncio.create_task(queue.answer(task(0)))
            await begun(passes)
            others = [asyncio.create_task(queue.answer(task(seed, count))) for seed, count in
                      ((1, 30), (2, 30), (3, 5), (4, 100), (5, 1), (6, 1))]  # fmt: skip
            await asyncio.sleep(0.01)
            others[4].cancel()
            for _ in range(5):
                passes.may_end.release()
            outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        assert passes.seeds == [[0], [1, 2], [3], [4], [6]]
        bodies = [outcome.body if isinstance(outcome, Answer) else type(outcome) for outcome in outcomes]
        assert bodies == [b"0", b"1", b"2", b"3", b"4", asyncio.CancelledError, b"6"]

    asyncio.run(run())


def test_an_error_is_that_of_its_pass_and_the_next_one_is_drawn() -> None:
    async def run() -> None:
        passes = Passes()
        with ThreadPoolExecutor(1) as executor:
            queue = PassQueue(passes, executor)
            wrong = asyncio.create_task(queue.answer(task(13)))
            await begun(passes)
            right = asyncio.create_task(queue.answer(task(1)))
            passes.may_end.release()
            passes.may_end.release()
            with pytest.raises(RuntimeError, match="thirteen"):
                await wrong
            assert isinstance(await right, Answer)
            passes.may_end.release()
            assert isinstance(await queue.answer(task(2)), Answer)

    asyncio.run(run())
