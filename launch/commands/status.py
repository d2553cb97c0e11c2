"""``freqgan status``: how a run is doing, from its folder alone; or all runs of a cluster."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from rich import box
from rich.table import Table

from cluster.data.quarantine import QUARANTINE
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.run.layout import CHECKPOINTS, LATEST, LEASE
from cluster.run.presence import no_run
from cluster.storage.folder import Folder, open_folder
from cluster.storage.lease import DURATION_S, holder_of
from freqgan.errors import FreqganError, InputError
from freqgan.model.stage_names import IMAGE_STAGE
from launch.console.tables import facts_table, result_console
from launch.console.text import duration_text
from launch.run_folder.failures import FAILURES, parse_failures
from launch.run_folder.folder import CONFIG
from launch.run_folder.metrics import METRICS, MetricsLine, parse_metrics
from launch.settings.load import validate_settings
from launch.settings.yaml_text import parse_yaml

RATE_STEPS = 100
WIDTH = 120
METRICS_TAIL_BYTES = 2**20
"""Enough of the end of metrics.jsonl for the last steps; the whole file may be large."""


def print_status(target: str) -> None:
    """Print how the run, or the runs of the cluster, at ``target`` are doing.

    Raises:
        InputError: neither a run folder nor a dashboard that answers.

    """
    console = result_console(WIDTH)
    if target.startswith(("http://", "https://")):
        console.print(_jobs_table(target))
    else:
        console.print(facts_table(run_facts(target)))


def run_facts(run: str) -> list[tuple[str, str]]:
    """Return what the folder of a run tells, as (name, value); it needs no cluster.

    Raises InputError where there is no run.
    """
    folder = open_folder(run)
    lines = _last_metrics(folder)
    checkpoint = find_checkpoint(run) if has_checkpoints(run) else None
    if checkpoint is None and not lines:
        raise no_run(run)
    last = lines[-1] if lines else None
    facts = [("run", folder.url), ("state", _state(folder, checkpoint, last))]
    if last is not None:
        last_step = _last_step(folder, checkpoint)
        of = "" if last_step is None else f" of {last_step:,}"
        facts.append(("step", f"{last.step:,}{of}, {last.images:,} images, trained for {duration_text(last.wall_s)}"))
        facts.append(("images/s", f"{_rate(lines):.1f} over the last {len(lines)} steps"))
        facts.append(("lag", _lag(last)))
    if checkpoint is not None:
        age_s = _age(folder)
        facts.append(("last checkpoint", f"step {checkpoint.step:,}{f', {duration_text(age_s)} ago' if age_s else ''}"))
        facts += [("passed over", text) for text in checkpoint.notes]
    failures = parse_failures(_lines(folder, FAILURES))
    kinds = Counter(failure.decision for failure in failures)
    facts.append(("failures got over", ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"))
    facts.append(("images left out", str(sum(1 for _ in _lines(folder, QUARANTINE))) or "0"))
    return facts


def _last_step(folder: Folder, checkpoint: Checkpoint | None) -> int | None:
    """Return the last step of a run: before its first checkpoint by the settings beside it, None where they are not."""
    if checkpoint is not None:
        return checkpoint.settings.last_step
    if not folder.exists(CONFIG):
        return None
    try:
        values = parse_yaml(folder.read(CONFIG).decode(), f"{folder.url}/{CONFIG} is no valid YAML")
        return validate_settings(values, stored=True).last_step
    except (FreqganError, ValueError, AttributeError):  # what somebody has changed says nothing of the run
        return None


def _jobs_table(address: str) -> Table:
    from cluster.ray_engine.jobs import Jobs  # only here: importing Ray takes a second

    table = Table(box=box.SIMPLE)
    for heading in ("job", "status", "exit code", "run", "step", "images/s", "last checkpoint"):
        table.add_column(heading, overflow="fold")
    jobs = Jobs(address).jobs()
    if not jobs:
        raise InputError(f"{address} has no jobs: `freqgan submit SETTINGS --address {address}` starts one")
    for job in jobs:
        run = job.metadata.get("freqgan_run", "")
        known = _known(run) if run else {}
        code = "" if job.exit_code is None else str(job.exit_code)
        rest = (known.get(name, "") for name in ("step", "images/s", "last checkpoint"))
        table.add_row(job.name, job.status, code, run, *rest)
    return table


def _known(run: str) -> dict[str, str]:
    """Return what can be seen of a run from here: nothing, where its folder is on another machine."""
    try:
        return dict(run_facts(run))
    except FreqganError:
        return {}


def _state(folder: Folder, checkpoint: Checkpoint | None, last: MetricsLine | None) -> str:
    if checkpoint is not None and checkpoint.step >= checkpoint.settings.last_step:
        return "done"
    root = folder.child(CHECKPOINTS)
    holder, age_s = holder_of(root, LEASE), root.age_s(LEASE)
    if holder is not None and not holder.is_free and age_s is not None and age_s < DURATION_S:
        return f"training, {holder.name}"
    return "stopped; the same command goes on with it" if last or checkpoint else "not begun"


def _last_metrics(folder: Folder) -> list[MetricsLine]:
    """Return the lines of the last steps."""
    if not folder.exists(METRICS):
        return []
    with folder.open(METRICS) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - METRICS_TAIL_BYTES))
        lines = file.read().splitlines(keepends=True)
    return list(parse_metrics(lines[1:] if size > METRICS_TAIL_BYTES else lines))[-RATE_STEPS:]


def _lines(folder: Folder, name: str) -> list[bytes]:
    return folder.read(name).splitlines(keepends=True) if folder.exists(name) else []


def _rate(lines: list[MetricsLine]) -> float:
    first, last = lines[0], lines[-1]
    seconds = last.wall_s - first.wall_s
    return (last.images - first.images) / seconds if seconds > 0 else last.images_per_s


def _lag(last: MetricsLine) -> str:
    """Return how long after the first stage began a step the image stage, or the last where there is none, ended it.

    That is how deep the pipeline is in time, or how far stages that do not wait for each other are apart.
    """
    begun = {name: numbers["begun_s"] for name, numbers in last.stages.items() if "begun_s" in numbers}
    if not begun or begun.keys() != last.stages.keys():
        return "not known"
    ended = {name: begun_s + last.stages[name].get("seconds", 0.0) for name, begun_s in begun.items()}
    first_s = min(begun.values())
    if IMAGE_STAGE in ended:
        return f"{ended[IMAGE_STAGE] - first_s:.2f} s from the first band to the image stage"
    return f"{max(ended.values()) - first_s:.2f} s from the first stage to the last"


def _age(folder: Folder) -> float | None:
    """Return seconds since LATEST was moved, where that is known."""
    root = folder.child(CHECKPOINTS)
    latest = root.read_tagged(LATEST)
    try:
        pointer: dict[str, Any] = json.loads(latest[0]) if latest else {}
        return time.time() - float(pointer["at_s"])
    except (ValueError, KeyError, TypeError):
        return None
