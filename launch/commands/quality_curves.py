"""``freqgan evaluate --over-evaluations, --over-condition-noise``: metrics by the ways that flow experts generate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from rich import box
from rich.table import Table

from cluster.evaluation.quality_curves import CurvePoints, QualityCurves, quality_curves
from cluster.run.checkpoints import open_checkpoint
from cluster.run.trained_model import open_model
from freqgan.errors import InputError
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from launch.console.tables import plain_console
from launch.settings.targets import writable_object

PRINTED_WIDTH = 132
MOST = 1000


def quality_curves_command(
    run: str,
    data: str,
    *,
    evaluations: str | None,
    condition_noise: str | None,
    count: int,
    seed: int,
    json_file: str | None,
    students: str | None,
    note: Callable[[str], None],
    learned: bool = True,
    generation: GenerationOptions = AS_TRAINED,
) -> None:
    """Print the tables of ``run``, with its ``students`` where given, and write ``json_file`` if it is given.

    ``generation`` is what all of a curve have in common; ``learned`` whether distances by learned features are
    measured.

    Raises:
        InputError: numbers that cannot be read, no run of flow experts, a ``json_file`` that cannot be written.

    """
    if evaluations is None and students is not None:
        raise InputError(f"--students {students}: give --over-evaluations 1,2,4,8 as well, to be measured beside it")
    points = CurvePoints(
        [] if evaluations is None else parse_evaluations(evaluations),
        [] if condition_noise is None else parse_condition_noise(condition_noise),
    )
    target = writable_object("--json", json_file) if json_file is not None else None
    learners = None if students is None else open_model(students, note=note)[1]
    curves = open_checkpoint(
        run,
        lambda checkpoint: quality_curves(
            checkpoint, points, data, count=count, seed=seed, note=note, students=learners, learned=learned,
            generation=generation.apply(checkpoint.settings),
        ),
        note=note,
    )  # fmt: skip
    for table in curve_tables(curves):
        plain_console(PRINTED_WIDTH).print(table)
    if target is not None:
        target[0].write(target[1], json.dumps(curves_json(curves), indent=1).encode())


def parse_evaluations(text: str) -> list[int]:
    """Return the numbers of "1,2,4", each once and in order; InputError where one is no number from 1 to 1000."""
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.isascii() and part.isdecimal() and 1 <= int(part) <= MOST)]
    if wrong:
        raise InputError(
            f"--over-evaluations {text}: {wrong[0]!r} is no number from 1 to {MOST}; write numbers such as 1,2,4,8"
        )
    return sorted({int(part) for part in parts})


def parse_condition_noise(text: str) -> list[float]:
    """Return the numbers of "0,.05,.1", each once and in order; InputError where one is no number from 0 on."""
    numbers = set[float]()
    for part in text.split(","):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise InputError(
                f"--over-condition-noise {text}: {part.strip()!r} is no number from 0 on; write numbers such as "
                "0,0.05,0.1,0.2"
            )
        numbers.add(number)
    return sorted(numbers)


def curves_json(curves: QualityCurves) -> dict[str, dict[str, object]]:
    """Return {metric: {floor, evaluations: {number: value}, condition_noise: {strength: value}, students}}.

    What was not measured is left out.
    """
    table: dict[str, dict[str, object]] = {}
    for name, floor in curves.floors.items():
        table[name] = {"floor": floor}
        if curves.by_evaluations:
            table[name]["evaluations"] = {str(number): v[name] for number, v in curves.by_evaluations.items()}
        if curves.by_condition_noise:
            table[name]["condition_noise"] = {f"{noise:g}": v[name] for noise, v in curves.by_condition_noise.items()}
        if curves.students is not None:
            table[name]["students"] = curves.students[name]
    return table


def curve_tables(curves: QualityCurves) -> list[Table]:
    """Return a table for each curve, with a row per metric, and a column per way to generate, students and floor."""
    students = {} if curves.students is None else {"students: 1": curves.students}
    passes = {str(number): values for number, values in curves.by_evaluations.items()}
    noises = {f"{noise:g}": values for noise, values in curves.by_condition_noise.items()}
    titles = {
        "by passes through the network of every expert": passes | students if passes else {},
        "by the noise on the bands that experts see": noises,
    }
    return [_table(f"{title}; low is good", columns | {"floor": curves.floors}) for title, columns in titles.items()
            if columns]  # fmt: skip


def _table(title: str, columns: dict[str, dict[str, float]]) -> Table:
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("metric")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in columns["floor"]:
        table.add_row(name, *(f"{values[name]:.4g}" for values in columns.values()))
    return table
