"""The plan that is fastest with its links: whole stages, or replicas of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from cluster.planning.bin_packing import make_plan
from cluster.planning.devices import Device
from cluster.planning.plan import Constraints, Plan
from cluster.planning.stage_cost import StageCost
from cluster.planning.traffic import traffic
from cluster.run.settings import RunSettings
from freqgan.errors import InputError

TOLERANCES = (0.05, 0.2, 0.5)
"""Of the plans with replicas among which the links decide: fewer replicas move less."""


def best_plan(
    settings: RunSettings,
    stages: Sequence[StageCost],
    devices: Sequence[Device],
    parameters: Mapping[str, int],
    link_bytes_per_s: float,
    constraints: Constraints | None = None,
) -> Plan:
    """Return the plan for the batch of ``settings`` that is fastest with its links.

    Args:
        settings: of the run.
        stages: what each costs on a device of speed 1.
        devices: those that there are.
        parameters: weights of all networks, by stage.
        link_bytes_per_s: what a node can send.
        constraints: what the plan has to keep to.

    Raises:
        InputError: as :func:`cluster.planning.bin_packing.make_plan`.

    """
    constraints = constraints or Constraints()
    if not constraints.cut:
        return make_plan(stages, devices, settings.batch, constraints)
    plans = [make_plan(stages, devices, settings.batch, replace(constraints, tolerance=t)) for t in TOLERANCES]
    with suppress(InputError):  # whole stages may not fit where their parts do
        plans.append(make_plan(stages, devices, settings.batch, replace(constraints, cut=False)))

    def seconds(plan: Plan) -> float:
        return max(plan.step_s, max(traffic(settings, plan, parameters).by_node.values()) / link_bytes_per_s)

    return min(plans, key=seconds)
