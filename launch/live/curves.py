"""Numbers of a training over its steps, thinned out as they come: lowest, highest and mean of equal stretches of steps.

However long a training is, a curve has at most MOST_POINTS points, and no peak is lost. Where there would be more, two
neighbours become one, and stretches are twice as long from then on.
"""

from __future__ import annotations

import itertools
import math
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from launch.run_folder.metrics import MetricsLine

MOST_POINTS = 500
DIGITS = 5
TIMES = frozenset({"begun_s"})
"""Numbers of a stage that say when, which make no curve."""

_generations = itertools.count(time.time_ns())


@dataclass
class Spread:
    """How the values of one number in a stretch are spread; there are millions of values, so that little is done each.

    ``total`` is their sum.
    """

    __slots__ = ("count", "high", "low", "total")
    total: float
    count: int
    low: float
    high: float

    def take(self, value: float) -> None:
        """Take one more value."""
        self.total += value
        self.count += 1
        if value < self.low:
            self.low = value
        elif value > self.high:
            self.high = value

    def add(self, other: Spread) -> None:
        """Take all values of ``other``."""
        self.total, self.count = self.total + other.total, self.count + other.count
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass
class Stretch:
    """Some steps that follow each other: the last of them, images and seconds up to it, and all numbers by stage."""

    step: int = 0
    images: int = 0
    wall_s: float = 0.0
    lines: int = 0
    numbers: dict[str, dict[str, Spread]] = field(default_factory=dict)

    def take(self, line: MetricsLine) -> None:
        """Take the numbers of the step that follows; those that are not finite are left out."""
        self.step, self.images, self.wall_s = line.step, line.images, line.wall_s
        self.lines += 1
        self._take_numbers("", {"images_per_s": line.images_per_s})
        for stage, own in line.stages.items():
            self._take_numbers(stage, own)

    def _take_numbers(self, stage: str, values: Mapping[str, float]) -> None:
        spreads = self.numbers.setdefault(stage, {})
        for name, value in values.items():
            if not math.isfinite(value):
                continue
            spread = spreads.get(name)
            if spread is not None:
                spread.take(value)
            elif name not in TIMES:
                spreads[name] = Spread(value, 1, value, value)

    def add(self, later: Stretch) -> None:
        """Add the stretch that follows."""
        self.step, self.images, self.wall_s = later.step, later.images, later.wall_s
        self.lines += later.lines
        for stage, spreads in later.numbers.items():
            own = self.numbers.setdefault(stage, {})
            for name, spread in spreads.items():
                if name in own:
                    own[name].add(spread)
                else:
                    own[name] = spread


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
        """Take the numbers of one more step; those that are not finite leave a gap.

        Raises:
            TypeError, AttributeError: it has other values than numbers; nothing of it is taken.

        """
        _check_numbers(line)
        if not self._stretches or self._stretches[-1].lines >= self._lines_each:
            self._stretches.append(Stretch())
        self._stretches[-1].take(line)
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
        keys = dict.fromkeys((stage, name) for one in chosen for stage, own in one.numbers.items() for name in own)
        series: dict[str, dict[str, dict[str, list[float | None]]]] = {}
        for stage, name in keys:
            spreads = [stretch.numbers.get(stage, {}).get(name) for stretch in chosen]
            series.setdefault(stage, {})[name] = self._columns(spreads)
        return {
            "cursor": f"{self._generation}.{len(self._stretches)}",
            "first": first,
            "steps": [stretch.step for stretch in chosen],
            "images": [stretch.images for stretch in chosen],
            "wall_s": [stretch.wall_s for stretch in chosen],
            "series": series,
        }

    def trained_s_at(self, step: int) -> float | None:
        """Return the seconds trained until ``step`` was finished, or few steps later; None where it is not."""
        place = bisect_left(self._stretches, step, key=lambda stretch: stretch.step)
        return self._stretches[place].wall_s if place < len(self._stretches) else None

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


def _check_numbers(line: MetricsLine) -> None:
    """Raise TypeError or AttributeError where something is no number; sums are quick, and take nothing else."""
    sum((line.step, line.images, line.wall_s, line.images_per_s))
    for numbers in line.stages.values():
        sum(numbers.values())


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
