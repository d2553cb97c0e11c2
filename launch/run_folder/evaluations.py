"""``evaluations.jsonl``: one line per scored checkpoint; written while training, cut on resume, read by the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.evaluation.background import Evaluation
from freqgan.metrics.catalogue import Yardstick
from launch.run_folder.json_lines import JsonLines, JsonLinesFile

EVALUATIONS = "evaluations.jsonl"


def _evaluation(values: dict[str, Any]) -> Evaluation:
    """Lines of older versions do not say what decides which checkpoint is the best: bands did."""
    best_by: Yardstick = "learned" if values.get("best_by") == "learned" else "bands"
    return Evaluation(int(values["step"]), int(values["images"]), dict(values["scores"]), best_by)


EVALUATION_LINES = JsonLines(asdict, _evaluation)


class EvaluationLog(JsonLinesFile[Evaluation]):
    """Appends to a local ``evaluations.jsonl``; lines of steps after ``first_step``, and a torn one, are cut first."""

    def __init__(self, path: Path, first_step: int) -> None:
        super().__init__(path, EVALUATION_LINES, lambda evaluation: evaluation.step <= first_step)


def parse_evaluations(lines: Iterable[bytes]) -> list[Evaluation]:
    """Return the evaluations of ``lines`` in the order of steps, one per step (the last)."""
    by_step = {evaluation.step: evaluation for evaluation in EVALUATION_LINES.read(lines)}
    return [by_step[step] for step in sorted(by_step)]
