"""Which stage runs where: a pure function of the stages' costs and the devices.

A pipeline is as fast as its slowest device, so the plan makes the busiest one as little busy as it can. Stages are
first kept whole, since replicas of a stage exchange gradients; only where that is more than a tolerance above the lower
bound are stages cut into replicas, each with a share of the batch, in the manner of McNaughton's wrap-around rule:
devices are filled one after the other and a stage is cut where a device is full.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.planning.bounds import StageCost, lower_bound_s
from cluster.planning.devices import GIB, Device
from freqgan.errors import InputError

Item = TypeVar("Item")

TOLERANCE = 0.05
PRECISION = 1e-3  # of the length of a step, where fillings are searched
SHUFFLED_WORK, MOST_SHUFFLES = 20_000, 200
SEARCHED_WORK, MOST_SEARCHED = 200_000, 2_000
"""Stages times devices times orders that are searched where no plan was near the bound: a third of a second."""
RESTART = 200
"""Orders after which that search begins from another random one."""


@dataclass(frozen=True)
class Assignment:
    """``images`` of every batch of ``stage``, on ``device`` (its place in the list of devices)."""

    stage: str
    device: int
    images: int


@dataclass(frozen=True)
class Constraints:
    """What may be done.

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
        replicas: a stage's replicas follow each other, in the order of their shares of the batch.
        busy_s: seconds of a step by device, of those that are used.
        lower_bound_s: no plan for these costs and devices has a less busy busiest device.

    """

    batch: int
    devices: tuple[Device, ...]
    replicas: tuple[Assignment, ...]
    busy_s: Mapping[int, float]
    lower_bound_s: float
    by_stage: Mapping[str, tuple[Assignment, ...]] = field(repr=False)

    @property
    def step_s(self) -> float:
        """Seconds of a step where it is slowest."""
        return max(self.busy_s.values())

    @property
    def images_per_s(self) -> float:
        """Of a full pipeline, before links and failures."""
        return self.batch / self.step_s

    @property
    def bottleneck(self) -> int:
        """The busiest device."""
        return max(self.busy_s, key=lambda device: self.busy_s[device])

    def on(self, device: int) -> list[Assignment]:
        """The replicas on ``device``."""
        return [replica for replica in self.replicas if replica.device == device]


def make_plan(
    stages: Sequence[StageCost], devices: Sequence[Device], batch: int, rules: Constraints | None = None
) -> Plan:
    """The plan for ``stages`` in the order of the chain on ``devices``.

    Raises:
        InputError: a stage has no device, or none with room for it; it shows demand beside supply.

    """
    rules = rules or Constraints()
    problem = _Problem(stages, devices, batch, rules)
    bound = lower_bound_s(stages, [device.speed for device in devices], batch)
    whole = problem.whole()
    best = whole
    good_enough = whole is not None and problem.step_s(whole) <= (1 + rules.tolerance) * bound
    if rules.cut and not good_enough:
        best = min(filter(None, (whole, problem.cut(bound))), key=problem.step_s, default=None)
    if best is None:
        raise InputError(problem.shortage())
    order = {stage.name: i for i, stage in enumerate(stages)}
    replicas = tuple(sorted(best, key=lambda r: order[r.stage]))
    by_stage: dict[str, list[Assignment]] = defaultdict(list)
    for replica in replicas:
        by_stage[replica.stage].append(replica)
    frozen = {name: tuple(members) for name, members in by_stage.items()}
    return Plan(batch, tuple(devices), replicas, problem.busy_s(best), bound, frozen)


class _Problem:
    """Stages, devices and rules, and the two ways to bring them together."""

    def __init__(self, stages: Sequence[StageCost], devices: Sequence[Device], batch: int, rules: Constraints) -> None:
        self.stages, self.devices, self.batch, self.rules = stages, devices, batch, rules
        self.costs = {stage.name: stage for stage in stages}
        everything = range(len(devices))
        self.allowed = {s.name: [d for d in everything if rules.allowed(s.name, devices[d])] for s in stages}
        self._usable = {name: frozenset(usable) for name, usable in self.allowed.items()}
        for name, usable in self.allowed.items():
            if not usable:
                raise InputError(
                    f"plan: no device may run {name}: its rules leave none of {len(devices)} devices; "
                    "add such a device or relax the rule"
                )

    def busy_s(self, replicas: Sequence[Assignment]) -> dict[int, float]:
        """Seconds of a step by device."""
        busy: dict[int, float] = defaultdict(float)
        for replica in replicas:
            seconds = self.costs[replica.stage].seconds(replica.images)
            busy[replica.device] += seconds / self.devices[replica.device].speed
        return dict(busy)

    def step_s(self, replicas: Sequence[Assignment]) -> float:
        return max(self.busy_s(replicas).values())

    def whole(self) -> list[Assignment] | None:
        """Dearest stage first, each whole to the device that is then least busy; None where memory does not do."""
        busy, room = [0.0] * len(self.devices), [device.memory_bytes for device in self.devices]
        replicas = []
        for stage in sorted(self.stages, key=lambda s: (len(self.allowed[s.name]), -s.seconds(self.batch))):
            seconds, size = stage.seconds(self.batch), _bytes(stage, self.batch)
            fitting = [d for d in self.allowed[stage.name] if size <= room[d]]
            if not fitting:
                return None
            device = min(fitting, key=lambda d: busy[d] + seconds / self.devices[d].speed)
            busy[device] += seconds / self.devices[device].speed
            room[device] -= size
            replicas.append(Assignment(stage.name, device, self.batch))
        return replicas

    def cut(self, bound: float) -> list[Assignment] | None:
        """Filled in several orders; None where none works: memory is short.

        The fewest replicas of those that are near the bound, or else the shortest step.
        """
        speeds = [device.speed for device in self.devices]
        upwards = sorted(range(len(self.devices)), key=lambda d: speeds[d])
        tries = [
            (stages, fresh)
            for stages in self._orders()
            for fresh in ((upwards[::-1], upwards) if speeds[upwards[0]] < speeds[upwards[-1]] else (upwards,))
        ]
        near = bound * (1 + self.rules.tolerance)
        good = [self._filled(stages, fresh, near) for stages, fresh in tries]
        if any(good):
            return min(filter(None, good), key=len)
        best: list[Assignment] | None = None
        for stages, fresh in tries:
            limit = math.inf if best is None else self.step_s(best)
            best = self._shortest(stages, fresh, near, limit) or best
        return best and self._searched(best, near)

    def _searched(self, best: list[Assignment], near: float) -> list[Assignment]:
        """The best, or what small changes of orders of stages and devices find, each kept where the step is shorter.

        The orders they begin with are random, some after others: the best one known leads to worse ends.
        """
        rng, stages, fresh, step_s = random.Random(0), list(self.stages), list(range(len(self.devices))), math.inf
        for turn in range(min(MOST_SEARCHED, SEARCHED_WORK // (len(stages) * len(fresh)))):
            if turn % RESTART == 0:
                stages, fresh, step_s = _shuffled(self.stages, rng), _shuffled(range(len(self.devices)), rng), math.inf
            tried_stages, tried_fresh = list(stages), list(fresh)
            _move(tried_stages, rng.randint(1, 2), rng)
            _move(tried_fresh, rng.randint(0, 2), rng)
            tried_stages.sort(key=lambda s: len(self.allowed[s.name]))  # those with few devices first
            if found := self._shortest(tried_stages, tried_fresh, near, step_s):
                stages, fresh, step_s = tried_stages, tried_fresh, self.step_s(found)
                best = min(best, found, key=self.step_s)
                if step_s <= near:
                    break
        return best

    def _orders(self) -> list[list[StageCost]]:
        """Orders of the stages to try, always those with few devices to choose from first; fewer for many devices."""
        keys: list[Callable[[StageCost], float]]
        keys = [lambda s: -s.image_s, lambda s: -s.fixed_s, lambda s: -s.fixed_s / s.image_s, lambda s: s.fixed_s]
        tries = SHUFFLED_WORK // (len(self.stages) * len(self.devices))
        rng = random.Random(0)
        ranks = [{stage.name: rng.random() for stage in self.stages} for _ in range(min(tries, MOST_SHUFFLES))]
        keys += [lambda s, rank=rank: rank[s.name] for rank in ranks]  # type: ignore[misc]  # mypy knows no defaults here
        return [sorted(self.stages, key=lambda s: (len(self.allowed[s.name]), key(s))) for key in keys]

    def _shortest(
        self, stages: Sequence[StageCost], fresh: Sequence[int], bound: float, limit: float
    ) -> list[Assignment] | None:
        """The filling with the shortest step under ``limit``, or None."""
        longest = 2 * sum(stage.seconds(self.batch) for stage in self.stages) / min(d.speed for d in self.devices)
        low, high = bound, min(1.25 * bound, limit * (1 - PRECISION))
        while (found := self._filled(stages, fresh, high)) is None:
            if high >= min(longest, limit * (1 - PRECISION)):
                return None
            low, high = high, min(1.5 * high, limit * (1 - PRECISION))
        while high - low > PRECISION * low:
            middle = (low + high) / 2
            tried = self._filled(stages, fresh, middle)
            low, high, found = (middle, high, found) if tried is None else (low, middle, tried)
        return found

    def _filled(self, stages: Sequence[StageCost], fresh: Sequence[int], step_s: float) -> list[Assignment] | None:
        """Devices filled for ``step_s`` each, one after the other; None when the images do not fit.

        A device that took part of a stage is the first to be tried by the next one: what is left over on it is room
        for cheaper images.
        """
        time_left = [step_s * device.speed for device in self.devices]
        room = [device.memory_bytes for device in self.devices]
        opened: dict[int, None] = {}  # a set that keeps its order
        replicas: list[Assignment] = []
        for stage in stages:
            missing = self.batch
            usable = self._usable[stage.name]
            for device in (*opened, *(d for d in fresh if d not in opened)):
                images = min(missing, _fitting(stage, time_left[device], room[device])) if device in usable else 0
                if images:
                    time_left[device] -= stage.seconds(images)
                    room[device] -= _bytes(stage, images)
                    replicas.append(Assignment(stage.name, device, images))
                    missing -= images
                if not missing:
                    break
            if missing:
                return None
            opened |= dict.fromkeys(r.device for r in replicas if r.stage == stage.name)
        return replicas

    def shortage(self) -> str:
        """Demand beside supply, for a plan that memory forbids."""
        demand = sum(_bytes(stage, self.batch) for stage in self.stages) / GIB
        supply = sum(device.memory_bytes for device in self.devices) / GIB
        largest = max(device.memory_bytes for device in self.devices) / GIB
        stage = max(self.stages, key=lambda s: s.fixed_bytes + s.image_bytes)
        least = _bytes(stage, 1) / GIB
        return (
            f"plan: the stages do not fit into memory: {demand:.3g} GiB wanted, {least:.3g} GiB of it by one image of "
            f"{stage.name}; {len(self.devices)} devices have {supply:.3g} GiB, {largest:.3g} GiB at most in one: "
            "add devices, or take a smaller batch or narrower networks"
        )


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _move(order: list[Item], times: int, rng: random.Random) -> None:
    """Takes an item from where it is to another place, so many times."""
    for _ in range(times):
        order.insert(rng.randrange(len(order)), order.pop(rng.randrange(len(order))))


def _bytes(stage: StageCost, images: int) -> int:
    return stage.fixed_bytes + stage.image_bytes * images


def _fitting(stage: StageCost, seconds: float, room_bytes: int) -> int:
    """How many images of ``stage`` fit into so much time (at speed 1) and memory."""
    by_time = math.floor((seconds - stage.fixed_s) / stage.image_s * (1 + 1e-12)) if seconds > stage.fixed_s else 0
    by_room = (room_bytes - stage.fixed_bytes) // stage.image_bytes if stage.image_bytes else by_time
    return max(0, min(by_time, by_room if room_bytes >= stage.fixed_bytes else 0))
