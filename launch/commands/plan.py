"""``freqgan plan``: the stages and what they cost, where they would run, and how fast the whole would be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from rich import box
from rich.table import Table

from cluster.planning.cost_model import StageCosts, counted_work, prepare_measurement, stage_costs
from cluster.planning.devices import CPU, own_devices, parse_nodes
from cluster.planning.plan import Constraints, Plan
from cluster.planning.planner import best_plan
from cluster.planning.scaling import nodes_of
from cluster.planning.simulation import HOUR_S, Conditions, simulate
from cluster.planning.traffic import Traffic, exchanged_bytes, traffic
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder, open_folder
from freqgan.costing.operator_count import StepWork
from freqgan.errors import InputError, counted
from launch.console.plan_table import (
    LOG_COLUMNS,
    expert_cells,
    expert_columns,
    parameter_cells,
    parameter_columns,
    plan_rows,
    plan_title,
)
from launch.console.tables import result_console
from launch.drawing.scaling import ScalingPoint, scaling_plot

GIGABIT_BYTES = 1e9 / 8
MOST_ROWS = 24
SIMULATED_TASKS = 200_000
FEWEST_STEPS, MOST_STEPS = 100, 3_000
WANTED_FAILURES = 5


def plan_command(
    settings: RunSettings,
    *,
    nodes: str | None,
    link_gbit: float,
    cut: bool,
    measured: bool,
    simulated: str | None,
    failures_per_hour: float,
    out: str | None,
    note: Callable[[str], None],
) -> None:
    """Print tables of stages and of devices, and what to expect; write plan and simulation to ``out`` if it is given.

    Raises:
        InputError: nodes or a range that cannot be read, a plan that does not fit, an ``out`` that cannot be written.

    """
    counts, folder = device_counts(simulated, out), out_folder(out)
    devices = parse_nodes(nodes) if nodes is not None else own_devices(settings.device)
    if measured and any(device.accelerator == CPU for device in devices):
        prepare_measurement(settings)
    work = counted_work(settings, note)
    costs = stage_costs(settings, work, devices, measured=measured, note=note)
    console = result_console(LOG_COLUMNS)
    console.print(stage_table(settings, work))
    conditions = Conditions(link_bytes_per_s=link_gbit * GIGABIT_BYTES, contention=costs.contention)
    parameters = {name: w.parameters for name, w in work.items()}
    constraints = Constraints(cut=cut)
    note(f"plans {counted(len(devices), 'device')}")
    plan = best_plan(settings, costs.stages, costs.devices, parameters, conditions.link_bytes_per_s, constraints)
    sent = traffic(settings, plan, parameters)
    console.print(device_table(plan))
    for line in expectations(settings, plan, costs, sent, conditions):
        console.print(line, soft_wrap=True)
    if folder is not None:
        folder.write("plan.json", json.dumps(plan_json(plan, sent, costs), indent=1).encode())
        print(f"{folder.url}/plan.json")
    if counts and folder is not None:
        note(f"simulates {', '.join(map(str, counts))} devices")
        points = scaling(settings, costs, parameters, counts, conditions, constraints)
        folder.write("simulation.json", json.dumps([asdict(point) for point in points], indent=1).encode())
        kind = plan.devices[0].accelerator
        folder.write("simulation.png", scaling_plot(points, kind, failures_per_hour))
        print(f"{folder.url}/simulation.png")


def stage_table(settings: RunSettings, work: dict[str, StepWork]) -> Table:
    """Return all stages in the order of the chain with what they cost."""
    rows = plan_rows(settings)
    whole = sum(w.multiply_accumulates for w in work.values())
    table = Table(title=plan_title(settings), box=box.SIMPLE)
    for heading in expert_columns(rows):
        table.add_column(heading, justify="right" if heading == "order" else "left")
    for heading in (*parameter_columns(rows), "10^6 multiply-adds\nper image", "share", "launches\nper step"):
        table.add_column(heading, justify="right")
    for row in rows:
        w = work[row.name]
        table.add_row(
            *expert_cells(row, rows), *parameter_cells(row, rows),
            f"{w.multiply_accumulates / 1e6:,.1f}", f"{w.multiply_accumulates / whole:.1%}", f"{w.launches:,.0f}",
        )  # fmt: skip
    return table


def device_table(plan: Plan) -> Table:
    """Return one row per kind of load: devices that do the same are counted, not repeated."""
    used = sorted(plan.busy_s)
    table = Table(title=f"{len(used)} of {len(plan.devices)} devices, {plan.batch} images a step", box=box.SIMPLE)
    for heading in ("devices", "first", "stages (images of the batch)"):
        table.add_column(heading, justify="right" if heading == "devices" else "left")
    table.add_column("busy, ms a step", justify="right")
    table.add_column("share", justify="right")
    loads = {device: _load(plan, device) for device in used}
    alike = Counter(loads.values())
    first = {load: device for device, load in reversed(loads.items())}
    distinct = sorted(alike, key=lambda load: first[load])
    for load in distinct[:MOST_ROWS]:
        device = first[load]
        busy_s = plan.busy_s[device]
        name = plan.devices[device].name
        table.add_row(str(alike[load]), name, load[0], f"{1e3 * busy_s:,.2f}", f"{busy_s / plan.step_s:.0%}")
    if len(distinct) > MOST_ROWS:
        table.add_row(str(sum(alike[load] for load in distinct[MOST_ROWS:])), "and others")
    return table


def _load(plan: Plan, device: int) -> tuple[str, str]:
    parts = [r.stage if r.images == plan.batch else f"{r.stage} ({r.images})" for r in plan.on(device)]
    return ", ".join(parts), plan.devices[device].accelerator


def expectations(
    settings: RunSettings, plan: Plan, costs: StageCosts, sent: Traffic, conditions: Conditions
) -> list[str]:
    """Return what the plan gives, in sentences with numbers."""
    slowest = plan.bottleneck
    link_s = max(sent.by_node.values()) / conditions.link_bytes_per_s
    outcome = simulate(settings, plan, costs.by_name, conditions)
    cut = [f"{stage} x {len(parts)}" for stage, parts in plan.by_stage.items() if len(parts) > 1]
    gbit = conditions.link_bytes_per_s / GIGABIT_BYTES

    def kilobytes(size_bytes: float) -> str:
        return f"{size_bytes / plan.batch / 1e3:,.1f} kB"

    return [
        f"costs: {costs.source}",
        f"bottleneck: {plan.devices[slowest].name} ({_load(plan, slowest)[0]}), {1e3 * plan.step_s:,.2f} ms a step; "
        f"no plan has less than {1e3 * plan.lower_bound_s:,.2f}",
        f"{'workers' if settings.system == 'fusion' else 'replicas'}: "
        f"{', '.join(cut) if cut else 'none, every stage is whole'}",
        f"busiest link: {1e3 * link_s:,.2f} ms a step at {gbit:g} Gbit/s",
        f"expected: {outcome.images_per_s:,.0f} images/s with a window of {settings.window} (simulated; "
        f"{plan.images_per_s:,.0f} without links and waiting)",
        _between_stages(settings),
        _network(sent, kilobytes),
    ]


def _between_stages(settings: RunSettings) -> str:
    """Return what stages give each other, on whatever nodes they are."""
    size_bytes = exchanged_bytes(settings)
    if size_bytes:
        return f"between stages: {size_bytes / 1e3:,.1f} kB an image, sub-images and feedback"
    return "between stages: 0 kB, every stage waits for batches of images alone"


def _network(sent: Traffic, kilobytes: Callable[[float], str]) -> str:
    if not sent.total and not sent.data_parallel:
        return "network: none, all devices are of one node"
    return (
        f"network: {kilobytes(sent.total)} an image (images {kilobytes(sent.images)}, sub-images "
        f"{kilobytes(sent.sub_images)}, feedback {kilobytes(sent.feedback)}, gradients between replicas "
        f"{kilobytes(sent.replicas)}); data-parallel training of the same networks on these nodes: "
        f"{kilobytes(sent.data_parallel)}"
    )


def plan_json(plan: Plan, sent: Traffic, costs: StageCosts) -> dict[str, object]:
    """Return the plan as data."""
    return {
        "batch": plan.batch,
        "costs": {"source": costs.source, "stages": [asdict(stage) for stage in costs.stages]},
        "step_s": plan.step_s,
        "lower_bound_s": plan.lower_bound_s,
        "replicas": [
            {"stage": r.stage, "device": plan.devices[r.device].name, "images": r.images} for r in plan.replicas
        ],
        "bytes_a_step": {"total": sent.total, **asdict(sent)},
    }


def scaling(
    settings: RunSettings,
    costs: StageCosts,
    parameters: Mapping[str, int],
    counts: Sequence[int],
    conditions: Conditions,
    constraints: Constraints,
) -> list[ScalingPoint]:
    """Return the simulation on numbers of devices of the first type, 8 in a node.

    The batch is as set, and in a second series grows so that a stage has that batch on a device of its own. What a
    failure costs is the time that a run with some of them takes longer, over their number.
    """
    points = []
    by_name = costs.by_name
    for count in counts:
        devices = nodes_of(costs.devices[0], count)
        for grown in (False, True):
            batch = settings.batch * (max(1, count // len(by_name)) if grown else 1)
            scaled = settings.model_copy(update={"batch": batch})
            plan = best_plan(scaled, costs.stages, devices, parameters, conditions.link_bytes_per_s, constraints)
            tasks = len(plan.replicas) * scaled.plan.cycles
            steps = max(FEWEST_STEPS, min(MOST_STEPS, SIMULATED_TASKS // tasks))
            calm = replace(conditions, failures_per_device_hour=0.0)
            quiet = simulate(scaled, plan, by_name, calm, steps=steps)
            often = WANTED_FAILURES * HOUR_S / (quiet.seconds * len(plan.busy_s))
            troubled = simulate(scaled, plan, by_name, replace(conditions, failures_per_device_hour=often), steps=steps)
            each_s = max(0.0, troubled.seconds - quiet.seconds) / max(1, troubled.failures)
            points.append(ScalingPoint(count, len(plan.busy_s), batch, quiet.images_per_s, each_s, grown))
    return points


def device_counts(simulated: str | None, out: str | None) -> tuple[int, ...]:
    """Return the numbers of devices to simulate: the powers of two, and both ends, of "1..1024"; none for None."""
    if simulated is None:
        return ()
    first, dots, last = simulated.partition("..")
    if not (dots and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 4096):
        raise InputError(f"--simulate {simulated!r}: give a range of devices from 1 to 4096 such as 1..1024")
    if out is None:
        raise InputError("--simulate draws a picture: give --out FOLDER for it")
    low, high = int(first), int(last)
    powers = [2**i for i in range(13) if low < 2**i < high]
    return tuple(dict.fromkeys([low, *powers, high]))


def out_folder(out: str | None) -> Folder | None:
    """Return the folder that results go to, which can be written; None where none is given."""
    folder = open_folder(out) if out is not None else None
    if folder is not None:
        folder.check_writable()
    return folder
