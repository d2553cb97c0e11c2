"""Where every component of a run at a free pace is: the same table for ``freqgan status`` and the report."""

from __future__ import annotations

import statistics

from cluster.run.checkpoint import Checkpoint
from cluster.run.free_run import FreeRun, find_free_run
from cluster.run.layout import CHECKPOINTS, LEASE
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder
from cluster.storage.lease import holder_of
from freqgan.model.components import Component
from launch.console.text import duration_text
from launch.run_folder.evaluations import EVALUATIONS, parse_evaluations
from launch.run_folder.metrics import MetricsLine
from launch.run_folder.run_state import checkpoint_age_s, last_metrics, read_lines, recent_rate, state_text

COLUMNS = (
    "component",
    "state",
    "images",
    "images/s",
    "held-out loss",
    "slowest stage",
    "checkpoint",
    "last trained by",
)
NONE = "-"


def component_table(run: str) -> list[tuple[str, ...]]:
    """Return the headings, of COLUMNS, and a row of texts for every component of ``run``; of it what is not all empty.

    Nothing where all stages train together.
    """
    free = find_free_run(run)
    if free is None:
        return []
    rows = [_row(free, part) for part in free.components]
    used = [number for number in range(len(COLUMNS)) if any(row[number] != NONE for row in rows)]
    return [tuple(row[number] for number in used) for row in (COLUMNS, *rows)]


def _row(free: FreeRun, part: Component) -> tuple[str, ...]:
    folder, own = free.folder.child(part.name), free.settings.of_component(part)
    lines, newest = last_metrics(folder), free.newest_of(part)
    last = lines[-1] if lines else None
    total = own.last_step if newest is None else newest.settings.last_step  # as it was trained last
    state = state_text(folder, newest, last).partition(";")[0].partition(",")[0]
    return (
        ", ".join(part.stages),
        state,
        f"{0 if last is None else last.images:,} of {total * own.batch:,}",
        f"{recent_rate(lines):.1f}" if lines else NONE,
        _held_out(folder, part),
        _slowest(lines, own),
        _checkpoint(folder, newest),
        _worker(folder),
    )


def _held_out(folder: Folder, part: Component) -> str:
    """Return the newest losses of flow experts on held-out images, in the order of the stages."""
    evaluations = parse_evaluations(read_lines(folder, EVALUATIONS))
    losses = evaluations[-1].validation if evaluations else {}
    return ", ".join(f"{losses[name]:.4f}" for name in part.stages if name in losses) or NONE


def _slowest(lines: list[MetricsLine], own: RunSettings) -> str:
    """Return which of several stages the others wait for, and how long it takes for a step."""
    seconds = {name: [line.stages[name].get("seconds", 0.0) for line in lines] for name in own.only if lines}
    if len(seconds) < 2:
        return NONE
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slowest = max(medians, key=lambda name: medians[name])
    return f"{slowest}, {1000 * medians[slowest]:.0f} ms"


def _checkpoint(folder: Folder, newest: Checkpoint | None) -> str:
    if newest is None:
        return "none yet"
    age_s = checkpoint_age_s(folder)
    return f"step {newest.step:,}{f', {duration_text(age_s)} ago' if age_s else ''}"


def _worker(folder: Folder) -> str:
    holder = holder_of(folder.child(CHECKPOINTS), LEASE)
    return NONE if holder is None else holder.name
