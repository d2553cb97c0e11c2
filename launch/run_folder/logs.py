"""All that the logs of a run say, be they in one folder or, of a run at a free pace, in one for each component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.data.quarantine import QuarantinedImage, read_quarantine
from cluster.evaluation.background import Evaluation
from cluster.execution.failure_policy import Recovery
from cluster.run.free_run import FreeRun, find_free_run
from cluster.storage.folder import Folder, open_folder
from launch.run_folder.evaluations import EVALUATIONS, parse_evaluations
from launch.run_folder.failures import FAILURES, parse_failures
from launch.run_folder.metrics import METRICS, MetricsLine, parse_metrics
from launch.run_folder.run_state import read_lines

Losses = Mapping[str, Sequence[tuple[int, float]]]
"""Losses on held-out images by the name of the expert, each as (images seen, loss)."""


@dataclass(frozen=True)
class RunLogs:
    """What the logs of a run say.

    Attributes:
        lines: of metrics, one per step. Of a run at a free pace each has every stage, those that have not come so far
            without numbers.
        evaluations: scores of pictures.
        held_out: losses of flow experts on held-out images.
        failures: that it got over.
        left_out: damaged images.
        is_free: whether its components train at their own pace.

    """

    lines: list[MetricsLine]
    evaluations: list[Evaluation]
    held_out: Losses = field(default_factory=dict)
    failures: list[Recovery] = field(default_factory=list)
    left_out: tuple[QuarantinedImage, ...] = ()
    is_free: bool = False


def read_logs(run: str) -> RunLogs:
    """Return what the logs of ``run``, a path or s3:// URL, say."""
    free, folder = find_free_run(run), open_folder(run)
    whole = _logs_in(folder)
    return whole if free is None else _joined(whole, free)


def _joined(whole: RunLogs, free: FreeRun) -> RunLogs:
    """Return the logs of the whole run with those of its components."""
    parts = [_logs_in(free.folder.child(part.name)) for part in free.components]
    stages = [name for part in free.components for name in part.stages]
    left_out = {one.key: one for part in parts for one in part.left_out}
    return RunLogs(
        joined_lines([part.lines for part in parts], stages),
        whole.evaluations,
        {name: losses for logs in (whole, *parts) for name, losses in logs.held_out.items()},
        [failure for part in parts for failure in part.failures],
        tuple(left_out.values()),
        is_free=True,
    )


def joined_lines(parts: Sequence[Sequence[MetricsLine]], stages: Sequence[str]) -> list[MetricsLine]:
    """Return one line for every step that a component has come to, with the numbers of all that have.

    Its times are those of the slowest of them.
    """
    by_step: dict[int, list[MetricsLine]] = {}
    for lines in parts:
        for line in lines:
            by_step.setdefault(line.step, []).append(line)
    joined = []
    for step, lines in sorted(by_step.items()):
        numbers = {name: values for line in lines for name, values in line.stages.items()}
        wall_s, rate = max(line.wall_s for line in lines), min(line.images_per_s for line in lines)
        joined.append(
            MetricsLine(step, lines[0].images, wall_s, rate, {name: numbers.get(name, {}) for name in stages})
        )
    return joined


def _logs_in(folder: Folder) -> RunLogs:
    evaluations = parse_evaluations(read_lines(folder, EVALUATIONS))
    held_out: dict[str, list[tuple[int, float]]] = {}
    for evaluation in evaluations:
        for name, loss in evaluation.validation.items():
            held_out.setdefault(name, []).append((evaluation.images, loss))
    return RunLogs(
        read_metrics(folder),
        [evaluation for evaluation in evaluations if evaluation.has_pictures],
        held_out,
        parse_failures(read_lines(folder, FAILURES)),
        read_quarantine(folder),
    )


def read_metrics(folder: Folder) -> list[MetricsLine]:
    """Return the lines of metrics in ``folder``; none where there is no such file."""
    if not folder.exists(METRICS):
        return []
    with folder.open(METRICS) as file:
        return list(parse_metrics(file))
