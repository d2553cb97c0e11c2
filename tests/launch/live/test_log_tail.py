"""Logs that are read as they grow, and curves that stay small: nothing is parsed twice, no peak is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage.folder import open_folder
from launch.live.curves import MOST_POINTS, Curves
from launch.live.log_tail import LogTail
from launch.run_folder.metrics import METRICS, METRICS_LINES, MetricsLine


class Reading:
    """A tail of metrics that counts what is parsed."""

    def __init__(self, folder: Path) -> None:
        self.steps: list[int] = []
        self.taken = 0
        self.tail = LogTail(open_folder(str(folder)), METRICS, METRICS_LINES, self._take, self.steps.clear)

    def _take(self, line: MetricsLine) -> None:
        self.steps.append(line.step)
        self.taken += 1

    def read(self) -> list[int]:
        self.tail.read()
        return self.steps


def line_of(step: int, loss: float = 0.5, stage: str = "LL1") -> MetricsLine:
    return MetricsLine(step, 8 * step, 0.25 * step, 32.0, {stage: {"loss": loss, "seconds": 0.1, "begun_s": step / 4}})


def written(path: Path, steps: range, loss: float = 0.5) -> None:
    with path.open("ab") as file:
        file.writelines(METRICS_LINES.line(line_of(step, loss)) for step in steps)


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    return Reading(tmp_path)


def test_only_new_lines_are_parsed(reading: Reading, tmp_path: Path) -> None:
    assert reading.read() == []
    written(tmp_path / METRICS, range(1, 6))
    assert reading.read() == [1, 2, 3, 4, 5]
    assert reading.read() == [1, 2, 3, 4, 5]
    written(tmp_path / METRICS, range(6, 8))
    assert reading.read() == [1, 2, 3, 4, 5, 6, 7]
    assert reading.taken == 7


def test_a_torn_line_is_read_once_it_is_whole(reading: Reading, tmp_path: Path) -> None:
    path, line = tmp_path / METRICS, METRICS_LINES.line(line_of(2))
    written(path, range(1, 2))
    with path.open("ab") as file:
        file.write(line[:20])
    assert reading.read() == [1]
    with path.open("ab") as file:
        file.write(line[20:])
    assert reading.read() == [1, 2]
    assert reading.taken == 2


@pytest.mark.parametrize("again", [range(4, 6), range(4, 20)])
def test_a_log_that_was_cut_is_read_anew(reading: Reading, tmp_path: Path, again: range) -> None:
    """A resumed training has cut it and written other lines: fewer than there were, or more."""
    path = tmp_path / METRICS
    written(path, range(1, 11))
    assert len(reading.read()) == 10
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    written(path, again, loss=0.75)
    assert reading.read() == [1, 2, 3, *again]


def test_a_log_that_is_gone_leaves_nothing(reading: Reading, tmp_path: Path) -> None:
    written(tmp_path / METRICS, range(1, 4))
    assert reading.read() == [1, 2, 3]
    (tmp_path / METRICS).unlink()
    assert reading.read() == []


# -- curves ----------------------------------------------------------------------------------------


def losses() -> Iterator[float]:
    """100,000 values with one peak up and one down."""
    for step in range(1, 100_001):
        yield {31_415: 9.0, 92_653: -9.0}.get(step, math.sin(step / 1000))


def test_long_curves_have_few_points_and_all_peaks() -> None:
    curves = Curves()
    for step, loss in enumerate(losses(), 1):
        curves.add(line_of(step, loss))
    answer = curves.answer(None)
    spread = answer["series"]["LL1"]["loss"]
    assert MOST_POINTS / 2 <= len(answer["steps"]) <= MOST_POINTS
    assert len(json.dumps(answer)) < 100_000
    assert answer["steps"] == sorted(set(answer["steps"]))
    assert (answer["steps"][-1], answer["images"][-1]) == (100_000, 800_000)
    assert (max(spread["high"]), min(spread["low"])) == (9.0, -9.0)
    assert sum(spread["mean"]) / len(spread["mean"]) == pytest.approx(sum(losses()) / 100_000, abs=0.01)
    assert all(
        low <= mean <= high for low, mean, high in zip(spread["low"], spread["mean"], spread["high"], strict=True)
    )
    assert "begun_s" not in answer["series"]["LL1"]


def test_answers_after_a_cursor_have_what_is_new_and_add_up_to_the_whole() -> None:
    curves, steps, means, cursor, sent = Curves(), list[int](), list[float](), None, 0
    for step in range(1, 3_001):
        curves.add(line_of(step, step / 7))
        if step % 50 == 0:
            answer = curves.answer(cursor)
            cursor, first = answer["cursor"], answer["first"]
            steps[first:] = answer["steps"]
            means[first:] = answer["series"]["LL1"]["loss"]["mean"]
            sent += len(answer["steps"])
    whole = curves.answer(None)
    assert steps == whole["steps"]
    assert means == whole["series"]["LL1"]["loss"]["mean"]
    assert sent < 10 * MOST_POINTS  # in 60 answers, of which few had all points
    assert curves.answer("no cursor")["first"] == 0
    assert curves.answer("1.400")["first"] == 0


def test_what_is_not_finite_or_not_there_leaves_a_gap() -> None:
    curves = Curves()
    curves.add(line_of(1, math.nan))
    curves.add(line_of(2, 0.5))
    curves.add(line_of(3, 0.25, stage="HL1"))
    series = curves.answer(None)["series"]
    assert series["LL1"]["loss"]["mean"] == [None, 0.5, None]
    assert series["HL1"]["loss"]["mean"] == [None, None, 0.25]
    assert "low" not in series["LL1"]["loss"]
    json.dumps(series, allow_nan=False)
