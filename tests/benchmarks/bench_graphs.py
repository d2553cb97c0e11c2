"""Steps that are recorded and replayed beside steps that are run: what Python has to start, and on a GPU the time.

On a CPU operators that would be kernel launches are counted: those of steps of the default CIFAR-10 settings, all
stages, and those that are left beside the recordings, of which each counts as one. Where there is a GPU, the same steps
are timed on it with and without CUDA graphs, in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from cluster.planning.profiler import profile_steps
from cluster.run.settings import RunSettings
from freqgan.costing.operator_count import OperatorCount
from freqgan.runtime.graph_capture import WARM_UP, CapturedGraph
from launch.settings.load import load_settings
from tests.benchmarks.harness import Comparison
from tests.support.models import TinyRun

INTERVAL_STEPS = 4
"""Penalties come with every fourth step: so many make a fair mean."""

WARM_STEPS = INTERVAL_STEPS * (WARM_UP + 2)
TIMED_STEPS = 10 * INTERVAL_STEPS
ROUNDS = 5


class _Silent:
    """Replays nothing, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.replays = 0

    def graph(self, function: Callable[[], list[Any]]) -> CapturedGraph:
        return CapturedGraph(function(), self._replay)

    def _replay(self) -> None:
        self.replays += 1


def comparisons() -> Iterator[Comparison]:
    settings = load_settings("cifar10", ["feedback.lag=1"])
    small, silent = settings.model_copy(update={"batch": 4}), _Silent()
    every, left = _launches(small, None), _launches(small, silent)
    yield Comparison(
        "cifar10: launches a step, all stages", left, every, "launches", False,
        "ours: operators outside of recordings, and replays; peer: all operators; mean of four steps",
    )  # fmt: skip
    if torch.cuda.is_available():
        ours, peer = _speeds(
            [settings.model_copy(update={"cuda_graphs": on, "device": "cuda"}) for on in (True, False)]
        )
        yield Comparison(
            f"cifar10: all stages on {torch.cuda.get_device_name()}", ours, peer, "images/s", True,
            f"ours: CUDA graphs; peer: without; batch {settings.batch}, in turns, medians of {ROUNDS}",
        )  # fmt: skip


def _launches(settings: RunSettings, silent: _Silent | None) -> float:
    """Of a step, mean of four, once everything is recorded that there is to be recorded."""
    run = TinyRun(settings, silent)
    for step in range(WARM_STEPS):
        run.step(step)
    before = silent.replays if silent else 0
    with OperatorCount() as count:
        for step in range(WARM_STEPS, WARM_STEPS + INTERVAL_STEPS):
            run.step(step)
    replays = silent.replays - before if silent else 0
    return float(count.launches + replays) / INTERVAL_STEPS


def _speeds(rivals: Sequence[RunSettings]) -> list[float]:
    """Images a second of each, in turns; a step ends with numbers fetched from the GPU."""
    steps = [profile_steps(settings, settings.batch) for settings in rivals]
    for one in steps:
        for _ in range(WARM_STEPS):
            next(one)
    spent_s: list[list[float]] = [[] for _ in rivals]
    for _ in range(ROUNDS):
        for one, times in zip(steps, spent_s, strict=True):
            start = time.perf_counter()
            for _ in range(TIMED_STEPS):
                next(one)
            times.append(time.perf_counter() - start)
    return [
        TIMED_STEPS * settings.batch / statistics.median(times) for settings, times in zip(rivals, spent_s, strict=True)
    ]
