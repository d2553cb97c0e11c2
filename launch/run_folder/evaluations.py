"""``evaluations.jsonl``: one line per scored checkpoint; written while training, cut on resume, read by the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from cluster.evaluation.background import Evaluation
from cluster.storage.folder import open_folder
from launch.run_folder.appending import append_record

EVALUATIONS = "evaluations.jsonl"


class EvaluationLog:
    """Appends to a local ``evaluations.jsonl``; lines of steps after ``first_step``, and torn ones, go first."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        folder = open_folder(str(path.parent))
        if folder.exists(path.name):
            kept = parse_evaluations(folder.read(path.name).splitlines())
            lines = [_line(evaluation) for evaluation in kept if evaluation.step <= first_step]
            folder.write(path.name, b"".join(lines))  # at once: on a full disk nothing is lost

    def append(self, evaluation: Evaluation) -> None:
        """Writes the line of one checkpoint."""
        append_record(self.path, _line(evaluation))


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


def _line(evaluation: Evaluation) -> bytes:
    values = {"step": evaluation.step, "images": evaluation.images, "scores": evaluation.scores}
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"
