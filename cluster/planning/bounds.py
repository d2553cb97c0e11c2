"""What stages cost, and how short a step of a pipeline can be at best: the yardstick of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
BISECTIONS = 14
ITERATIONS, FIRST_RATE, RATE_DECAY = 150, 0.5, 0.05
ROUNDING = 1e-9


@dataclass(frozen=True)
class StageCost:
    """What one stage takes: ``fixed_s + image_s * images`` seconds for a step on a device of speed 1.

    Memory likewise: ``fixed_bytes`` (weights, averages, moments) and ``image_bytes`` (activations) per image.
    """

    name: str
    fixed_s: float
    image_s: float
    fixed_bytes: int = 0
    image_bytes: int = 0

    def seconds(self, images: int) -> float:
        """Of a step on ``images`` images, at speed 1; none for no images."""
        return self.fixed_s + self.image_s * images if images else 0.0


def lower_bound_s(stages: Sequence[StageCost], speeds: Sequence[float], batch: int) -> float:
    """Seconds that the busiest device is busy in a step at the very least, whatever the plan.

    The greatest of three: the work of all stages, each whole, over the speed of all devices; the least that can be
    done of a stage, one image, on the fastest device; and what prices prove (:class:`_DualBound`).
    """
    whole = sum(stage.seconds(batch) for stage in stages) / sum(speeds)
    single = max(stage.seconds(1) for stage in stages) / max(speeds)
    market = _DualBound(stages, speeds, batch)
    return _least(lambda step_s: not market.proves_too_short(step_s), max(whole, single))


def _least(holds: Callable[[float], bool], low: float) -> float:
    """A number from ``low`` on, near the least for which ``holds``, and not above it."""
    if holds(low):
        return low
    high = 1.5 * low
    while not holds(high):
        low, high = high, 1.5 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low


class _DualBound:
    """Prices for the work of every stage, by linear programming duality.

    Whatever the prices: if all devices together cannot earn as much in a step as all images are worth, no plan does
    all images in that time. What a device of speed v can earn in T seconds is at most the greater of: the best single
    stage, in whole images (f + c k <= T v, k <= batch), and for two stages or more, of which i and j have the dearest
    prices, the time that is left when both have paid what they cost without images, T v - f_i - f_j: at the price of i
    until all images of i are done, then at that of j, and what is left when these are done too must pay for a third
    stage before it earns, at most the price of j. Prices move toward stages that earn too little, by multiplicative
    weights; any prices prove, good ones prove more.
    """

    def __init__(self, stages: Sequence[StageCost], speeds: Sequence[float], batch: int) -> None:
        self.batch = batch
        self.fixed = np.array([stage.fixed_s for stage in stages])
        self.image = np.array([stage.image_s for stage in stages])
        self.speeds, self.counts = np.unique(np.array(speeds), return_counts=True)
        self.work = batch * self.image
        self.third = _least_of_others(self.fixed)

    def proves_too_short(self, step_s: float) -> bool:
        """Whether some prices were found that prove that no plan has a step of ``step_s``."""
        alone, dearer, other = self._useful_s(step_s)
        logits = np.zeros(len(self.work))
        for iteration in range(ITERATIONS):
            prices = np.exp(logits - logits.max())
            earned, supply = self._earned(prices, alone, dearer, other)
            worth = float((prices * self.work).sum())
            if earned < worth * (1 - ROUNDING):
                return True
            logits += FIRST_RATE / (1 + RATE_DECAY * iteration) * (self.work - supply) * prices / worth
        return False

    def _useful_s(self, step_s: float) -> tuple[Numbers, Numbers, Numbers]:
        """Seconds for images on a device of each speed: of a stage alone (speeds, S), of the dearer and of the other.

        The latter two (speeds, S, S) by the dearer stage and the other one.
        """
        room = step_s * self.speeds[:, None]
        images = np.floor((room - self.fixed) / self.image * (1 + ROUNDING))
        alone = self.image * np.clip(images, 0, self.batch)
        left = np.maximum(room[..., None] - self.fixed[:, None] - self.fixed, 0)
        left[:, np.eye(len(self.fixed), dtype=bool)] = 0
        dearer = np.minimum(left, self.work[:, None])
        left = left - dearer
        other = np.minimum(left, self.work)
        return alone, dearer, other + np.maximum(left - other - self.third, 0)

    def _earned(self, prices: Numbers, alone: Numbers, dearer: Numbers, other: Numbers) -> tuple[float, Numbers]:
        """What all devices earn at these prices, and the seconds of every stage (S,) that they do for it."""
        single = alone * prices
        both = np.where(prices[:, None] >= prices, dearer * prices[:, None] + other * prices, 0)
        double = both.reshape(len(self.speeds), -1)
        rows = np.arange(len(self.speeds))
        best_single, best_double = single.argmax(1), double.argmax(1)
        first, second = np.divmod(best_double, len(prices))
        takes_two = double[rows, best_double] > single[rows, best_single]
        earned = np.where(takes_two, double[rows, best_double], single[rows, best_single])
        supply = np.zeros(len(prices))
        np.add.at(supply, best_single, np.where(takes_two, 0, alone[rows, best_single] * self.counts))
        np.add.at(supply, first, np.where(takes_two, dearer[rows, first, second] * self.counts, 0))
        np.add.at(supply, second, np.where(takes_two, other[rows, first, second] * self.counts, 0))
        return float((earned * self.counts).sum()), supply


def _least_of_others(values: Numbers) -> Numbers:
    """(S, S): the least of ``values`` but two; infinite where there are no others."""
    size = len(values)
    others = np.broadcast_to(values, (size, size, size)).copy()
    index = np.arange(size)
    others[index, :, index] = np.inf
    others[:, index, index] = np.inf
    least: Numbers = others.min(2)
    return least
