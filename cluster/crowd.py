"""How much the cores of a machine slow each other down: they share caches and the way to the memory.

A pipeline on a CPU keeps all cores busy, while one that is measured alone has caches and memory to itself.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

from cluster.inventory import own_cores
from cluster.probe import stepped
from cluster.settings import RunSettings

LARGEST_CROWD = 8
"""Processes at most, this one among them: each takes some hundred MB; more cores are taken to be as crowded as 8."""
STEPS = 6
"""That are compared: between two penalties."""
START_TIMEOUT_S = 120.0


def crowding(settings: RunSettings) -> float:
    """How many times longer a step takes while all cores do such steps than alone; 1 on a machine of one core."""
    crowd = min(own_cores(), LARGEST_CROWD)
    if crowd == 1:
        return 1.0
    alone = _seconds(settings)
    with _busy(settings, crowd - 1):
        together = _seconds(settings)
    return max(1.0, together / alone)


def _seconds(settings: RunSettings) -> float:
    """Of one step of all stages, one after the other: the median after one that warms up."""
    steps = stepped(settings, settings.batch)
    next(steps)
    return statistics.median(sum(next(steps).values()) for _ in range(STEPS))


@contextmanager
def _busy(settings: RunSettings, count: int) -> Iterator[None]:
    """``count`` other processes that make steps of all stages over and over."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
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
    """Steps until it is killed, or the process that started it is gone: a killed one cannot end its children."""
    settings, parent = RunSettings.model_validate(model), multiprocessing.parent_process()
    for _ in stepped(settings, settings.batch):
        begun.set()
        if parent is None or not parent.is_alive():
            return
