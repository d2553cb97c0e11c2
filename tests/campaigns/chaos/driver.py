"""A training as a process, which tells every step as a line: ``python -m tests.campaigns.chaos.driver JSON``.

It exits as the command line does.

JSON has ``settings`` (arguments of :func:`chaos_settings`), ``lease_s`` (how long a lease is good, where not as usual)
and ``held`` (says "ready" and waits for a line before it begins).
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from cluster.execution.callbacks import StepRecord
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoint import Checkpoint
from cluster.storage.lease import Lease
from cluster.training import train
from freqgan.errors import FreqganError
from launch.console.exit_codes import STOPPED_EXIT_CODE
from tests.campaigns.chaos.trainings import chaos_settings
from tests.support.runs import Events


def say(*words: object) -> None:
    print(*words, flush=True)


class Telling(Events):
    """A reporter that prints."""

    def on_start(self, first_step: int, notes: list[str]) -> None:
        say("started", first_step)

    def on_step(self, record: StepRecord) -> None:
        say("step", record.step)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        say("saved", checkpoint.step)

    def on_recovery(self, recovery: Recovery) -> None:
        say(
            "moved" if recovery.decision == "move" else "recovered",
            recovery.decision,
            ",".join(recovery.stages) or "-",
            recovery.cause,
        )


def main(order: dict[str, Any]) -> int:
    settings = chaos_settings(**order["settings"])
    if order.get("held"):
        say("ready")
        sys.stdin.readline()
    if order.get("lease_s"):
        vars(train)["Lease"] = partial(Lease, duration_s=order["lease_s"])
    try:
        result = train.train(settings, Telling())
    except FreqganError as error:
        say("error", " ".join(str(error).split()))
        return error.exit_code
    say(result.reason, result.step)
    return 0 if result.reason == "done" else STOPPED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
