"""The plan of a run at a free pace: every component on devices of some place, at its own rate, in time or not.

No component waits for another: there is no window, and what links cost is a matter within a component alone. When all
are done is a question of scheduling.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cluster.planning.data_parallel import Sharing
from cluster.planning.device_pool import slowdown
from cluster.planning.devices import CPU, GIB, Device
from cluster.planning.offers import Offer
from cluster.planning.plan import Constraints
from cluster.planning.planner import best_plan
from cluster.planning.schedule import Booking, Job, Schedule, Way, earliest_s, schedule
from cluster.planning.simulation import HOUR_S, Conditions, simulate
from cluster.planning.stage_cost import StageCost
from cluster.planning.traffic import traffic
from cluster.run.settings import RunSettings
from freqgan.errors import InputError, counted
from freqgan.model.components import Component, chosen_components
from freqgan.sizes import area

PIPELINE_STEPS = 100
"""Steps that are simulated of a component with several stages."""
REPLICAS_PER_STAGE = 8
"""A pipeline is tried on at most so many devices for each of its stages."""


@dataclass(frozen=True)
class FreePlan:
    """Components with the devices that they train on.

    Attributes:
        components: those that are planned, in the order of the chain.
        offers: what there is, in the order that bookings number it.
        schedule: a booking for every component.
        deadline_s: when all are to be done.
        earliest_s: before which no schedule ends.

    """

    components: tuple[Component, ...]
    offers: tuple[Offer, ...]
    schedule: Schedule
    deadline_s: float
    earliest_s: float

    @property
    def bookings(self) -> dict[str, Booking]:
        """The booking of every component, by its name, in the order of the chain."""
        by_name = {booking.job.name: booking for booking in self.schedule.bookings}
        return {part.name: by_name[part.name] for part in self.components}

    def place_of(self, booking: Booking) -> str:
        """Return the place that a component trains at."""
        return self.offers[booking.way.offer].place

    def devices_of(self, booking: Booking) -> list[Device]:
        """Return the devices that a component trains on."""
        return [self.offers[booking.way.offer].devices[device] for device in booking.devices]

    def cost_by_place(self) -> dict[str, float]:
        """Return what is paid at every place, in the order in which they were given."""
        costs = dict.fromkeys((offer.place for offer in self.offers), 0.0)
        for booking in self.schedule.bookings:
            costs[self.place_of(booking)] += booking.way.cost
        return costs


@dataclass
class ComponentRates:
    """How long components take on the devices of an offer.

    Attributes:
        settings: of the whole run.
        costs: of all stages at speed 1.
        parameters: of their networks, by stage.
        conditions: links, what a call takes, contention.
        cut: whether stages may have replicas.

    """

    settings: RunSettings
    costs: Mapping[str, StageCost]
    parameters: Mapping[str, int]
    conditions: Conditions
    cut: bool = True
    _known: dict[tuple[object, ...], float | None] = field(default_factory=dict)

    def jobs(self, offers: Sequence[Offer]) -> list[Job]:
        """Return all components that ``settings.only`` names with their ways.

        Raises:
            InputError: one fits nowhere.

        """
        jobs = []
        for part in chosen_components(self.settings):
            ways = tuple(way for number, offer in enumerate(offers) for way in self._ways(part, number, offer))
            if not ways:
                raise InputError(self._shortage(part, offers))
            jobs.append(Job(part.name, ways))
        return jobs

    def step_s(self, part: Component, offer: Offer, count: int) -> float | None:
        """Return the seconds of a step on the first ``count`` devices of an offer; None where it does not fit."""
        devices = offer.devices[:count]
        layout = tuple(sorted(Counter(device.node for device in devices).values()))
        key = (part.name, offer.accelerator, offer.devices[0].speed, offer.devices[0].memory_bytes, layout,
               self._readers(offer))  # fmt: skip
        if key not in self._known:
            alone = len(part.stages) == 1
            self._known[key] = self._expert_s(part, offer, devices) if alone else self._pipeline_s(part, devices)
        return self._known[key]

    def _ways(self, part: Component, number: int, offer: Offer) -> Iterator[Way]:
        own = self.settings.of_component(part)
        for count in self._widths(part, len(offer.devices)):
            step_s = self.step_s(part, offer, count)
            if step_s is None:
                continue
            work_s, redone_s = own.last_step * step_s, own.checkpoint_every / 2 * step_s
            running_s = offer.running_s(work_s, count, redone_s)
            cost = offer.price * count * running_s / HOUR_S
            yield Way(number, count, offer.elapsed_s(work_s, count, redone_s), cost)

    def _widths(self, part: Component, count: int) -> list[int]:
        """Return the numbers of devices to try for a component, of ``count``: 1, 2, 3, 4, 6, 8, 12 and so on."""
        doubling = sorted({factor * 2**i for i in range(17) for factor in (1, 3)})
        if len(part.stages) > 1:
            most = len(part.stages) * (REPLICAS_PER_STAGE if self.cut else 1)
            return [width for width in sorted({*doubling, len(part.stages)}) if width <= min(count, most)]
        batch, given = self.settings.batch, self.settings.replicas.get(part.name, 1)
        widths = [width for width in doubling if self.cut and width > given and batch % width == 0]
        return [width for width in [given, *widths] if width <= min(count, batch)]

    def _expert_s(self, part: Component, offer: Offer, devices: Sequence[Device]) -> float | None:
        """Return the seconds of a step of a stage that is alone, or of its replicas."""
        sharing = self._sharing(part.stages)
        if not sharing.fits(devices):
            return None
        return sharing.step_s(devices, self._readers(offer), self._slowdown(offer))

    def _pipeline_s(self, part: Component, devices: Sequence[Device]) -> float | None:
        """Return the seconds of a step of stages that exchange outputs, as the simulation gives them."""
        own = self.settings.of_component(part)
        costs = {name: self.costs[name] for name in part.stages}
        link = self.conditions.link_bytes_per_s
        with suppress(InputError):  # it does not fit
            plan = best_plan(own, list(costs.values()), devices, self.parameters, link, Constraints(cut=self.cut))
            outcome = simulate(own, plan, costs, self.conditions, steps=PIPELINE_STEPS)
            link_s = max(traffic(own, plan, self.parameters).by_node.values()) / link
            return max(own.batch / outcome.images_per_s, link_s)
        return None

    def _sharing(self, stages: Sequence[str]) -> Sharing:
        return sharing_of(self.settings, {name: self.costs[name] for name in stages}, self.parameters, self.conditions)

    def _readers(self, offer: Offer) -> int:
        """Return how many devices of a node read images at a time: one for every component, all at most."""
        fullest = max(Counter(device.node for device in offer.devices).values())
        return min(fullest, len(chosen_components(self.settings)))

    def _slowdown(self, offer: Offer) -> float:
        """Return how many times longer a core takes while other components keep the other cores of its node busy."""
        if offer.accelerator != CPU:
            return 1.0
        cores = max(Counter(device.node for device in offer.devices).values())
        return slowdown(min(cores, len(chosen_components(self.settings))), cores, self.conditions.contention)

    def _shortage(self, part: Component, offers: Sequence[Offer]) -> str:
        least = max(self.costs[name].memory_bytes(1) for name in part.stages) / GIB
        largest = max(device.memory_bytes for offer in offers for device in offer.devices) / GIB
        replicas = self.settings.replicas.get(part.name, 1)
        most = max(len(offer.devices) for offer in offers)
        return (
            f"plan: no place can train {', '.join(part.stages)}: {least:.3g} GiB at least for an image of its batch of "
            f"{self.settings.batch} on {counted(replicas, 'device')}, where a device has {largest:.3g} GiB and a place "
            f"{counted(most, 'device')} of a type at most: add larger or more devices, or take a smaller batch, "
            "narrower networks or fewer replicas"
        )


def sharing_of(
    settings: RunSettings, costs: Mapping[str, StageCost], parameters: Mapping[str, int], conditions: Conditions
) -> Sharing:
    """Return the step of ``settings`` shared by devices that all have the stages of ``costs``, by their names."""
    weights = sum(parameters[name] for name in costs)
    link = conditions.link_bytes_per_s
    return Sharing(
        tuple(costs.values()),
        weights,
        settings.batch,
        image_bytes(settings),
        link,
        conditions.latency_s,
        conditions.call_s,
    )


def image_bytes(settings: RunSettings) -> int:
    """Return the bytes of an image as it comes from storage, decoded: an upper bound of those of a file."""
    return settings.image_channels * area(settings.size) * settings.bit_depth // 8


def free_plan(rates: ComponentRates, offers: Sequence[Offer], deadline_s: float = math.inf) -> FreePlan:
    """Return the plan that is the cheapest in time, or else done first, see :func:`cluster.planning.schedule.schedule`.

    Raises:
        InputError: a component fits on no devices.

    """
    jobs = rates.jobs(offers)
    parts = tuple(chosen_components(rates.settings))
    return FreePlan(parts, tuple(offers), schedule(jobs, offers, deadline_s), deadline_s, earliest_s(jobs, offers))


def with_speeds_of(offers: Sequence[Offer], devices: Sequence[Device]) -> list[Offer]:
    """Return ``offers`` with the ``devices`` of all of them, one after the other, which know their speeds."""
    left = iter(devices)
    return [replace(offer, devices=tuple(next(left) for _ in offer.devices)) for offer in offers]
