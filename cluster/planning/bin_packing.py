"""Which stage runs where: a pure function of the stages' costs and the devices.

A pipeline is as fast as its slowest device, so the plan makes the busiest one as little busy as it can. Stages are
first kept whole, since replicas of a stage exchange gradients; only where that is more than a tolerance above the lower
bound are stages cut into replicas, each with a share of the batch, in the manner of McNaughton's wrap-around rule:
devices are filled one after the other and a stage is cut where a device is full.

Source: R. McNaughton, Scheduling with deadlines and loss functions, Management Science 6 (1959).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from cluster.planning.devices import GIB, Device
from cluster.planning.lower_bound import lower_bound_s
from cluster.planning.plan import Assignment, Constraints, Plan, busy_s
from cluster.planning.stage_cost import StageCost
from freqgan.errors import InputError

Item = TypeVar("Item")

PRECISION = 1e-3  # of the length of a step, where packings are searched
SHUFFLED_WORK, MOST_SHUFFLES = 20_000, 200
SEARCHED_WORK, MOST_SEARCHED = 200_000, 2_000
"""Stages times devices times orders that are searched where no plan was near the bound: a third of a second."""
RESTART = 200
"""Orders after which that search begins from another random one."""


def make_plan(
    stages: Sequence[StageCost], devices: Sequence[Device], batch: int, constraints: Constraints | None = None
) -> Plan:
    """Return the plan for ``stages``, in the order of the chain, on ``devices``.

    Args:
        stages: what each costs on a device of speed 1.
        devices: those that there are; some may stay unused.
        batch: images of a step.
        constraints: what the plan has to keep to.

    Raises:
        InputError: a stage has no device, or none with room for it; it shows demand beside supply.

    """
    constraints = constraints or Constraints()
    problem = _Problem(stages, devices, batch, constraints)
    packings = [problem.pack_whole()]
    if constraints.cut:
        bound_s = lower_bound_s(stages, [device.speed for device in devices], batch)
        near_s = bound_s * (1 + constraints.tolerance)
        if packings[0] is None or problem.step_s(packings[0]) > near_s:
            packings.append(problem.pack_cut(bound_s, near_s))
    best = min(filter(None, packings), key=problem.step_s, default=None)
    if best is None:
        raise InputError(problem.shortage())
    order = {stage.name: i for i, stage in enumerate(stages)}
    return Plan(batch, tuple(stages), tuple(devices), tuple(sorted(best, key=lambda replica: order[replica.stage])))


class _Problem:
    """Stages, devices and constraints, and the two ways to bring them together."""

    def __init__(
        self, stages: Sequence[StageCost], devices: Sequence[Device], batch: int, constraints: Constraints
    ) -> None:
        self.stages, self.devices, self.batch = stages, devices, batch
        self.costs = {stage.name: stage for stage in stages}
        self.allowed = {
            stage.name: [i for i, device in enumerate(devices) if constraints.allowed(stage.name, device)]
            for stage in stages
        }
        self._usable = {name: frozenset(usable) for name, usable in self.allowed.items()}
        for name, usable in self.allowed.items():
            if not usable:
                raise InputError(
                    f"plan: no device may run {name}: its constraints leave none of {len(devices)} devices; "
                    "add such a device or relax the constraint"
                )

    def step_s(self, replicas: Sequence[Assignment]) -> float:
        """Return the seconds of a step on the busiest device."""
        return max(busy_s(replicas, self.costs, self.devices).values())

    def pack_whole(self) -> list[Assignment] | None:
        """Pack the dearest stage first, each whole on the device that is then least busy; None if memory is short."""
        busy, room = [0.0] * len(self.devices), [device.memory_bytes for device in self.devices]
        replicas = []
        for stage in sorted(self.stages, key=lambda s: (len(self.allowed[s.name]), -s.seconds(self.batch))):
            seconds, size = stage.seconds(self.batch), stage.memory_bytes(self.batch)
            fitting = [d for d in self.allowed[stage.name] if size <= room[d]]
            if not fitting:
                return None
            device = min(fitting, key=lambda d: busy[d] + seconds / self.devices[d].speed)
            busy[device] += seconds / self.devices[device].speed
            room[device] -= size
            replicas.append(Assignment(stage.name, device, self.batch))
        return replicas

    def pack_cut(self, bound_s: float, near_s: float) -> list[Assignment] | None:
        """Pack stages in several orders, cut where a device is full; None if memory is short in all of them.

        Returns the fewest replicas of those whose step is at most ``near_s``, or else the shortest step.
        """
        speeds = [device.speed for device in self.devices]
        upwards = sorted(range(len(self.devices)), key=lambda d: speeds[d])
        tries = [
            (stages, fresh)
            for stages in self._orders()
            for fresh in ((upwards[::-1], upwards) if speeds[upwards[0]] < speeds[upwards[-1]] else (upwards,))
        ]
        good = [self._pack(stages, fresh, near_s) for stages, fresh in tries]
        if any(good):
            return min(filter(None, good), key=len)
        best: list[Assignment] | None = None
        for stages, fresh in tries:
            limit_s = math.inf if best is None else self.step_s(best)
            best = self._shortest(stages, fresh, near_s, limit_s) or best
        return best and self._search(best, near_s)

    def _search(self, best: list[Assignment], near_s: float) -> list[Assignment]:
        """Return ``best``, or better that small changes of orders give, each kept where the step is shorter.

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
            if shorter := self._shortest(tried_stages, tried_fresh, near_s, step_s):
                stages, fresh, step_s = tried_stages, tried_fresh, self.step_s(shorter)
                best = min(best, shorter, key=self.step_s)
                if step_s <= near_s:
                    break
        return best

    def _orders(self) -> list[list[StageCost]]:
        """Return orders of the stages to try, those with few devices first in all; fewer orders for many devices."""
        keys: list[Callable[[StageCost], float]]
        keys = [lambda s: -s.image_s, lambda s: -s.fixed_s, lambda s: -s.fixed_s / s.image_s, lambda s: s.fixed_s]
        tries = SHUFFLED_WORK // (len(self.stages) * len(self.devices))
        rng = random.Random(0)
        ranks = [{stage.name: rng.random() for stage in self.stages} for _ in range(min(tries, MOST_SHUFFLES))]
        keys += [lambda s, rank=rank: rank[s.name] for rank in ranks]  # type: ignore[misc]  # mypy knows no defaults here
        return [sorted(self.stages, key=lambda s: (len(self.allowed[s.name]), key(s))) for key in keys]

    def _shortest(
        self, stages: Sequence[StageCost], fresh: Sequence[int], low_s: float, limit_s: float
    ) -> list[Assignment] | None:
        """Return the packing with the shortest step from ``low_s`` on and under ``limit_s``, or None."""
        longest_s = 2 * sum(stage.seconds(self.batch) for stage in self.stages) / min(d.speed for d in self.devices)
        low, high = low_s, min(1.25 * low_s, limit_s * (1 - PRECISION))
        while (packing := self._pack(stages, fresh, high)) is None:
            if high >= min(longest_s, limit_s * (1 - PRECISION)):
                return None
            low, high = high, min(1.5 * high, limit_s * (1 - PRECISION))
        while high - low > PRECISION * low:
            middle = (low + high) / 2
            shorter = self._pack(stages, fresh, middle)
            low, high, packing = (middle, high, packing) if shorter is None else (low, middle, shorter)
        return packing

    def _pack(self, stages: Sequence[StageCost], fresh: Sequence[int], step_s: float) -> list[Assignment] | None:
        """Fill devices for ``step_s`` each, one after the other; None when the images do not fit.

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
                    room[device] -= stage.memory_bytes(images)
                    replicas.append(Assignment(stage.name, device, images))
                    missing -= images
                if not missing:
                    break
            if missing:
                return None
            opened |= dict.fromkeys(r.device for r in replicas if r.stage == stage.name)
        return replicas

    def shortage(self) -> str:
        """Return demand beside supply, for a plan that memory forbids."""
        demand = sum(stage.memory_bytes(self.batch) for stage in self.stages) / GIB
        supply = sum(device.memory_bytes for device in self.devices) / GIB
        largest = max(device.memory_bytes for device in self.devices) / GIB
        stage = max(self.stages, key=lambda s: s.memory_bytes(1))
        least = stage.memory_bytes(1) / GIB
        return (
            f"plan: the stages do not fit into memory: {demand:.3g} GiB wanted, {least:.3g} GiB of it by one image of "
            f"{stage.name}; {len(self.devices)} devices have {supply:.3g} GiB, {largest:.3g} GiB at most in one: "
            "add devices, or take a smaller batch or narrower networks"
        )


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _move(order: list[Item], times: int, rng: random.Random) -> None:
    """Take an item from where it is to another place, so many times."""
    for _ in range(times):
        order.insert(rng.randrange(len(order)), order.pop(rng.randrange(len(order))))


def _fitting(stage: StageCost, seconds: float, room_bytes: int) -> int:
    """Return how many images of ``stage`` fit into so much time (at speed 1) and memory."""
    by_time = math.floor((seconds - stage.fixed_s) / stage.image_s * (1 + 1e-12)) if seconds > stage.fixed_s else 0
    by_room = (room_bytes - stage.fixed_bytes) // stage.image_bytes if stage.image_bytes else by_time
    return max(0, min(by_time, by_room if room_bytes >= stage.fixed_bytes else 0))
