"""Bounds that mixed-integer programs prove, for plans that the planner's own bound leaves open.

Both programs let images be cut, and know no memory: what they allow is more than what a plan can do, so that what they
rule out no plan can do either. HiGHS proves a bound even where it does not finish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

from cluster.planning.plan import Plan
from cluster.planning.stage_cost import StageCost

ROUNDING = 1e-9
SAFETY = 1e-5
"""A bound is given this much lower than it was proven: the solver's tolerances are 1e-6 of a device's time."""
PATTERN_LIMIT_S, ASSIGNMENT_LIMIT_S = 10.0, 300.0
EXACT_TERMS = 600
"""Stages times devices up to which the program of assignments is tried; beyond, patterns are the better choice."""
PRECISION = 0.01
"""The program of assignments stops where its bound is so near to the best it has found."""
INFEASIBLE = 2


def best_known_bound_s(plan: Plan, stages: Sequence[StageCost], within: float = 0.05) -> float:
    """A lower bound of the step of any plan: the planner's own where ``plan`` is ``within`` it, else what is proven.

    Proven is first that no plan is more than ``within`` better; where the solver gives up on that, a bound as such.
    """
    if plan.step_s <= (1 + within) * plan.lower_bound_s:
        return plan.lower_bound_s
    shorter_s = plan.step_s / (1 + within)
    if rules_out(stages, [device.speed for device in plan.devices], plan.batch, shorter_s * (1 + SAFETY)):
        return max(plan.lower_bound_s, shorter_s)
    if len(stages) * len(plan.devices) <= EXACT_TERMS:
        return max(plan.lower_bound_s, assignment_bound_s(plan, stages))
    return plan.lower_bound_s


@dataclass
class _Program:
    """A sparse mixed-integer program under construction; every column is from 0 to its ``most``."""

    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    greatest: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)

    def row(self, least: float, greatest: float) -> int:
        self.least.append(least)
        self.greatest.append(greatest)
        return len(self.least) - 1

    def column(self, most: float, factors: dict[int, float], *, whole: bool = False) -> int:
        """``factors`` by row."""
        self.most.append(most)
        self.whole.append(int(whole))
        column = len(self.most) - 1
        self.rows += factors
        self.columns += [column] * len(factors)
        self.factors += factors.values()
        return column

    def solve(self, cost: dict[int, float], limit_s: float) -> tuple[int, float]:
        """SciPy's status, and the bound of the least cost that is proven."""
        matrix = coo_matrix((self.factors, (self.rows, self.columns)), shape=(len(self.least), len(self.most)))
        costs = np.zeros(len(self.most))
        costs[list(cost)] = list(cost.values())
        found = milp(
            costs,
            constraints=LinearConstraint(matrix.tocsc(), self.least, self.greatest),
            integrality=np.array(self.whole),
            bounds=Bounds(np.zeros(len(self.most)), np.array(self.most)),
            options={"time_limit": limit_s, "mip_rel_gap": PRECISION},
        )
        return int(found.status), float(found.mip_dual_bound or 0.0)


def rules_out(
    stages: Sequence[StageCost], speeds: Sequence[float], batch: int, step_s: float, limit_s: float = PATTERN_LIMIT_S
) -> bool:
    """Whether it is proven that no plan has a step of ``step_s``.

    A pattern is a set A of stages on a device of speed v, which leaves it ``step_s`` v - f(A) seconds for images. The
    program counts devices by speed and pattern: n (integers), and has one flow of images from every stage to every
    pattern with it; that the devices of a pattern are alike, and their shares can be made equal, is what makes it so
    much smaller than one that names devices.
    """
    program = _Program()
    batches = [program.row(1.0, np.inf) for _ in stages]
    image_s = np.array([stage.image_s for stage in stages])
    for speed, count in zip(*np.unique(np.array(speeds), return_counts=True), strict=True):
        devices = program.row(0.0, float(count))
        for members, left_s in _patterns(stages, step_s * speed):
            shares = left_s / (batch * image_s[members])  # of a batch, by stage, if all that time were its own
            if len(members) == 1:
                images = min(batch, np.floor(left_s / image_s[members[0]] * (1 + ROUNDING)))
                program.column(count, {devices: 1.0, batches[members[0]]: images / batch}, whole=True)
                continue
            time = program.row(-np.inf, 0.0)
            program.column(count, {devices: 1.0, time: -1.0}, whole=True)
            for stage, share in zip(members, shares, strict=True):
                program.column(1.0, {batches[stage]: 1.0, time: 1.0 / share})
    if not program.most:
        return True
    status, _ = program.solve({}, limit_s)
    return status == INFEASIBLE


def _patterns(stages: Sequence[StageCost], available_s: float) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Sets of stages with room for an image of each on a device, and the seconds they leave for images, at speed 1."""
    member = (np.arange(1, 2 ** len(stages))[:, None] >> np.arange(len(stages))) & 1
    fixed_s = member @ np.array([stage.fixed_s for stage in stages])
    least_s = fixed_s + member @ np.array([stage.image_s for stage in stages])
    for pattern in np.flatnonzero(least_s <= available_s * (1 + ROUNDING)):
        yield np.flatnonzero(member[pattern]), available_s - fixed_s[pattern]


def assignment_bound_s(plan: Plan, stages: Sequence[StageCost], limit_s: float = ASSIGNMENT_LIMIT_S) -> float:
    """The least step by a program that names devices: better where a few devices have many stages each.

    Shares of every stage on every device, a binary that pays for a stage on a device, and the length of a step.
    """
    program = _Program()
    batches = [program.row(1.0, np.inf) for _ in stages]
    times = [program.row(0.0, np.inf) for _ in plan.devices]
    unit_s = plan.step_s
    for s, stage in enumerate(stages):
        for d in range(len(plan.devices)):
            paid = program.row(0.0, np.inf)
            program.column(1.0, {batches[s]: 1.0, times[d]: -stage.image_s * plan.batch / unit_s, paid: -1.0})
            program.column(1.0, {times[d]: -stage.fixed_s / unit_s, paid: 1.0}, whole=True)
    length = program.column(1.001, {times[d]: device.speed for d, device in enumerate(plan.devices)})
    _, bound = program.solve({length: 1.0}, limit_s)
    return bound * unit_s * (1 - SAFETY)
