"""Faults for a training in this process: chosen stages at chosen steps, uploaders at random moments; and a reader."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from cluster.run.checkpoints import find_checkpoint, has_checkpoints

if TYPE_CHECKING:
    from cluster.ray_engine.executor import RayExecutor


@contextmanager
def killing(stages_by_step: Mapping[int, Sequence[str]], how: signal.Signals = signal.SIGKILL) -> Iterator[set[str]]:
    """A signal to the processes of stages ("ingest" too) as soon as a step is submitted; yields who got a new actor.

    An actor here never restarts by itself: the same handle is the same process with the same state.
    """
    import ray

    from cluster.ray_engine.executor import RayExecutor

    pids, due = dict[str, int](), dict(stages_by_step)
    handles: dict[str, Any] = {}
    replaced: set[str] = set()
    plain = {name: getattr(RayExecutor, name) for name in ("submit", "_start", "_recover")}

    def look(executor: RayExecutor) -> None:
        for name, actor in {**executor.workers.actors, **executor.workers.readers}.items():
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
def executors() -> Iterator[list[RayExecutor]]:
    """The executors of trainings in this process as they come up; the last one is that at work."""
    from cluster.ray_engine.executor import RayExecutor

    found: list[RayExecutor] = []
    start = RayExecutor._start

    def remember(self: RayExecutor) -> None:
        start(self)
        found.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayExecutor, "_start", remember)
        yield found


@contextmanager
def killing_uploaders(rng: random.Random, longest_s: float, most: int) -> Iterator[list[int]]:
    """SIGKILL to the uploader of a run, ``most`` times, each time up to ``longest_s`` after it has come up.

    Yields the process numbers of those that were killed. Without an end to it nothing would ever be written.
    """
    import ray

    killed: list[int] = []
    over = threading.Event()

    def kill(running: list[RayExecutor]) -> None:
        while len(killed) < most and not over.wait(0.02):
            for uploader in list(running[-1].workers.uploaders.values()) if running else ():
                with suppress(ray.exceptions.RayError):  # it was not up yet, or the run has ended
                    pid = ray.get(uploader.pid.remote(), timeout=5)
                    if pid not in killed and not over.wait(rng.uniform(0, longest_s)):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    with executors() as running:
        thread = threading.Thread(target=kill, args=(running,))
        thread.start()
        try:
            yield killed
        finally:
            over.set()
            thread.join()


@contextmanager
def killing_writers(most: int) -> Iterator[list[int]]:
    """SIGKILL to the uploader of a run, ``most`` times, as soon as it has a checkpoint to write.

    Yields the process numbers of those that were killed.
    """
    import ray

    from cluster.ray_engine.executor import RayExecutor

    killed: list[int] = []
    plain = RayExecutor.save

    def save(self: RayExecutor, step: int, folder_url: str) -> None:
        pids: list[int] = []
        if len(killed) < most:
            with suppress(ray.exceptions.RayError):  # nobody has noticed yet that the one before is dead
                pids = [ray.get(uploader.pid.remote()) for uploader in self.workers.uploaders.values()]
        plain(self, step, folder_url)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayExecutor, "save", save)
        yield killed


@contextmanager
def reading(run: str, digests: dict[int, str] | None = None) -> Iterator[list[int]]:
    """Somebody who reads the newest checkpoint of ``run`` all the time; yields the steps that were found.

    A checkpoint that does not verify, or one older than a checkpoint that was there before, ends up in it as -1.
    ``digests`` takes up what was read, by step.
    """
    found: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.02):
            if has_checkpoints(run):
                checkpoint = find_checkpoint(run)
                right = not checkpoint.notes and checkpoint.step >= max(found, default=0)
                if digests is not None:
                    digests[checkpoint.step] = checkpoint.digest()
                found.append(checkpoint.step if right else -1)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
