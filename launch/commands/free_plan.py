"""``freqgan plan`` for a run at a free pace: which component trains where, when it is done, and what that costs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from rich import box
from rich.table import Table

from cluster.planning.cost_model import StageCosts, counted_work, prepare_measurement, stage_costs
from cluster.planning.devices import CPU, own_devices, parse_nodes
from cluster.planning.free_plan import ComponentRates, FreePlan, free_plan, with_speeds_of
from cluster.planning.offers import Offer, by_type, offers_of
from cluster.planning.scaling import (
    data_parallel_images_per_s,
    free_images_per_s,
    grown,
    nodes_of,
    pipeline_images_per_s,
)
from cluster.planning.schedule import Booking
from cluster.planning.simulation import HOUR_S, Conditions
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder
from freqgan.errors import InputError, counted
from launch.commands.plan import GIGABIT_BYTES, device_counts, out_folder, stage_table
from launch.console.plan_table import LOG_COLUMNS
from launch.console.tables import result_console
from launch.drawing.scaling import PacePoint, paces_plot
from launch.settings.places import load_places, seconds_until

LINKS_GBIT, LATENCIES_S = (1.0, 10.0, 100.0), (0.5e-3, 50e-3)
"""What the picture shows: links of a cluster, and those between places far apart."""
NAMED_DEVICES = 2
"""A component on more devices than these is shown by its first device and their number."""


@dataclass(frozen=True)
class Model:
    """One model as it is planned: its settings, what its stages cost, and their weights."""

    settings: RunSettings
    costs: StageCosts
    parameters: Mapping[str, int]


def free_plan_command(
    settings: RunSettings,
    *,
    nodes: str | None,
    places: str | None,
    done_by: str | None,
    beside: RunSettings | None,
    link_gbit: float,
    cut: bool,
    measured: bool,
    simulated: str | None,
    out: str | None,
    note: Callable[[str], None],
) -> None:
    """Print tables of stages and of components, and what to expect; write plan and simulation to ``out`` if given.

    Raises:
        InputError: places, nodes, a deadline or a range that cannot be read, a component that fits nowhere, an ``out``
            that cannot be written.

    """
    counts, folder = device_counts(simulated, out), out_folder(out)
    if beside is not None and not counts:
        raise InputError("--beside is drawn by --simulate: give both, or none")
    deadline_s = math.inf if done_by is None else seconds_until(done_by, datetime.now(UTC))
    offers = _offers(settings, nodes, places)
    devices = [device for offer in offers for device in offer.devices]
    if measured and any(device.accelerator == CPU for device in devices):
        prepare_measurement(settings)
    work = counted_work(settings, note)
    costs = stage_costs(settings, work, devices, measured=measured, note=note)
    model = Model(settings, costs, {name: w.parameters for name, w in work.items()})
    conditions = Conditions(link_bytes_per_s=link_gbit * GIGABIT_BYTES, contention=costs.contention)
    note(f"plans {counted(len(devices), 'device')}")
    rates = ComponentRates(settings, costs.by_name, model.parameters, conditions, cut)
    plan = free_plan(rates, with_speeds_of(offers, costs.devices), deadline_s)
    console = result_console(LOG_COLUMNS)
    console.print(stage_table(settings, work))
    console.print(component_table(settings, plan))
    for line in expectations(plan, costs):
        console.print(line, soft_wrap=True)
    if folder is not None:
        _write(folder, "plan.json", json.dumps(plan_json(settings, plan, costs), indent=1).encode())
    if folder is not None and counts:
        models = [model, *([] if beside is None else [_beside(beside, costs, measured, note)])]
        note(f"simulates {', '.join(map(str, counts))} devices with {counted(len(LINKS_GBIT), 'link')}")
        points = list(paces(models, counts, conditions))
        _write(folder, "simulation.json", json.dumps([asdict(point) for point in points], indent=1).encode())
        _write(folder, "simulation.png", paces_plot(points, costs.devices[0].accelerator))


def _write(folder: Folder, name: str, content: bytes) -> None:
    folder.write(name, content)
    print(f"{folder.url}/{name}")


def _offers(settings: RunSettings, nodes: str | None, places: str | None) -> list[Offer]:
    """Return what the places of a file offer, or else ``nodes``, or else this machine."""
    if places is not None and nodes is not None:
        raise InputError("--places and --nodes both say which machines there are: give one of them")
    if places is not None:
        return offers_of(load_places(places))
    return by_type("here", parse_nodes(nodes) if nodes is not None else own_devices(settings.device))


def _beside(settings: RunSettings, costs: StageCosts, measured: bool, note: Callable[[str], None]) -> Model:
    """Return another model whose stages cost what they do on a device of the same type."""
    work = counted_work(settings, note)
    own = stage_costs(settings, work, costs.devices[:1], measured=measured, note=note)
    return Model(settings, own, {name: w.parameters for name, w in work.items()})


def component_table(settings: RunSettings, plan: FreePlan) -> Table:
    """Return every component, where it trains, from when until when, and what that costs."""
    table = Table(title=f"{counted(len(plan.components), 'component')} at a free pace", box=box.SIMPLE)
    for heading in ("component", "stages", "place", "devices"):
        table.add_column(heading, overflow="fold")
    for heading in ("images", "steps", "from, h", "until, h", "cost", ""):
        table.add_column(heading, justify="right")
    for part in plan.components:
        booking = plan.bookings[part.name]
        table.add_row(
            part.name, ", ".join(part.stages), plan.place_of(booking), _devices(plan, booking), f"{part.images:,}",
            f"{settings.of_component(part).last_step:,}", _hours(booking.start_s), _hours(booking.end_s),
            f"{booking.way.cost:,.2f}", "late" if booking.excess_s else "",
        )  # fmt: skip
    return table


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR_S:,.3g}" if seconds < HOUR_S else f"{seconds / HOUR_S:,.1f}"


def _devices(plan: FreePlan, booking: Booking) -> str:
    names = [device.name for device in plan.devices_of(booking)]
    return ", ".join(names) if len(names) <= NAMED_DEVICES else f"{names[0]} and {len(names) - 1} more"


def expectations(plan: FreePlan, costs: StageCosts) -> list[str]:
    """Return what the plan gives, in sentences with numbers."""
    schedule, last = plan.schedule, plan.schedule.last
    lines = [
        f"costs: {costs.source}",
        f"done: after {_hours(schedule.end_s)} h, {last.job.name} last; no plan is done before "
        f"{_hours(plan.earliest_s)} h",
        f"replicas: {_replicas(plan)}",
    ]
    if math.isfinite(plan.deadline_s) or schedule.excess_s:
        lines.append(_in_time(plan))
    if schedule.cost:
        by_place = ", ".join(f"{place} {cost:,.2f}" for place, cost in plan.cost_by_place().items())
        lines.append(f"cost: {schedule.cost:,.2f} for the hours in which devices train ({by_place})")
    if len({offer.place for offer in plan.offers}) > 1:
        lines += [f"{place}: only={','.join(stages)}" for place, stages in _stages_by_place(plan).items()]
    lines.append("between components: 0 kB, each waits for batches of images alone")
    return lines


def _replicas(plan: FreePlan) -> str:
    """Return the settings by which stages that are alone in their component get the devices of the plan."""
    wide = [
        f"replicas.{part.name}={plan.bookings[part.name].way.devices}"
        for part in plan.components
        if len(part.stages) == 1 and plan.bookings[part.name].way.devices > 1
    ]
    return ", ".join(wide) if wide else "none, every expert is whole"


def _in_time(plan: FreePlan) -> str:
    """Return whether all components end in time, and which do not."""
    late = [booking for booking in plan.bookings.values() if booking.excess_s]
    limit = f" of {_hours(plan.deadline_s)} h" if math.isfinite(plan.deadline_s) else ""
    if not late:
        return f"in time: yes, {_hours(plan.deadline_s - plan.schedule.end_s)} h before the deadline{limit}"
    names = ", ".join(f"{one.job.name} by {_hours(one.excess_s)} h" for one in late)
    proof = "no plan is" if plan.earliest_s > plan.deadline_s else "no plan that was tried is"
    gone = any(plan.offers[one.way.offer].until_s < plan.deadline_s for one in late)
    reason = " or after machines are gone" if gone else ""
    remedy = "add devices, take fewer images, or give a later deadline"
    return f"in time: no, {names} after the deadline{limit}{reason}; {proof}: {remedy}"


def _stages_by_place(plan: FreePlan) -> dict[str, list[str]]:
    """Return the stages that each place trains: what ``only`` is to be there."""
    by_place: dict[str, list[str]] = {}
    for part in plan.components:
        by_place.setdefault(plan.place_of(plan.bookings[part.name]), []).extend(part.stages)
    return by_place


def plan_json(settings: RunSettings, plan: FreePlan, costs: StageCosts) -> dict[str, object]:
    """Return the plan as data; times in seconds from now."""
    return {
        "batch": settings.batch,
        "costs": {"source": costs.source, "stages": [asdict(stage) for stage in costs.stages]},
        "end_s": plan.schedule.end_s,
        "earliest_s": plan.earliest_s,
        "deadline_s": plan.deadline_s if math.isfinite(plan.deadline_s) else None,
        "in_time": plan.schedule.excess_s == 0,
        "cost": plan.schedule.cost,
        "cost_by_place": plan.cost_by_place(),
        "components": [
            {
                "name": part.name,
                "stages": list(part.stages),
                "images": part.images,
                "place": plan.place_of(booking),
                "devices": [device.name for device in plan.devices_of(booking)],
                "start_s": booking.start_s,
                "end_s": booking.end_s,
                "late_s": booking.excess_s,
                "cost": booking.way.cost,
            }
            for part in plan.components
            for booking in [plan.bookings[part.name]]
        ],
    }


def paces(models: Sequence[Model], counts: Sequence[int], conditions: Conditions) -> list[PacePoint]:
    """Return images a second of the first model at a free pace and data-parallel, and of the others as pipelines.

    On numbers of devices of the first type, 8 in a node, with links of several widths and latencies.
    """
    first, *others = models
    ways = [("apart", first, free_images_per_s), ("data-parallel", first, data_parallel_images_per_s)]
    ways += [("pipeline", other, pipeline_images_per_s) for other in others]
    points = []
    for gbit in LINKS_GBIT:
        for latency_s in LATENCIES_S:
            link = Conditions(gbit * GIGABIT_BYTES, latency_s, conditions.call_s, conditions.contention)
            for way, model, images_per_s in ways:
                by_name = model.costs.by_name
                for count in counts:
                    settings = grown(model.settings, len(by_name), count)
                    devices = nodes_of(model.costs.devices[0], count)
                    rate = images_per_s(settings, by_name, model.parameters, devices, link)
                    points.append(PacePoint(way, gbit, latency_s, count, settings.batch, rate))
    return points
