"""Plans for random inventories, held against the best lower bound that is known for each.

``python -m tests.campaigns.plans [COUNT]`` (``make plans``) prints a table: by the number of GPUs, how far the busiest
device is above the bound, and how long planning took. Ends with 1 if any plan is over :data:`LARGEST_GAP` or
:data:`LONGEST_S`.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planning.bin_packing import make_plan
from tests.support.plan_bounds import best_known_bound_s
from tests.support.plans import MOST_DEVICES, check_plan, random_problem

COUNT = 1_000
LARGEST_GAP, LONGEST_S = 0.05, 1.0
ROUNDING = 1e-9
SIZES = ((1, 7), (8, 63), (64, 511), (512, MOST_DEVICES))


@dataclass(frozen=True)
class Finding:
    """One plan.

    Attributes:
        seed: of its inventory.
        gap: of its step over the best lower bound that is known, as a share.
        own_gap: over the bound that the planner gives with its plan.
        seconds: of this process's processor for planning: what it takes on a machine that does nothing else.
        wall_s: what it took here.

    """

    seed: int
    devices: int
    gap: float
    own_gap: float
    seconds: float
    wall_s: float

    @property
    def is_far(self) -> bool:
        """Whether it is over the largest gap; a gap that is only proven to be no larger is that to rounding."""
        return self.gap > LARGEST_GAP * (1 + ROUNDING) + ROUNDING

    @property
    def is_late(self) -> bool:
        return self.seconds > LONGEST_S


def find(seed: int) -> Finding:
    """The plan for the inventory of ``seed``, checked as the tests do."""
    stages, devices, batch = random_problem(random.Random(seed))
    wall_s, begun_s = time.perf_counter(), time.process_time()
    plan = make_plan(stages, devices, batch)
    seconds, wall_s = time.process_time() - begun_s, time.perf_counter() - wall_s
    check_plan(plan, stages)
    bound_s = best_known_bound_s(plan, stages, LARGEST_GAP)
    return Finding(seed, len(devices), plan.step_s / bound_s - 1, plan.step_s / plan.lower_bound_s - 1, seconds, wall_s)


def row(name: str, findings: Sequence[Finding]) -> str:
    """One line of the table."""
    gaps, own = ([100 * getattr(f, gap) for f in findings] for gap in ("gap", "own_gap"))
    seconds, wall = [f.seconds for f in findings], [f.wall_s for f in findings]
    return (
        f"{name:>9} {len(findings):6} {statistics.median(gaps):8.2f} {_percentile_99(gaps):6.2f} {max(gaps):6.2f} "
        f"{max(own):6.2f} {statistics.median(seconds):8.2f} {max(seconds):6.2f} {max(wall):6.2f} "
        f"{sum(f.is_far for f in findings):5} {sum(f.is_late for f in findings):5}"
    )


def _percentile_99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def campaign(count: int) -> int:
    """``count`` inventories; 0 when all plans are near enough and were made fast enough."""
    findings = [find(seed) for seed in range(count)]
    print(f"gap: % over the best known bound, {100 * LARGEST_GAP:.2f} where no more was to be proven")
    print("own: the worst over the bound that the planner itself gives; s: of the processor; wall: as it went by here")
    print(f"{'GPUs':>9} {'plans':>6} {'gap: med':>8} {'99 %':>6} {'worst':>6} {'own':>6} {'s: med':>8} {'worst':>6} "
          f"{'wall':>6} {'>5 %':>5} {'>1 s':>5}")  # fmt: skip
    for first, last in SIZES:
        if some := [f for f in findings if first <= f.devices <= last]:
            print(row(f"{first}-{last}", some))
    print(row("all", findings))
    bad = [f for f in findings if f.is_far or f.is_late]
    for f in bad:
        print(f"seed {f.seed}: {f.devices} GPUs, {100 * f.gap:.2f} % over the bound, {f.seconds:.2f} s")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(campaign(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT))
