"""Which component trains where and when: jobs that wait for nobody, on unequal devices, before a deadline.

A job takes one of several ways: a number of devices of an offer. For every length that a job could have, each job is
given the fewest devices with which it is no longer; the longest job goes first, on the devices on which it ends first
(LPT), or with a deadline on the cheapest on which it ends in time. Of the best of these schedules the job that ends
last is made wider while that helps. Jobs stay as narrow as they can be where that is near the bound: those of several
devices exchange gradients. Where there are few, a mixed-integer program places all jobs of one device anew.

Source: R. L. Graham, Bounds on multiprocessing timing anomalies, SIAM Journal on Applied Mathematics 17 (1969), for
LPT; W. Ludwig, P. Tiwari, Scheduling malleable and nonmalleable parallel tasks, SODA (1994), for numbers of devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.planning.offers import Offer
from cluster.planning.plan import TOLERANCE

PROGRAM_TERMS = 300
"""Jobs times devices up to which the mixed-integer program is solved."""
PROGRAM_NODES, PROGRAM_LIMIT_S = 2_000, 20.0
"""Of its search tree, so that a plan is the same again; and seconds, for a machine that is very slow."""
WIDER = 2
"""Of the ways that are wider than a job's, so many are tried at a time."""
MOST_LENGTHS = 100
"""Of the lengths that jobs could have, so many are tried at most, spread evenly over all."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Way:
    """One way to train a component: on ``devices`` of an offer, which has so many, by its place in the list of offers.

    ``seconds`` by the clock, and what it costs.
    """

    offer: int
    devices: int
    seconds: float
    cost: float


@dataclass(frozen=True)
class Job:
    """A component and the ways to train it, one at least."""

    name: str
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Booking:
    """A job on devices of an offer, by their place in its list, from ``start_s`` on.

    ``excess_s``: how long after its deadline, or after its devices are gone, it ends.
    """

    job: Job
    way: Way
    devices: tuple[int, ...]
    start_s: float
    excess_s: float

    @property
    def end_s(self) -> float:
        """When it ends."""
        return self.start_s + self.way.seconds


@dataclass(frozen=True)
class Schedule:
    """A booking for every job."""

    bookings: tuple[Booking, ...]

    @property
    def end_s(self) -> float:
        """When the last one ends."""
        return max(booking.end_s for booking in self.bookings)

    @property
    def cost(self) -> float:
        """What all devices cost while they run."""
        return sum(booking.way.cost for booking in self.bookings)

    @property
    def excess_s(self) -> float:
        """How much too late all bookings end, together; 0 where all are in time."""
        return sum(booking.excess_s for booking in self.bookings)

    @property
    def last(self) -> Booking:
        """The booking that ends the furthest beyond its limit, or else last."""
        return max(self.bookings, key=lambda booking: (booking.excess_s, booking.end_s))


def schedule(jobs: Sequence[Job], offers: Sequence[Offer], deadline_s: float = math.inf) -> Schedule:
    """Return the cheapest schedule that ends before ``deadline_s``, or else the one that ends first, as far as found.

    Without a deadline it is the one that ends first.
    """
    problem = _Problem(jobs, offers, deadline_s)
    narrow = problem.improved(problem.listed({job.name: min(way.devices for way in job.ways) for job in jobs}))
    near_s = (1 + TOLERANCE) * earliest_s(jobs, offers)
    if narrow.excess_s == 0 and math.isinf(deadline_s) and narrow.end_s <= near_s:
        return narrow
    widths = min(problem.widths(), key=lambda one: problem.rank(problem.listed(one)))
    best = problem.listed(widths)
    while problem.may_gain(best):
        last = best.last.job
        tries = [widths | {last.name: width} for width in problem.wider(last, widths[last.name])]
        found = min(((problem.listed(one), one) for one in tries), key=lambda pair: problem.rank(pair[0]), default=None)
        if found is None or problem.rank(found[0]) >= problem.rank(best):
            break
        best, widths = found
    return min(narrow, problem.improved(best), key=problem.rank)


def earliest_s(jobs: Sequence[Job], offers: Sequence[Offer]) -> float:
    """Return seconds before which no schedule ends, whatever it costs, by a linear program.

    In it jobs may be cut at will: shares y of a job's ways add up to 1, a job is no longer than the schedule, and an
    offer's devices have no more to do than they have time for.
    """
    from scipy.optimize import linprog  # only here: it takes a second to load, and few processes plan

    ways = [(j, way) for j, job in enumerate(jobs) for way in job.ways]
    limits = np.zeros((len(jobs) + len(offers), len(ways) + 1))
    shares = np.zeros((len(jobs), len(ways) + 1))
    for column, (j, way) in enumerate(ways):
        shares[j, column] = 1
        limits[j, column] = way.seconds
        limits[len(jobs) + way.offer, column] = way.seconds * way.devices
    limits[:, -1] = [*[-1.0] * len(jobs), *(-len(offer.devices) for offer in offers)]
    unit_s = max(way.seconds for _, way in ways)
    limits[:, :-1] /= unit_s
    program = linprog(np.eye(len(ways) + 1)[-1], limits, np.zeros(len(limits)), shares, np.ones(len(jobs)))
    return float(program.fun) * unit_s * (1 - 1e-6)


class _Problem:
    """Jobs, offers and a deadline, and the two ways to bring them together."""

    def __init__(self, jobs: Sequence[Job], offers: Sequence[Offer], deadline_s: float) -> None:
        self.jobs, self.offers, self.deadline_s = jobs, offers, deadline_s
        self.limits_s = [min(offer.until_s, deadline_s) for offer in offers]

    def rank(self, plan: Schedule) -> tuple[float, ...]:
        """Return numbers by which of two schedules the better one comes first."""
        excess = round(plan.excess_s, 3)
        if math.isfinite(self.deadline_s) and not excess:
            return (0.0, plan.cost, sum(booking.way.devices for booking in plan.bookings), plan.end_s)
        return (excess, *sorted((round(booking.end_s, 3) for booking in plan.bookings), reverse=True), plan.cost)

    def widths(self) -> Iterator[dict[str, int]]:
        """Yield numbers of devices by job: for every length the fewest with which no job is longer, if it can be so."""
        lengths = sorted({way.seconds for job in self.jobs for way in job.ways})
        for length_s in (*lengths[:: -(-len(lengths) // MOST_LENGTHS)], math.inf):
            shorter = {job.name: [way for way in job.ways if way.seconds <= length_s] or job.ways for job in self.jobs}
            yield {name: min(way.devices for way in ways) for name, ways in shorter.items()}

    def may_gain(self, plan: Schedule) -> bool:
        """Return whether wider jobs can be any better: they end earlier, and are not cheaper."""
        return not math.isfinite(self.deadline_s) or plan.excess_s > 0

    def wider(self, job: Job, width: int) -> list[int]:
        """Return the next greater numbers of devices that ``job`` can take."""
        return sorted({way.devices for way in job.ways if way.devices > width})[:WIDER]

    def listed(self, widths: Mapping[str, int]) -> Schedule:
        """Return a list schedule: wide jobs first, and of those of a width the longest."""
        free = [[(offer.from_s, d) for d in range(len(offer.devices))] for offer in self.offers]
        ways = {job.name: list(_widest(job, widths[job.name])) for job in self.jobs}
        order = sorted(
            self.jobs, key=lambda job: (-widths[job.name], -min(way.seconds for way in ways[job.name]), job.name)
        )
        return Schedule(tuple(self._book(job, ways[job.name], free) for job in order))

    def _book(self, job: Job, ways: Sequence[Way], free: list[list[tuple[float, int]]]) -> Booking:
        """Take the devices on which ``job`` does best off those that are ``free``, by offer and time."""
        bookings = []
        for way in ways:
            taken = free[way.offer][: way.devices]
            start_s = taken[-1][0]
            excess_s = max(0.0, start_s + way.seconds - self.limits_s[way.offer] * (1 + ROUNDING))
            bookings.append(Booking(job, way, tuple(d for _, d in taken), start_s, excess_s))
        best = min(bookings, key=self._preference)
        rest = free[best.way.offer][best.way.devices :]
        free[best.way.offer] = sorted([*rest, *((best.end_s, d) for d in best.devices)])
        return best

    def _preference(self, booking: Booking) -> tuple[float, ...]:
        by_cost = math.isfinite(self.deadline_s) and not booking.excess_s
        times = (booking.end_s, booking.way.cost)
        return (booking.excess_s, *(times[::-1] if by_cost else times))

    def improved(self, plan: Schedule) -> Schedule:
        """Return ``plan``, or a better one with its jobs of one device where a mixed-integer program puts them."""
        narrow = [booking for booking in plan.bookings if booking.way.devices == 1]
        wide = [booking for booking in plan.bookings if booking.way.devices > 1]
        free = {(o, d): offer.from_s for o, offer in enumerate(self.offers) for d in range(len(offer.devices))}
        for booking in wide:
            free |= {(booking.way.offer, d): booking.end_s for d in booking.devices}
        if not narrow or len(narrow) * len(free) > PROGRAM_TERMS:
            return plan
        chosen = self._program([booking.job for booking in narrow], free)
        if chosen is None:
            return plan
        return min(plan, Schedule((*wide, *self._in_a_row(chosen, free))), key=self.rank)

    def _program(self, jobs: Sequence[Job], free: Mapping[tuple[int, int], float]) -> list[Booking] | None:
        """Return ``jobs`` on devices, each with no times yet; None where the program has no solution, or none in time.

        Binaries say which job is on which device. It minimises the cost where there is a deadline, else the length.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # only here: see earliest_s

        devices = list(free)
        columns = [
            (j, devices.index((way.offer, d)), way)
            for j, job in enumerate(jobs)
            for way in job.ways
            if way.devices == 1
            for d in range(len(self.offers[way.offer].devices))
        ]
        unit_s = max(way.seconds for _, _, way in columns)
        by_cost = math.isfinite(self.deadline_s)
        rows = np.zeros((len(jobs) + len(devices), len(columns) + 1))
        for column, (j, d, way) in enumerate(columns):
            rows[j, column], rows[len(jobs) + d, column] = 1, way.seconds / unit_s
        rows[len(jobs) :, -1] = 0 if by_cost else -1
        start = np.array([free[device] for device in devices]) / unit_s
        limit = np.array([self.limits_s[offer] for offer, _ in devices]) / unit_s
        most = [*np.ones(len(jobs)), *(limit - start if by_cost else -start)]
        cost = [*([way.cost for _, _, way in columns] if by_cost else [0.0] * len(columns)), 0.0 if by_cost else 1.0]
        answer = milp(
            cost,
            constraints=LinearConstraint(rows, [*np.ones(len(jobs)), *[-np.inf] * len(devices)], most),
            integrality=[*[1] * len(columns), 0],
            bounds=Bounds(0, [*[1.0] * len(columns), np.inf]),
            options={"node_limit": PROGRAM_NODES, "time_limit": PROGRAM_LIMIT_S},
        )
        if answer.x is None:
            return None
        return [
            Booking(jobs[j], way, (devices[d][1],), 0.0, 0.0)
            for (j, d, way), share in zip(columns, answer.x, strict=False)
            if share > 0.5
        ]

    def _in_a_row(self, bookings: Sequence[Booking], free: Mapping[tuple[int, int], float]) -> Iterator[Booking]:
        """Yield ``bookings`` of one device each with their times: on a device the longest goes first."""
        free = dict(free)
        for booking in sorted(bookings, key=lambda one: -one.way.seconds):
            key = booking.way.offer, booking.devices[0]
            timed = replace(booking, start_s=free[key])
            free[key] = timed.end_s
            yield replace(timed, excess_s=max(0.0, timed.end_s - self.limits_s[key[0]] * (1 + ROUNDING)))


def _widest(job: Job, width: int) -> Iterator[Way]:
    """Yield the ways of ``job`` to take, one for each offer: the widest of at most ``width`` devices."""
    fitting = [way for way in job.ways if way.devices <= width]
    for offer in dict.fromkeys(way.offer for way in fitting):
        yield max((way for way in fitting if way.offer == offer), key=lambda way: way.devices)
