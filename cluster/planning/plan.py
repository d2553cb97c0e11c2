"""A plan: which device does how many images of which stage, and what a plan has to keep to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cluster.planning.devices import Device
from cluster.planning.lower_bound import lower_bound_s
from cluster.planning.stage_cost import StageCost

TOLERANCE = 0.05


@dataclass(frozen=True)
class Assignment:
    """``images`` of every batch of ``stage``, on ``device`` (its place in the list of devices)."""

    stage: str
    device: int
    images: int


@dataclass(frozen=True)
class Constraints:
    """What a plan has to keep to.

    Attributes:
        cut: stages may have replicas.
        tolerance: a plan this much above the lower bound is good enough: then the one with the fewest replicas.
        allowed: whether a stage may run on a device.

    """

    cut: bool = True
    tolerance: float = TOLERANCE
    allowed: Callable[[str, Device], bool] = lambda stage, device: True


@dataclass(frozen=True)
class Plan:
    """Every stage with its replicas.

    Attributes:
        batch: images of a step.
        costs: what every stage costs, in the order of the chain.
        devices: those that there are, used or not.
        replicas: a stage's replicas follow each other, in the order of their shares of the batch.

    """

    batch: int
    costs: tuple[StageCost, ...]
    devices: tuple[Device, ...]
    replicas: tuple[Assignment, ...]

    @cached_property
    def busy_s(self) -> Mapping[int, float]:
        """Seconds of a step by device, of those that are used."""
        return busy_s(self.replicas, {cost.name: cost for cost in self.costs}, self.devices)

    @cached_property
    def by_stage(self) -> Mapping[str, tuple[Assignment, ...]]:
        """The replicas of every stage, in the order of the chain."""
        return {cost.name: tuple(r for r in self.replicas if r.stage == cost.name) for cost in self.costs}

    @cached_property
    def lower_bound_s(self) -> float:
        """Seconds of a step that no plan for these costs and devices is below; found out when it is asked for."""
        return lower_bound_s(self.costs, [device.speed for device in self.devices], self.batch)

    @property
    def step_s(self) -> float:
        """Seconds of a step where it is slowest."""
        return max(self.busy_s.values())

    @property
    def images_per_s(self) -> float:
        """Images a second of a full pipeline, before links and failures."""
        return self.batch / self.step_s

    @property
    def bottleneck(self) -> int:
        """The busiest device."""
        return max(self.busy_s, key=lambda device: self.busy_s[device])

    def on(self, device: int) -> list[Assignment]:
        """Return the replicas on ``device``."""
        return [replica for replica in self.replicas if replica.device == device]


def busy_s(
    replicas: Sequence[Assignment], costs: Mapping[str, StageCost], devices: Sequence[Device]
) -> dict[int, float]:
    """Return the seconds of a step by device, of those that have a replica; ``costs`` by stage."""
    busy: dict[int, float] = defaultdict(float)
    for replica in replicas:
        busy[replica.device] += costs[replica.stage].seconds(replica.images) / devices[replica.device].speed
    return dict(busy)
