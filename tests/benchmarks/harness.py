"""What a benchmark hands in, and how one function is timed inside a process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
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


def minima_s(functions: Sequence[Callable[[], object]], rounds: int = 3, calls: int = 7) -> list[float]:
    """The shortest call of each in seconds, after one to warm up: in turns, so that a slow minute meets all of them."""
    shortest = [math.inf] * len(functions)
    for function in functions:
        function()
    for _ in range(rounds):
        for number, function in enumerate(functions):
            for _ in range(calls):
                start = time.perf_counter()
                function()
                shortest[number] = min(shortest[number], time.perf_counter() - start)
    return shortest
