"""Requests that wait for a pass: while one is drawn the next ones gather, and are drawn together.

``serve.batch`` of Ray Serve closes a batch after a time, whether or not the one before is done. Under load that makes
many small ones, which then wait in line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from cluster.serving.answers import Answer, Refusal
from cluster.serving.batch import MOST_IMAGES, ImagesTask

WAIT_S = 0.002
"""For which the first of several requests at once waits for the others, where no pass is being drawn."""

Outcome = Answer | Refusal
Run = Callable[[Sequence[ImagesTask]], Sequence[Outcome]]


class PassQueue:
    """The requests of one worker, in the order in which they came. All calls come from one event loop.

    Args:
        run: answers some requests, of 64 images at most or of one request.
        executor: of one thread, in which it is called.

    """

    def __init__(self, run: Run, executor: Executor) -> None:
        self._run, self._executor = run, executor
        self._waiting: deque[tuple[ImagesTask, asyncio.Future[Outcome]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def answer(self, task: ImagesTask) -> Outcome:
        """Return the answer to ``task``. Where the caller is cancelled it is not drawn, if it waits still."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((task, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._draw())
        return await future

    async def _draw(self) -> None:
        await asyncio.sleep(WAIT_S)
        while batch := self._next():
            tasks = [task for task, _ in batch]
            try:
                outcomes = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, tasks)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    def _next(self) -> list[tuple[ImagesTask, asyncio.Future[Outcome]]]:
        """Return the first requests of 64 images in all, or one of more; those of cancelled callers are dropped."""
        batch: list[tuple[ImagesTask, asyncio.Future[Outcome]]] = []
        images = 0
        while self._waiting:
            task, future = self._waiting[0]
            if not future.done():
                images += task.body.count
                if batch and images > MOST_IMAGES:
                    break
                batch.append((task, future))
            self._waiting.popleft()
        return batch
