"""How much longer a step takes on a machine that is full of stages.

A pipeline on a CPU keeps all cores busy, with more stages ready to go on than there are cores. Cores share caches and
the way to the memory, and stages that take turns on a core find its caches full of what the others have left there.
One that is measured alone has all to itself. CIFAR-10 defaults on two cores, .845 s a step alone: 1.07 times that in
one of two processes, 1.2 times in one of four, and 1.2 to 1.26 times in the actors of a pipeline.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.synchronize import Event
from typing import Any

from cluster.planning.device_pool import READY_PER_DEVICE
from cluster.planning.devices import own_cores
from cluster.planning.profiler import profile_steps
from cluster.run.settings import RunSettings
from freqgan.model.stage_names import stage_names

MOST_PROCESSES = 8
"""Processes at most, this one among them: each takes some hundred MB; more are taken to be as crowded as 8."""
START_TIMEOUT_S = 120.0


def contention_factor(settings: RunSettings, alone_s: float, step_s: Callable[[], float]) -> float:
    """Return how many times more of a core a step takes in a pipeline that keeps all cores busy than alone.

    Args:
        settings: of the run whose stages share the cores.
        alone_s: seconds of a core for a step of all stages while nothing else runs.
        step_s: measures the same again.

    """
    crowd = min(READY_PER_DEVICE * own_cores(), len(stage_names(settings)), MOST_PROCESSES)
    with _busy(settings, crowd - 1):
        together_s = step_s()
    return max(1.0, together_s / alone_s)


def prepare() -> None:
    """Begin to load in a process of its own what those of the crowd need, which are then copies of it."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload([__name__])
        forkserver.ensure_running()


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes are started: torch's threads do not survive a fork, so by one that has none, or anew."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


@contextmanager
def _busy(settings: RunSettings, count: int) -> Iterator[None]:
    """``count`` other processes that make steps of all stages over and over."""
    prepare()
    context = _context()
    begun = [context.Event() for _ in range(count)]
    model = settings.model_dump(mode="json")
    others = [context.Process(target=_work, args=(model, event), daemon=True) for event in begun]
    for other in others:
        other.start()
    try:
        for event in begun:
            event.wait(START_TIMEOUT_S)
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def _work(model: Mapping[str, Any], begun: Event) -> None:
    """Train steps until killed, or until the process that started this one is gone: a killed one ends no children."""
    settings, parent = RunSettings.model_validate(model), multiprocessing.parent_process()
    for _ in profile_steps(settings, settings.batch):
        begun.set()
        if parent is None or not parent.is_alive():
            return
