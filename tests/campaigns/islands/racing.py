"""Two jobs that want one component at the same moment, on an S3 server: one trains it, the other says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from launch.console.exit_codes import REFUSED_EXIT_CODE, STOPPED_EXIT_CODE
from launch.settings.load import dump_settings
from tests.campaigns.chaos.stages import s3_bucket
from tests.campaigns.islands.jobs import differing_stages, wait_until
from tests.support.commands import ROOT
from tests.support.free_runs import free_settings, trained_apart
from tests.support.runs import write_small_shards

LEASE_S = 3.0
MANY = 10**6
ENDLESS: dict[str, Any] = {
    "max_steps": MANY, "images": 8 * MANY, "checkpoint_every": 20, "plan": {"bands": ["LL1", "HL1"]},
}  # fmt: skip


class Racer:
    """``freqgan train`` in a process that has imported everything and waits for a word."""

    def __init__(self, file: Path, only: str) -> None:
        self.only = only
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaigns.islands.racing", str(file), f"only={only}"],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.strip())

    def said(self, *words: str) -> bool:
        """Whether all of these are in one of its lines."""
        return any(all(word in line for word in words) for line in list(self.lines))

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def trainers(settings: RunSettings, component: str) -> int:
    """How many processes have committed a checkpoint of a component."""
    names = open_folder(settings.run).child("components", component, "checkpoints").list()
    return len({name.split("/")[1] for name in names if name.endswith("/manifest.json")})


def race(settings: RunSettings, file: Path, second: str) -> tuple[str, list[str]]:
    """One race for LL1; who trained it, and what did not hold. The second racer may have HL1 to go on with."""
    racers = [Racer(file, "LL1"), Racer(file, second)]
    wrong: list[str] = []
    try:
        if not wait_until(lambda: all(one.said("ready") for one in racers), 120):
            return "nobody", ["a racer did not start"]
        for one in racers:
            one.go()
        refusal = "components/LL1 is in use by process"
        wait_until(lambda: any(one.said(refusal) for one in racers), 60)
        losers = [one for one in racers if one.said(refusal)]
        if len(losers) != 1:
            return "nobody", [f"{len(losers)} refused: {[one.lines[-3:] for one in racers]}"]
        loser, winner = losers[0], next(one for one in racers if one is not losers[0])
        if loser.only == "LL1":
            if (code := loser.process.wait(60)) != REFUSED_EXIT_CODE:
                wrong.append(f"exit code {code} of the one that was refused")
        elif not wait_until(lambda: loser.said("HL1: checkpoint of step"), 60):
            wrong.append(f"the other did not take the next component: {loser.lines[-3:]}")
        wait_until(lambda: winner.said("LL1: checkpoint of step"), 60)
        for one in racers:
            one.process.send_signal(signal.SIGTERM)
        codes = [one.process.wait(60) for one in racers if one is winner or one.only != "LL1"]
        if any(code != STOPPED_EXIT_CODE for code in codes):
            wrong.append(f"exit codes {codes} of those that trained")
        if (count := trainers(settings, "LL1")) != 1:
            wrong.append(f"{count} have trained LL1")
        return winner.only, wrong
    finally:
        for one in racers:
            one.process.kill()
            one.process.wait()


def campaign(folder: Path, races: int) -> int:
    """Prints what came of them; how many are wrong."""
    data, wrong, waits_s = write_small_shards(folder), 0, []
    winners: dict[str, int] = {}
    with s3_bucket() as bucket:
        for number in range(races):
            second = ("LL1", "LL1,HL1")[number % 2]
            settings = free_settings(f"{bucket}/race{number}", data, **ENDLESS)
            file = folder / f"race{number}.yaml"
            file.write_text(dump_settings(settings))
            began_s = time.monotonic()
            winner, faults = race(settings, file, second)
            waits_s.append(time.monotonic() - began_s)
            if not faults:
                trained_apart(settings.model_copy(update={"max_steps": 20}), "HL1")  # what nobody has trained
                faults = [f"bytes of {one}" for one in differing_stages(settings, folder / f"quiet{number}")]
            winners[f"{winner} of LL1 and {second}"] = winners.get(f"{winner} of LL1 and {second}", 0) + 1
            wrong += bool(faults)
            for fault in faults:
                print(f"race {number}: WRONG: {fault}", flush=True)
    print(
        f"{races} races for one component, {wrong} wrong; {max(waits_s):.0f} s at most; first were {winners}",
        flush=True,
    )
    return wrong


def main(words: list[str]) -> None:
    """The process of a racer."""
    from cluster.storage.lease import Lease
    from cluster.training import train
    from launch.cli import main as cli

    vars(train)["Lease"] = partial(Lease, duration_s=LEASE_S)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a file
    print("ready", file=sys.stderr, flush=True)
    sys.stdin.readline()
    cli(["train", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
