"""What a benchmark hands in, and how one function is timed inside a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Ours beside a peer, measured in one run; ``how`` says on what and with which statistic."""

    name: str
    ours: float
    peer: float
    unit: str
    higher_is_better: bool
    how: str

    @property
    def ratio(self) -> float:
        """How many times better ours is than the peer; above 1 is better."""
        return self.ours / self.peer if self.higher_is_better else self.peer / self.ours


def minimum_s(function: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of ``repeats`` calls in seconds, after one warm-up call."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
