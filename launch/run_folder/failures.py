"""``failures.jsonl``: one line per failure that a run got over; written while training, read by the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.execution.failure_policy import Recovery
from launch.run_folder.json_lines import JsonLines, JsonLinesFile

FAILURES = "failures.jsonl"


def _recovery(values: dict[str, Any]) -> Recovery:
    return Recovery(**(values | {"stages": tuple(values["stages"])}))


FAILURE_LINES = JsonLines(asdict, _recovery)


class FailureLog(JsonLinesFile[Recovery]):
    """Appends to a local ``failures.jsonl``; lines of earlier starts stay, a torn one is cut first."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, FAILURE_LINES)


def parse_failures(lines: Iterable[bytes]) -> list[Recovery]:
    """Return the failures of ``lines`` in the order in which they happened."""
    return list(FAILURE_LINES.read(lines))


def recovery_text(recovery: Recovery) -> str:
    """Return what happened and what was done, for a person."""
    if recovery.decision == "roll back":
        return f"{recovery.cause}: all stages begin again after step {recovery.from_step}"
    if recovery.decision == "set back":
        return (
            f"{', '.join(recovery.stages)} went wrong at step {recovery.step} ({recovery.cause}): it goes on from its "
            f"state after step {recovery.from_step} with a lower learning rate; all others go on"
        )
    if recovery.decision == "move":
        return (
            f"{', '.join(recovery.stages)} moved {recovery.cause} after step {recovery.step}, within "
            f"{recovery.seconds:.1f} s; all others stay where they are"
        )
    who = f"{', '.join(recovery.stages)} died" if recovery.stages else "calls were lost"
    again = f", {recovery.steps} steps of it are done again" if recovery.steps else ""
    return f"{who} at step {recovery.step}; replaced within {recovery.seconds:.1f} s{again}; all others go on"
