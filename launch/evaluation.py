"""``freqgan evaluate``: metrics of a run or of a folder of images as a table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.checkpoints import find_checkpoint, has_checkpoints
from cluster.evaluation import evaluate_checkpoint, evaluate_files
from cluster.storage import split_object
from freqgan.errors import InputError
from freqgan.metrics.evaluation import MEASURES, Score

PRINTED_WIDTH = 110


def evaluate_command(
    source: str,
    data: str,
    *,
    count: int,
    seed: int,
    size: int | None,
    json_file: str | None,
    note: Callable[[str], None],
) -> None:
    """Prints the table of ``source``, a run or a folder or zip of images, and writes ``json_file`` if it is given.

    Raises:
        InputError: neither a run nor images, no shards, ``size`` for a run, a ``json_file`` that cannot be written.

    """
    target = split_object(json_file) if json_file else None
    if target is not None:
        target[0].check_writable()
    if not source.lower().endswith(".zip") and has_checkpoints(source):
        if size is not None:
            raise InputError(f"--size {size}: {source} is a run and makes images of its own size; leave --size out")
        checkpoint = find_checkpoint(source)
        for text in checkpoint.notes:
            note(text)
        scores = evaluate_checkpoint(checkpoint, data, count=count, seed=seed, note=note)
    else:
        scores = evaluate_files(source, data, count=count, size=size, note=note)
    Console(width=PRINTED_WIDTH).print(scores_table(scores))
    if target is not None:
        target[0].write(target[1], json.dumps(scores_json(scores), indent=1).encode())


def scores_json(scores: Mapping[str, Score]) -> dict[str, dict[str, float | None]]:
    """{metric: {value, floor, ratio}}; a ratio that does not exist is null."""
    return {name: {"value": s.value, "floor": s.floor, "ratio": s.ratio} for name, s in scores.items()}


def scores_table(scores: Mapping[str, Score]) -> Table:
    """A table for people: one row per metric, what it sees on its first."""
    table = Table("metric", "value", "floor", "ratio", "sees", box=box.SIMPLE)
    for column in table.columns[1:4]:
        column.justify = "right"
    sees = {measure.name: measure.sees for measure in MEASURES}
    for name, score in scores.items():
        ratio = "-" if score.ratio is None else f"{score.ratio:.2f}"
        family = name.partition(".")[0]
        table.add_row(name, f"{score.value:.4g}", f"{score.floor:.4g}", ratio, sees.pop(family, ""))
    return table
