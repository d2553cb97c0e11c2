"""Cases in which the driver dies, and the same command is run again until all is done."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cluster.run.checkpoints import find_checkpoint
from launch.console.exit_codes import STOPPED_EXIT_CODE
from tests.campaigns.chaos.drivers import Driver
from tests.campaigns.chaos.rows import Row
from tests.campaigns.chaos.stages import quiet_of
from tests.campaigns.chaos.trainings import pictures

CHECKPOINT_EVERY = 5
LEFT_OVER_S = 10.0
EARLY, EARLY_S, LATE_S = 0.25, 8.0, 4.0
"""The part of the moments that come before a driver has gone further than the last; how late they and others come."""


@dataclass
class Progress:
    """When every step was finished for the first time, by whichever driver."""

    at_s: list[float] = field(default_factory=list)
    farthest: int = 0
    usual_s: list[float] = field(default_factory=list)

    def add(self, driver: Driver) -> None:
        steps = driver.steps_at_s()
        self.usual_s += [after - before for (before, _), (after, _) in pairwise(steps)]
        for at_s, step in steps:
            if step > self.farthest:
                self.farthest = step
                self.at_s.append(at_s)

    def lost_s(self, moment_s: float, over_s: float) -> float:
        """The longest time without progress in a gap that had begun by ``over_s``, less the time of a usual step."""
        gaps = [
            after - max(before, moment_s)
            for before, after in pairwise(self.at_s)
            if after > moment_s and before <= over_s
        ]
        return max(0.0, max(gaps, default=0.0) - statistics.median(self.usual_s))


def random_moment(driver: Driver, progress: Progress, rng: random.Random) -> float:
    """Waits for it: some while a driver starts, most when it has gone further than any before."""
    if rng.random() < EARLY:
        time.sleep(rng.uniform(0, EARLY_S))
    else:
        driver.wait_for(progress.farthest + 1)
        time.sleep(rng.uniform(0, LATE_S))
    return time.monotonic()


Strike = Callable[[Driver], bool]
"""Does it to a driver; whether there was anything to do it to."""


@dataclass
class Struck:
    """When a driver was struck, and when it had got over it; at once where it died."""

    at_s: float
    over_s: float


class Rerun:
    """One run whose driver is struck again and again; one that has died is started anew by the same command.

    Args:
        fault: its name, of the run's folder too.
        strike: see :data:`Strike`.
        folder: of the campaign.
        environment: more variables for the drivers.

    """

    def __init__(self, fault: str, strike: Strike, folder: Path, **environment: str) -> None:
        self.fault, self.strike, self.environment = fault, strike, environment
        self.settings = {"run": folder / fault, "data": pictures(folder), "checkpoint_every": CHECKPOINT_EVERY}
        self.row, self.rng, self.progress = Row(fault), random.Random(fault), Progress()
        self.struck: list[Struck] = []
        self.codes: list[int | None] = []
        self.drivers: list[Driver] = []
        self.survived = 0

    def start(self) -> Driver:
        self.drivers.append(driver := Driver(self.settings, None, **self.environment))
        return driver

    def once(self, driver: Driver) -> Driver | None:
        """Strikes ``driver`` once; the same one where it has got over it, or None."""
        moment_s, recoveries = random_moment(driver, self.progress, self.rng), len(driver.said("recovered"))
        begun, there = driver.step > 0, self.strike(driver)
        over = there and (driver.wait_recovered(recoveries) if begun else driver.wait_for(1))
        if over:
            self.survived += 1
            driver.wait_for(driver.step + 1)
        elif there or driver.ended:
            self.codes.append(driver.exit_code())
        self.progress.add(driver)
        if there:
            self.struck.append(Struck(moment_s, time.monotonic() if over else moment_s))
        if self.codes and self.codes[-1] not in (-signal.SIGKILL, 1, 3):
            self.row.wrong.append(f"exit code {self.codes[-1]}: {driver.said('error')}")
        return None if driver.ended else driver

    def last(self, driver: Driver) -> int:
        """Lets it go some steps further and stops it as a scheduler would; the step."""
        driver.wait_for(self.progress.farthest + 10)
        driver.signal(signal.SIGTERM)
        if (code := driver.exit_code()) != STOPPED_EXIT_CODE:
            self.row.wrong.append(f"the last driver ended with exit code {code}: {driver.said('error')}")
        self.progress.add(driver)
        return find_checkpoint(str(self.settings["run"])).step

    def case(self, moments: int) -> Row:
        """Strikes ``moments`` times, then compares the digest with that of an undisturbed run."""
        driver: Driver | None = None
        for _ in range(2 * moments + 5):
            if len(self.struck) < moments:
                driver = self.once(driver or self.start())
        step = self.last(driver or self.start())
        time.sleep(LEFT_OVER_S)
        left = sum(one.clean() for one in self.drivers)
        row, checkpoint = self.row, find_checkpoint(str(self.settings["run"]), step=step)
        row.compare(checkpoint.digest(), quiet_of(Path(str(self.settings["run"])).parent).digest(step))
        row.moments = len(self.struck)
        row.lost_s = [self.progress.lost_s(one.at_s, one.over_s) for one in self.struck]
        codes = ", ".join(sorted({str(code) for code in self.codes})) or "none"
        row.notes += [f"{step} steps", f"got over without a rerun {self.survived} times", f"exit codes: {codes}"]
        row.notes.append(f"{left} processes left {LEFT_OVER_S:g} s after the end")
        return row


def kill_driver(driver: Driver) -> bool:
    driver.signal(signal.SIGKILL)
    return True


def kill_gcs(driver: Driver) -> bool:
    """Its driver starts another Ray, or ends by itself."""
    return driver.kill_program("gcs_server") > 0


def coordinator_case(folder: Path, moments: int) -> Row:
    return Rerun("coordinator", kill_driver, folder).case(moments)


def gcs_case(folder: Path, moments: int) -> Row:
    return Rerun("gcs", kill_gcs, folder).case(moments)
