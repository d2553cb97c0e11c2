"""``freqgan status``: how a run is doing, from its folder alone; or all runs of a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cluster.data.quarantine import QUARANTINE
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.run.free_run import FreeRun, find_free_run
from cluster.run.layout import component_run
from cluster.run.presence import no_run
from cluster.storage.folder import Folder, open_folder
from freqgan.errors import FreqganError, InputError
from freqgan.model.components import Component
from freqgan.model.stage_names import IMAGE_STAGE
from launch.console.component_table import component_table
from launch.console.tables import facts_table, result_console
from launch.console.text import classes_text, duration_text
from launch.run_folder.failures import FAILURES, parse_failures
from launch.run_folder.layout import CONFIG
from launch.run_folder.metrics import MetricsLine
from launch.run_folder.run_state import checkpoint_age_s, last_metrics, read_lines, recent_rate, state_text
from launch.settings.load import validate_settings
from launch.settings.yaml_text import parse_yaml

if TYPE_CHECKING:  # importing Ray takes a second
    from cluster.ray_engine.jobs import Job

WIDTH = 120
MOST_CLASSES = 20
"""How many classes are printed."""


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
        if rows := component_table(target):
            console.print(_component_table(*rows))


def run_facts(run: str) -> list[tuple[str, str]]:
    """Return what the folder of a run tells, as (name, value); it needs no cluster.

    Raises InputError where there is no run.
    """
    folder = open_folder(run)
    if (free := find_free_run(run)) is not None:
        return _free_facts(free)
    lines = last_metrics(folder)
    checkpoint = find_checkpoint(run) if has_checkpoints(run) else None
    if checkpoint is None and not lines:
        raise no_run(run)
    last = lines[-1] if lines else None
    facts = [("run", folder.url), ("state", state_text(folder, checkpoint, last))]
    if last is not None:
        last_step = _last_step(folder, checkpoint)
        of = "" if last_step is None else f" of {last_step:,}"
        facts.append(("step", f"{last.step:,}{of}, {last.images:,} images, trained for {duration_text(last.wall_s)}"))
        facts.append(("images/s", f"{recent_rate(lines):.1f} over the last {len(lines)} steps"))
        facts.append(("lag", _lag(last)))
    if checkpoint is not None:
        age_s = checkpoint_age_s(folder)
        facts.append(("last checkpoint", f"step {checkpoint.step:,}{f', {duration_text(age_s)} ago' if age_s else ''}"))
        facts += [("passed over", text) for text in checkpoint.notes]
        facts += _class_facts(checkpoint.class_names)
        if kinds_shown := checkpoint.settings.conditioning.kinds:
            facts.append(("shown", ", ".join(kinds_shown)))
    failures = parse_failures(read_lines(folder, FAILURES))
    kinds = Counter(failure.decision for failure in failures)
    facts.append(("failures got over", ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"))
    facts.append(("images left out", str(sum(1 for _ in read_lines(folder, QUARANTINE))) or "0"))
    return facts


def _free_facts(free: FreeRun) -> list[tuple[str, str]]:
    """Return what concerns all components of a run at a free pace; each has a row of its own in another table."""
    seen = free.newest_images()
    missing = [name for name, images in seen.items() if images is None]
    whole = min(images or 0 for images in seen.values())
    model = f"lacks a checkpoint of {', '.join(missing)}" if missing else f"whole, of {whole:,} images at least"
    failures = [one for part in free.components for one in parse_failures(_failures_of(free, part.name))]
    kinds = Counter(failure.decision for failure in failures)
    return [
        ("run", free.folder.url.rpartition("/")[0]),
        ("model", model),
        *_class_facts(free.record.classes),
        ("failures got over", ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"),
    ]


def _class_facts(names: Sequence[str]) -> list[tuple[str, str]]:
    return [("classes", classes_text(names, MOST_CLASSES, "the report lists all"))] if names else []


def _failures_of(free: FreeRun, component: str) -> list[bytes]:
    return read_lines(free.folder.child(component), FAILURES)


def _component_table(headings: tuple[str, ...], *rows: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


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
    for heading in ("job", "status", "exit code", "run", "stages", "step", "images/s", "last checkpoint"):
        table.add_column(heading, overflow="fold")
    jobs = Jobs(address).jobs()
    if not jobs:
        raise InputError(f"{address} has no jobs: `freqgan submit SETTINGS --address {address}` starts one")
    for job in jobs:
        code = "" if job.exit_code is None else str(job.exit_code)
        cells: tuple[str, ...] = (job.name, job.status, code, job.metadata.get("freqgan_run", ""))
        for stages, known in _known_of(job):
            rest = (known.get(name, "") for name in ("step", "images/s", "last checkpoint"))
            table.add_row(*cells, stages, *rest)
            cells = ("",) * len(cells)
    return table


def _known_of(job: Job) -> list[tuple[str, dict[str, str]]]:
    """Return the stages that a job trains, with what can be seen of them from here; by component, at a free pace."""
    run, only = job.metadata.get("freqgan_run", ""), job.metadata.get("freqgan_only", "")
    if not run:
        return [("", {})]
    own = [part.name for part in _components(run) if not only or part.name in only.split(",")]
    if own:
        return [(name, _known(component_run(run, name))) for name in own]
    return [(only.replace(",", ", ") or "all", {} if only else _known(run))]


def _components(run: str) -> tuple[Component, ...]:
    try:
        free = find_free_run(run)
        return free.components if free else ()
    except FreqganError:
        return ()


def _known(run: str) -> dict[str, str]:
    """Return what can be seen of a run from here: nothing, where its folder is on another machine."""
    try:
        return dict(run_facts(run))
    except FreqganError:
        return {}


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
