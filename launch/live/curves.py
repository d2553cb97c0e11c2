"""Numbers of a training over its steps, thinned out as they come: lowest, highest and mean of equal stretches of steps.

However long a training is, a curve has at most MOST_POINTS points, and no peak is lost. Where there would be more, two
neighbours become one, and stretches are twice as long from then on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from launch.run_folder.metrics import MetricsLine

MOST_POINTS = 500
DIGITS = 5
TIMES = frozenset({"begun_s"})
"""Numbers of a stage that say when, which make no curve."""

Key = tuple[str, str]
"""Stage and name of a number."""
_generations = itertools.count(time.time_ns())


@dataclass
class Spread:
    """How the values of one number in a stretch are spread."""

    total: float
    count: int
    low: float
    high: float

    def add(self, other: Spread) -> None:
        """Add the values of ``other``."""
        self.total, self.count = self.total + other.total, self.count + other.count
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass
class Stretch:
    """Some steps that follow each other: the last of them, with images and seconds up to it, and all numbers."""

    step: int
    images: int
    wall_s: float
    lines: int = 1
    numbers: dict[Key, Spread] = field(default_factory=dict)

    def add(self, later: Stretch) -> None:
        """Add the stretch that follows."""
        self.step, self.images, self.wall_s = later.step, later.images, later.wall_s
        self.lines += later.lines
        for key, spread in later.numbers.items():
            own = self.numbers.get(key)
            if own is None:
                self.numbers[key] = spread
            else:
                own.add(spread)


class Curves:
    """All numbers of one log of metrics, a curve for every stage and name; the speed has the stage ""."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all: the log is read anew."""
        self._stretches: list[Stretch] = []
        self._lines_each = 1
        self._generation = next(_generations)

    def add(self, line: MetricsLine) -> None:
        """Take the numbers of one more step; those that are not finite leave a gap."""
        stretch = Stretch(line.step, line.images, line.wall_s)
        named = itertools.chain(
            [(("", "images_per_s"), line.images_per_s)],
            (((stage, name), x) for stage, own in line.stages.items() for name, x in own.items() if name not in TIMES),
        )
        for key, x in named:
            if math.isfinite(x):
                stretch.numbers[key] = Spread(x, 1, x, x)
        if self._stretches and self._stretches[-1].lines < self._lines_each:
            self._stretches[-1].add(stretch)
        else:
            self._stretches.append(stretch)
            if len(self._stretches) > MOST_POINTS:
                self._halve()

    def answer(self, after: str | None) -> dict[str, Any]:
        """Return the curves as JSON has them.

        ``after`` is the ``cursor`` of an earlier answer: what has not changed since is left out. ``first`` is the place
        of the first point that is given; points from there on are to be replaced. Numbers that are not known are null.
        ``low`` and ``high`` are given where a point stands for several steps.
        """
        first = self._first_after(after)
        chosen = self._stretches[first:]
        keys = dict.fromkeys(key for stretch in chosen for key in stretch.numbers)
        series: dict[str, dict[str, dict[str, list[float | None]]]] = {}
        for stage, name in keys:
            spreads = [stretch.numbers.get((stage, name)) for stretch in chosen]
            series.setdefault(stage, {})[name] = self._columns(spreads)
        return {
            "cursor": f"{self._generation}.{len(self._stretches)}",
            "first": first,
            "steps": [stretch.step for stretch in chosen],
            "images": [stretch.images for stretch in chosen],
            "wall_s": [stretch.wall_s for stretch in chosen],
            "series": series,
        }

    def _first_after(self, cursor: str | None) -> int:
        generation, _, count = (cursor or "").partition(".")
        if generation != str(self._generation) or not count.isdecimal():
            return 0
        return max(0, min(int(count), len(self._stretches)) - 1)  # the last one may have grown

    def _columns(self, spreads: Sequence[Spread | None]) -> dict[str, list[float | None]]:
        columns = {"mean": [None if one is None else _short(one.total / one.count) for one in spreads]}
        if self._lines_each > 1:
            columns["low"] = [None if one is None else _short(one.low) for one in spreads]
            columns["high"] = [None if one is None else _short(one.high) for one in spreads]
        return columns

    def _halve(self) -> None:
        for number in range(0, len(self._stretches) - 1, 2):
            self._stretches[number].add(self._stretches[number + 1])
        self._stretches = self._stretches[::2]
        self._lines_each *= 2
        self._generation = next(_generations)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
