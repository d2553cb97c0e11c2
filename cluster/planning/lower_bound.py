"""How short a step of a pipeline can be at best: the yardstick of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cluster.planning.stage_cost import StageCost

Numbers = NDArray[np.float64]
BISECTIONS = 14
ROUNDING = 1e-9


def lower_bound_s(stages: Sequence[StageCost], speeds: Sequence[float], batch: int) -> float:
    """Return seconds that the busiest device is busy in a step at the very least, whatever the plan.

    It is the greatest of three: the work of all stages, each whole, over the speed of all devices; the least that can
    be done of a stage, one image, on the fastest device; and what a linear program proves (:class:`_DualBound`).

    Args:
        stages: the cost of every stage on a device of speed 1.
        speeds: one of every device.
        batch: images of a step.

    """
    return _lower_bound_s(tuple(stages), tuple(sorted(speeds)), batch)


@lru_cache(maxsize=16)
def _lower_bound_s(stages: tuple[StageCost, ...], speeds: tuple[float, ...], batch: int) -> float:
    whole = sum(stage.seconds(batch) for stage in stages) / sum(speeds)
    single = max(stage.seconds(1) for stage in stages) / max(speeds)
    dual = _DualBound(stages, speeds, batch)
    return _least(lambda step_s: not dual.rules_out(step_s), max(whole, single))


def _least(holds: Callable[[float], bool], low: float) -> float:
    """Return a number from ``low`` on, near the least for which ``holds``, and not above it."""
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
    """Proofs by linear programming duality that no plan has a step of T seconds.

    A column is what one device does in a step: shares a = (a_1, ..., a_S) of the batch by stage. With n_v devices of
    speed v and the set C_v of all columns that one of them has the time for, a plan is a solution of

        primal    sum_v sum_{a in C_v} x_va a_s >= 1  for every stage s,    sum_{a in C_v} x_va <= n_v,    x >= 0

    in whole numbers. No solution at all exists, by Farkas' lemma, where prices of the stages are found with

        dual      sum_v n_v max_{a in C_v} q.a < 1,    q >= 0,    sum_s q_s = 1:

    all devices together cannot earn what the batch is worth. For given prices a device earns most from the dearest
    stages first, so these columns are enough for C_v. For i, j, k different, f_s seconds without images and w_s seconds
    for the images of a whole batch, and R = T v seconds of a device at speed 1, they are the positive ones of

        column    a_i = min(1, max(floor(B (R - f_i) / w_i) / B, (R - f_i - min f) / w_i))
                  a_i = 1,  a_j = min(1, (R - f_i - f_j - w_i) / w_j)
                  a_i = a_j = 1,  a_k = (min(r, w_k) + max(0, r - w_k - min f)) / w_k,
                  r = R - f_i - f_j - f_k - w_i - w_j,

    where min f is the least of the stages that a column does not name. The first is one stage alone, in whole images of
    the batch B, or all time of a device with several; in the last the cheapest of three stages has the time of those
    that are cheaper still.

    Source: P. C. Gilmore and R. E. Gomory, A linear programming approach to the cutting-stock problem, Operations
    Research 9 (1961), for columns and their prices.
    """

    def __init__(self, stages: Sequence[StageCost], speeds: Sequence[float], batch: int) -> None:
        self.batch = batch
        self.fixed_s = np.array([stage.fixed_s for stage in stages])
        self.work_s = batch * np.array([stage.image_s for stage in stages])
        self.speeds, self.counts = np.unique(np.array(speeds), return_counts=True)

    def rules_out(self, step_s: float) -> bool:
        """Return whether prices prove that no plan has a step of ``step_s``; they are held against every column."""
        columns = [self._columns(step_s * speed) for speed in self.speeds]
        prices = _best_prices(columns, self.counts)
        earned = sum(count * (shares @ prices).max() for count, shares in zip(self.counts, columns, strict=True))
        return bool(earned < 1 - ROUNDING)

    def _columns(self, room_s: float) -> Numbers:
        """Return the columns (n, S) of a device that has ``room_s`` seconds at speed 1."""
        return np.concatenate([self._one(room_s), self._two(room_s), self._three(room_s)])

    def _one(self, room_s: float) -> Numbers:
        images = np.floor(self.batch * (room_s - self.fixed_s) / self.work_s * (1 + ROUNDING))
        beside_others = (
            room_s - self.fixed_s - self._least_other_s(np.arange(len(self.fixed_s))[:, None])
        ) / self.work_s
        return np.diag(np.clip(np.maximum(images / self.batch, beside_others), 0, 1))

    def _two(self, room_s: float) -> Numbers:
        left_s = room_s - self.fixed_s[:, None] - self.fixed_s - self.work_s[:, None]
        np.fill_diagonal(left_s, 0)
        first, second = np.nonzero(left_s > 0)
        shares = np.minimum(left_s[first, second] / self.work_s[second], 1)
        return self._shares((first, second), (np.ones(len(first)), shares))

    def _three(self, room_s: float) -> Numbers:
        whole_s = self.fixed_s + self.work_s
        left_s = room_s - whole_s[:, None, None] - whole_s[:, None] - self.fixed_s
        first, second, third = np.nonzero(left_s > 0)
        different = (first < second) & (third != first) & (third != second)
        first, second, third = first[different], second[different], third[different]
        left_s, work_s = left_s[first, second, third], self.work_s[third]
        beyond_s = np.maximum(left_s - work_s - self._least_other_s(np.stack([first, second, third], 1)), 0)
        ones = np.ones(len(first))
        return self._shares((first, second, third), (ones, ones, (np.minimum(left_s, work_s) + beyond_s) / work_s))

    def _shares(self, stages: Sequence[NDArray[np.intp]], shares: Sequence[Numbers]) -> Numbers:
        """Return columns (n, S) that have ``shares`` of ``stages``, both sequences of arrays (n,), and else zeros."""
        columns = np.zeros((len(stages[0]), len(self.fixed_s)))
        for stage, share in zip(stages, shares, strict=True):
            columns[np.arange(len(stage)), stage] = share
        return columns

    def _least_other_s(self, named: NDArray[np.intp]) -> Numbers:
        """Return the least of ``fixed_s`` (n,) beside the stages ``named`` (n, k); infinite where that is all."""
        others = np.broadcast_to(self.fixed_s, (len(named), len(self.fixed_s))).copy()
        np.put_along_axis(others, named, np.inf, 1)
        least: Numbers = others.min(1)
        return least


def _best_prices(columns: Sequence[Numbers], counts: NDArray[np.intp]) -> Numbers:
    """Return prices (S,) at which all devices earn the least, to the tolerance of HiGHS.

    Args:
        columns: (n, S) for every speed.
        counts: devices of every speed.

    """
    from scipy.optimize import linprog  # only here: it takes a second to load, and few processes plan

    stages, speeds = columns[0].shape[1], len(columns)
    kinds = np.repeat(np.arange(speeds), [len(shares) for shares in columns])
    program = linprog(
        np.concatenate([np.zeros(stages), counts]),  # of the prices, and of what one device of a speed earns
        A_ub=np.hstack([np.concatenate(columns), -np.eye(speeds)[kinds]]),
        b_ub=np.zeros(len(kinds)),
        A_eq=[[1.0] * stages + [0.0] * speeds],
        b_eq=[1.0],
    )
    prices = np.clip(program.x[:stages], 0, None)
    return np.asarray(prices / prices.sum())
