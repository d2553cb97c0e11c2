"""``evaluations.jsonl``: one line per scored checkpoint; written while training, cut on resume, read by the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cluster.watching import Evaluation

EVALUATIONS = "evaluations.jsonl"


class EvaluationLog:
    """Appends to a local ``evaluations.jsonl``; lines of steps after ``first_step``, and torn ones, go first."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        kept = parse_evaluations(path.read_bytes().splitlines()) if path.exists() else []
        lines = [_line(evaluation) for evaluation in kept if evaluation.step <= first_step]
        if path.exists():
            path.write_text("".join(lines), encoding="utf-8")

    def append(self, evaluation: Evaluation) -> None:
        """Writes the line of one checkpoint."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(evaluation))


def parse_evaluations(lines: Iterable[bytes]) -> list[Evaluation]:
    """In the order of steps, one per step (the last); lines that are torn or foreign are left out."""
    found: dict[int, Evaluation] = {}
    for line in lines:
        try:
            values = json.loads(line)
            found[int(values["step"])] = Evaluation(int(values["step"]), int(values["images"]), dict(values["scores"]))
        except (ValueError, KeyError, TypeError):
            continue
    return [found[step] for step in sorted(found)]


def _line(evaluation: Evaluation) -> str:
    values = {"step": evaluation.step, "images": evaluation.images, "scores": evaluation.scores}
    return json.dumps(values, separators=(",", ":")) + "\n"
