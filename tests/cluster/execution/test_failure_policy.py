"""What is decided about failures, and what is written and said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.execution.failure_policy import UNLIMITED, Recovery, Symptoms, decide
from launch.run_folder.failures import FailureLog, parse_failures, recovery_text


@pytest.mark.parametrize(
    ("dead", "lost_calls", "lost_objects", "failures", "budget", "decision"),
    [
        (("HL1",), False, False, 0, 1, "replay"),
        ((), True, False, 0, 1, "replay"),
        (("HL1",), False, True, 0, 1, "roll back"),
        ((), False, True, 0, 1, "roll back"),
        (("HL1",), False, False, 1, 1, "fail"),  # the budget is spent
        (("HL1",), False, False, 0, 0, "fail"),
        (("HL1",), False, False, 10**6, UNLIMITED, "replay"),
        ((), False, False, 0, UNLIMITED, "fail"),  # the run's own error would come again
    ],
)
def test_decisions(
    dead: tuple[str, ...], lost_calls: bool, lost_objects: bool, failures: int, budget: int, decision: str
) -> None:
    assert decide(Symptoms(dead, lost_calls, lost_objects, failures), budget) == decision


def test_failures_are_written_read_and_said(tmp_path: Path) -> None:
    found = [
        Recovery(12, ("HL1", "image"), "The actor died unexpectedly", "replay", 10, 9, 3.21),
        Recovery(14, (), "a call was lost", "replay", 14, 0, 0.1),
        Recovery(20, ("LL1",), "gone", "roll back", 10, 0, 0.1),
        Recovery(30, ("LL1",), "to 10.0.0.7", "move", 30, 0, 4.0),
    ]
    path = tmp_path / "failures.jsonl"
    for recovery in found[:2]:
        FailureLog(path).append(recovery)
    with path.open("a") as file:
        file.write('{"step": 3}\n{"torn')
    log = FailureLog(path)
    assert path.read_bytes().endswith(b'{"step": 3}\n')  # perhaps another version knows it
    for recovery in found[2:]:
        log.append(recovery)
    with path.open("a") as file:
        file.write('{"step": 3}\n{"torn')
    assert parse_failures(path.read_bytes().splitlines(keepends=True)) == found
    assert recovery_text(found[0]) == (
        "HL1, image died at step 12; replaced within 3.2 s, 9 steps of it are done again; all others go on"
    )
    assert recovery_text(found[1]) == "calls were lost at step 14; replaced within 0.1 s; all others go on"
    assert recovery_text(found[2]) == "gone: all stages begin again after step 10"
    assert recovery_text(found[3]) == (
        "LL1 moved to 10.0.0.7 after step 30, within 4.0 s; all others stay where they are"
    )


@pytest.mark.parametrize(
    ("dead", "preemptions", "budget", "decision"),
    [
        ((), 0, UNLIMITED, "roll back"),
        (("HL1",), 3, UNLIMITED, "roll back"),
        ((), 1, 1, "fail"),
        ((), 1, 2, "roll back"),
    ],
)
def test_lost_machines_have_a_budget_of_their_own(
    dead: tuple[str, ...], preemptions: int, budget: int, decision: str
) -> None:
    symptoms = Symptoms(dead, False, False, failures=9, homeless=("HL1",), preemptions=preemptions)
    assert decide(symptoms, 0, budget) == decision
