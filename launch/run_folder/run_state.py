"""What the folder of a run, or of a component of one, says of how it is doing; no process is asked."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from cluster.run.layout import CHECKPOINTS, LATEST, LEASE
from cluster.storage.folder import Folder
from cluster.storage.lease import DURATION_S, holder_of
from launch.run_folder.metrics import METRICS, MetricsLine, parse_metrics

if TYPE_CHECKING:  # importing torch takes a second
    from cluster.run.checkpoint import Checkpoint

RATE_STEPS = 100
METRICS_TAIL_BYTES = 2**20
"""Enough of the end of metrics.jsonl for the last steps; the whole file may be large."""


def state_text(folder: Folder, checkpoint: Checkpoint | None, last: MetricsLine | None) -> str:
    """Return whether the run is done, is being trained and by whom, or has stopped.

    ``checkpoint`` is its newest one, ``last`` its last line of metrics; None where there is none.
    """
    if checkpoint is not None and checkpoint.step >= checkpoint.settings.last_step:
        return "done"
    root = folder.child(CHECKPOINTS)
    holder, age_s = holder_of(root, LEASE), root.age_s(LEASE)
    if holder is not None and not holder.is_free and age_s is not None and age_s < DURATION_S:
        return f"training, {holder.name}"
    return "stopped; the same command goes on with it" if last or checkpoint else "not begun"


def last_metrics(folder: Folder) -> list[MetricsLine]:
    """Return the lines of the last steps."""
    if not folder.exists(METRICS):
        return []
    with folder.open(METRICS) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - METRICS_TAIL_BYTES))
        lines = file.read().splitlines(keepends=True)
    return list(parse_metrics(lines[1:] if size > METRICS_TAIL_BYTES else lines))[-RATE_STEPS:]


def read_lines(folder: Folder, name: str) -> list[bytes]:
    """Return the lines of the file ``name`` with their ends; none where it is not there."""
    return folder.read(name).splitlines(keepends=True) if folder.exists(name) else []


def recent_rate(lines: list[MetricsLine]) -> float:
    """Return images per second over ``lines``, one at least."""
    first, last = lines[0], lines[-1]
    seconds = last.wall_s - first.wall_s
    return (last.images - first.images) / seconds if seconds > 0 else last.images_per_s


def checkpoint_age_s(folder: Folder) -> float | None:
    """Return seconds since LATEST was moved, where that is known."""
    root = folder.child(CHECKPOINTS)
    latest = root.read_tagged(LATEST)
    try:
        pointer: dict[str, Any] = json.loads(latest[0]) if latest else {}
        return time.time() - float(pointer["at_s"])
    except (ValueError, KeyError, TypeError):
        return None
