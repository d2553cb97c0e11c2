"""Random inventories for the planner, and what holds for every plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest

from cluster.planning.cost_model import counted_work, estimated, with_speeds
from cluster.planning.devices import ACCELERATORS, CPU, Device
from cluster.planning.plan import Plan
from cluster.planning.stage_cost import StageCost
from cluster.run.settings import RunSettings
from freqgan.costing.operator_count import StepWork
from launch.settings.load import load_settings

PRESETS = ("cifar10", "clothing")
MOST_DEVICES = 1024


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


def check_plan(plan: Plan, stages: Sequence[StageCost]) -> None:
    """What holds for every plan."""
    assert [s.name for s in stages] == list(plan.by_stage)
    for stage in stages:
        parts = plan.by_stage[stage.name]
        assert sum(part.images for part in parts) == plan.batch
        assert all(part.images > 0 for part in parts)
        assert len({part.device for part in parts}) == len(parts), "two replicas of a stage on one device"
    costs = {stage.name: stage for stage in stages}
    for device, busy_s in plan.busy_s.items():
        own = plan.on(device)
        seconds = sum(costs[r.stage].seconds(r.images) for r in own) / plan.devices[device].speed
        assert busy_s == pytest.approx(seconds)
        used = sum(costs[r.stage].fixed_bytes + costs[r.stage].image_bytes * r.images for r in own)
        assert used <= plan.devices[device].memory_bytes
    assert plan.lower_bound_s <= plan.step_s * (1 + 1e-9)
