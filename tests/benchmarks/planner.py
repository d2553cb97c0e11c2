"""Random inventories for the planner, and the best lower bound that is known for a plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from cluster.bounds import StageCost
from cluster.costs import counted_work, estimated, with_speeds
from cluster.inventory import ACCELERATORS, CPU, Device
from cluster.planning import Plan
from cluster.settings import RunSettings
from freqgan.cost import StepWork
from launch.configuration import load_settings

PRESETS = ("cifar10", "clothing")
MOST_DEVICES = 1024
EXACT_TERMS = 3_000
"""Stages times devices up to which a mixed-integer program is solved where the quick bound does not do."""


@cache
def _model(preset: str) -> tuple[RunSettings, dict[str, StepWork]]:
    settings = load_settings(preset, ["data=none"])
    return settings, counted_work(settings)


def random_problem(rng: random.Random) -> tuple[list[StageCost], list[Device], int]:
    """1 to 1,024 GPUs of one to four types, the stages of a preset, a batch that grows with the GPUs."""
    settings, work = _model(rng.choice(PRESETS))
    kinds = rng.sample([name for name in ACCELERATORS if name != CPU], rng.randint(1, 4))
    count = round(MOST_DEVICES ** rng.random())
    batch = settings.batch * max(1, round(count / len(work)))
    devices = [
        Device(f"n{i // 8}", i % 8, kind, 1.0, ACCELERATORS[kind].memory_bytes)
        for i in range(count)
        for kind in [rng.choice(kinds)]
    ]
    estimates = {kind: estimated(settings, work, kind) for kind in kinds}
    stages = estimates[kinds[0]]
    return list(stages), with_speeds(devices, stages, estimates, batch), batch


def best_known_bound_s(plan: Plan, stages: Sequence[StageCost], limit_s: float = 20.0) -> float:
    """The planner's own lower bound; where the plan is not near it, that of a mixed-integer program as well.

    The program: shares k of stages on devices, a binary z for every stage and device that pays the fixed cost, and
    the length of a step, which is made least. HiGHS proves a bound even where it does not finish.
    """
    if plan.step_s <= 1.05 * plan.lower_bound_s or len(stages) * len(plan.devices) > EXACT_TERMS:
        return plan.lower_bound_s
    S, G = len(stages), len(plan.devices)
    shares, used, length = np.arange(S * G).reshape(S, G), S * G + np.arange(S * G).reshape(S, G), 2 * S * G
    rows, lows = [], []
    for s in range(S):
        whole = np.zeros(length + 1)
        whole[shares[s]] = 1
        rows.append(whole)
        lows.append(1.0)
        for g in range(G):
            paid = np.zeros(length + 1)
            paid[used[s, g]], paid[shares[s, g]] = 1, -1
            rows.append(paid)
            lows.append(0.0)
    for g, device in enumerate(plan.devices):
        room = np.zeros(length + 1)
        room[shares[:, g]] = [-stage.image_s * plan.batch for stage in stages]
        room[used[:, g]] = [-stage.fixed_s for stage in stages]
        room[length] = device.speed
        rows.append(room)
        lows.append(0.0)
    cost, kind = np.zeros(length + 1), np.zeros(length + 1)
    cost[length], kind[S * G : length] = 1, 1
    highest = np.append(np.ones(length), plan.step_s * 1.001)
    found = milp(
        cost,
        constraints=LinearConstraint(np.array(rows), np.array(lows), np.inf),
        integrality=kind,
        bounds=Bounds(np.zeros(length + 1), highest),
        options={"time_limit": limit_s},
    )
    return max(plan.lower_bound_s, float(found.mip_dual_bound or 0.0))
