"""Short forms of the cases of the campaign that no other test has, and what the campaign measures with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.chaos.__main__ import run_case
from tests.campaigns.chaos.memory import Sample, Trend, slope_per_hour, trends
from tests.campaigns.chaos.rows import Row
from tests.campaigns.chaos.trainings import Moments, lost_s

LONG = pytest.mark.long


@pytest.mark.alone
@pytest.mark.parametrize("fault", [pytest.param("machine", marks=LONG), pytest.param("calls", marks=LONG), "racing"])
def test_one_moment_of_a_fault(fault: str, tmp_path: Path) -> None:
    row = run_case(fault, tmp_path, moments=1)
    assert row.holds, row.text()
    assert row.moments >= 1 or fault == "calls"  # Ray draws which calls it loses


def test_seconds_lost_are_the_longest_gap_around_a_moment_less_a_usual_one() -> None:
    at_s = [0.0, 1.0, 2.0, 5.0, 6.0, 7.0, 17.0, 18.0]
    assert lost_s(at_s, 2.5, 6.5) == 3.0 - 1.0
    assert lost_s(at_s, 5.5, 7.5) == 0.0
    assert lost_s(at_s, 7.5, 18.5) == 10.0 - 1.0


def test_a_step_that_is_done_again_is_no_progress() -> None:
    from cluster.execution.callbacks import StepRecord

    moments = Moments()
    for step in (1, 2, 3, 2, 3, 4):
        moments.on_step(StepRecord(step, step, 0.0, 0.0, {}))
    assert (moments.farthest, len(moments.at_s)) == (4, 4)


def test_a_row_holds_when_every_digest_is_right_and_nothing_is_wrong() -> None:
    row = Row("band")
    assert not row.holds
    row.compare("a", "a")
    assert row.holds
    assert Row.load(row.dump()) == row
    row.compare("a", "b")
    assert not row.holds
    assert "1/2" in row.text()


def test_a_leak_is_seen_through_outliers() -> None:
    minutes = list(range(60))
    steady, leaking = [100.0] * 60, [100.0 + minute for minute in minutes]
    for values in (steady, leaking):
        values[30] = values[45] = 900.0
    assert slope_per_hour(minutes, steady) == 0.0
    assert slope_per_hour(minutes, leaking) == pytest.approx(60.0)
    samples = [Sample(m, m, 100 + m, 500, 100, 10, 10, 10, 10, 4, 30) for m in minutes]
    assert [trend.name for trend in trends(samples) if not trend.flat] == ["driver_mib"]
    assert Trend("store_mib", 2.0, 4.0).flat  # megabytes do not matter
