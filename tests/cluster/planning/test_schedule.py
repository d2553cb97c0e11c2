"""Schedules of components on unequal devices: held against all that there are, and what holds for every one."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from cluster.planning.devices import GIB, Device
from cluster.planning.offers import Offer
from cluster.planning.schedule import PROGRAM_TERMS, Job, Schedule, Way, earliest_s, schedule


def offer(place: str, count: int, *, from_s: float = 0.0, until_s: float = math.inf) -> Offer:
    devices = tuple(Device(f"{place}/n{i // 8}", i % 8, "H100", 1.0, GIB) for i in range(count))
    return Offer(place, devices, from_s=from_s, until_s=until_s)


def random_jobs(rng: random.Random, count: int, offers: int) -> list[Job]:
    """Jobs of one device that take another time, and another price, at every offer."""
    return [
        Job(f"s{i}", tuple(Way(o, 1, rng.uniform(1, 10), rng.uniform(1, 10)) for o in range(offers)))
        for i in range(count)
    ]


def check(plan: Schedule, jobs: Sequence[Job], offers: Sequence[Offer]) -> None:
    """Every job has one booking, no device has two at a time, none begins before its devices are there."""
    assert sorted(booking.job.name for booking in plan.bookings) == sorted(job.name for job in jobs)
    busy: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for booking in plan.bookings:
        assert booking.way in booking.job.ways
        assert len(set(booking.devices)) == booking.way.devices
        assert booking.start_s >= offers[booking.way.offer].from_s
        for device in booking.devices:
            assert device < len(offers[booking.way.offer].devices)
            busy.setdefault((booking.way.offer, device), []).append((booking.start_s, booking.end_s))
    for times in busy.values():
        for (_, end_s), (start_s, _) in itertools.pairwise(sorted(times)):
            assert start_s >= end_s - 1e-9


def all_schedules(jobs: Sequence[Job], offers: Sequence[Offer]) -> list[tuple[float, float]]:
    """(end, cost) of every way to put jobs of one device on devices."""
    devices = [(o, d) for o, one in enumerate(offers) for d in range(len(one.devices))]
    outcomes = []
    for chosen in itertools.product(devices, repeat=len(jobs)):
        ends = {device: offers[device[0]].from_s for device in devices}
        for job, device in zip(jobs, chosen, strict=True):
            ends[device] += job.ways[device[0]].seconds
        used = max(ends[device] for device in set(chosen))
        outcomes.append((used, sum(job.ways[o].cost for job, (o, _) in zip(jobs, chosen, strict=True))))
    return outcomes


@pytest.mark.parametrize("seed", range(4))
def test_small_schedules_are_the_best_there_are(seed: int) -> None:
    rng = random.Random(seed)
    offers = [offer("near", 2), offer("far", 1, from_s=3.0)]
    jobs = random_jobs(rng, 5, len(offers))
    outcomes = all_schedules(jobs, offers)
    first = schedule(jobs, offers)
    check(first, jobs, offers)
    shortest = min(end for end, _ in outcomes)
    assert first.end_s == pytest.approx(shortest)
    assert 0 < earliest_s(jobs, offers) <= shortest * (1 + 1e-9)
    for deadline_s in (1.05 * shortest, 1.5 * shortest, 3 * shortest):
        cheapest = schedule(jobs, offers, deadline_s)
        check(cheapest, jobs, offers)
        assert cheapest.excess_s == 0
        assert cheapest.end_s <= deadline_s * (1 + 1e-6)
        assert cheapest.cost == pytest.approx(min(cost for end, cost in outcomes if end <= deadline_s))


def test_large_schedules_are_near_their_bound() -> None:
    offers = [offer("near", 8), offer("far", 24)]
    rng = random.Random(0)
    jobs = [
        Job(f"s{i}", (Way(0, 1, hours, 3 * hours), Way(1, 1, 4 * hours, hours)))
        for i in range(100)
        for hours in [rng.uniform(1, 10)]
    ]
    assert len(jobs) * 32 > PROGRAM_TERMS
    plan = schedule(jobs, offers)
    check(plan, jobs, offers)
    bound_s = earliest_s(jobs, offers)
    assert bound_s <= plan.end_s <= 1.1 * bound_s
    late = schedule(jobs, offers, 3 * bound_s)
    check(late, jobs, offers)
    assert late.excess_s == 0
    assert late.cost < 0.8 * plan.cost


def test_jobs_are_wide_where_devices_would_be_idle() -> None:
    def end_s(count: int, *work: float) -> float:
        jobs = [Job(f"s{i}", tuple(Way(0, n, own / n, own) for n in (1, 2, 4) if n <= count))
                for i, own in enumerate(work)]  # fmt: skip
        plan = schedule(jobs, [offer("here", count)])
        check(plan, jobs, [offer("here", count)])
        return plan.end_s

    assert end_s(4, 8.0) == 2.0
    assert [end_s(count, 8.0, 8.0) for count in (2, 4, 8)] == [8.0, 4.0, 2.0]
    assert end_s(5, 12.0, 3.0) == 3.0  # four devices and one


def test_wide_jobs_are_no_wider_than_the_deadline_asks_for() -> None:
    ways = tuple(Way(0, n, 12.0 / n**0.5, n**0.5) for n in (1, 2, 4))
    for deadline_s, width in ((20.0, 1), (9.0, 2), (7.0, 4)):
        plan = schedule([Job("only", ways)], [offer("here", 4)], deadline_s)
        assert (plan.bookings[0].way.devices, plan.excess_s) == (width, 0)


def test_machines_that_go_away_are_not_counted_on() -> None:
    offers = [offer("soon gone", 2, until_s=5.0), offer("stays", 1)]
    jobs = [Job(name, (Way(0, 1, seconds, 1.0), Way(1, 1, 3 * seconds, 1.0))) for name, seconds in
            (("long", 6.0), ("short", 4.0), ("other", 4.0))]  # fmt: skip
    plan = schedule(jobs, offers)
    check(plan, jobs, offers)
    assert {booking.job.name: booking.way.offer for booking in plan.bookings} == {"long": 1, "short": 0, "other": 0}
    assert plan.excess_s == 0
    assert schedule(jobs, [offers[0], offer("stays", 1, until_s=17.0)]).excess_s == pytest.approx(1.0)


def test_a_deadline_that_cannot_be_met_is_told_and_proven() -> None:
    offers = [offer("here", 2)]
    jobs = random_jobs(random.Random(1), 4, 1)
    bound_s = earliest_s(jobs, offers)
    plan = schedule(jobs, offers, 0.9 * bound_s)
    assert plan.excess_s > 0
    assert plan.last.end_s > 0.9 * bound_s
    assert bound_s >= sum(job.ways[0].seconds for job in jobs) / 2 * (1 - 1e-5)
