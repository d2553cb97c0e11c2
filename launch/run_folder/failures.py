"""``failures.jsonl``: one line per failure that a run got over; written while training, read by the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from cluster.execution.failure_policy import Recovery
from launch.run_folder.appending import append_record

FAILURES = "failures.jsonl"


def append_failure(path: Path, recovery: Recovery) -> None:
    """Adds the line of one failure; lines of earlier starts stay."""
    append_record(path, json.dumps(asdict(recovery), separators=(",", ":")).encode() + b"\n")


def parse_failures(lines: Iterable[bytes]) -> list[Recovery]:
    """In the order in which they happened; lines that are torn or foreign are left out."""
    found = []
    for line in lines:
        try:
            values = json.loads(line)
            found.append(Recovery(**(values | {"stages": tuple(values["stages"])})))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def recovery_text(recovery: Recovery) -> str:
    """What happened and what was done, for a person."""
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
