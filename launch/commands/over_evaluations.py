"""``freqgan evaluate --over-evaluations``: a table of metrics by the passes that flow experts generate with."""

from __future__ import annotations

import json
from collections.abc import Callable

from rich import box
from rich.table import Table

from cluster.evaluation.over_evaluations import QualityCurve, quality_over_evaluations
from cluster.run.checkpoints import open_checkpoint, open_model
from freqgan.errors import InputError
from launch.console.tables import plain_console
from launch.settings.targets import writable_object

PRINTED_WIDTH = 132
MOST = 1000


def over_evaluations_command(
    run: str,
    data: str,
    evaluations: str | None,
    *,
    count: int,
    seed: int,
    json_file: str | None,
    students: str | None,
    note: Callable[[str], None],
) -> None:
    """Print the table of ``run``, with its ``students`` where given, and write ``json_file`` if it is given.

    Raises:
        InputError: numbers that cannot be read, no run of flow experts, a ``json_file`` that cannot be written.

    """
    if evaluations is None:
        raise InputError(f"--students {students}: give --over-evaluations 1,2,4,8 as well, to be measured beside it")
    numbers = parse_evaluations(evaluations)
    target = writable_object("--json", json_file) if json_file is not None else None
    learners = None if students is None else open_model(students, note=note)[1]
    curve = open_checkpoint(
        run,
        lambda checkpoint: quality_over_evaluations(
            checkpoint, numbers, data, count=count, seed=seed, note=note, students=learners
        ),
        note=note,
    )
    plain_console(PRINTED_WIDTH).print(curve_table(curve))
    if target is not None:
        target[0].write(target[1], json.dumps(curve_json(curve), indent=1).encode())


def parse_evaluations(text: str) -> list[int]:
    """Return the numbers of "1,2,4", each once and in order; InputError where one is no number from 1 to 1000."""
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.isascii() and part.isdecimal() and 1 <= int(part) <= MOST)]
    if wrong:
        raise InputError(
            f"--over-evaluations {text}: {wrong[0]!r} is no number from 1 to {MOST}; write numbers such as 1,2,4,8"
        )
    return sorted({int(part) for part in parts})


def curve_json(curve: QualityCurve) -> dict[str, dict[str, object]]:
    """Return {metric: {floor, evaluations: {number: value}, students}}; the last where there are some."""
    table: dict[str, dict[str, object]] = {}
    for name, floor in curve.floors.items():
        by_evaluations = {str(number): values[name] for number, values in curve.by_evaluations.items()}
        table[name] = {"floor": floor, "evaluations": by_evaluations}
        if curve.students is not None:
            table[name]["students"] = curve.students[name]
    return table


def curve_table(curve: QualityCurve) -> Table:
    """Return a table with a row for each metric, and a column for each number of passes, the students and the floor."""
    table = Table(title="by passes through the network of every expert; low is good", box=box.SIMPLE)
    table.add_column("metric")
    columns = {str(number): values for number, values in curve.by_evaluations.items()}
    if curve.students is not None:
        columns["students: 1"] = curve.students
    for heading in (*columns, "floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, floor in curve.floors.items():
        table.add_row(name, *(f"{values[name]:.4g}" for values in columns.values()), f"{floor:.4g}")
    return table
