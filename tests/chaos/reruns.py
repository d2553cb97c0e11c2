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
from typing import Any

from cluster.checkpoints import find_checkpoint
from launch.training import STOPPED_EXIT_CODE
from tests.chaos.drivers import Driver
from tests.chaos.rows import Row
from tests.chaos.stages import quiet_of
from tests.chaos.trainings import pictures

CHECKPOINT_EVERY = 5
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

    def lost_s(self, moment_s: float) -> float | None:
        """From ``moment_s`` to the next step that had never been finished before, less the time of a usual one."""
        after = next((at_s for at_s in self.at_s if at_s > moment_s), None)
        return None if after is None else after - moment_s - statistics.median(self.usual_s)


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


def rerun_case(fault: str, strike: Strike, folder: Path, moments: int, **environment: str) -> Row:
    """Strikes a driver, runs the same command again, and so on; the last one goes some steps further and is stopped."""
    row, rng, progress = Row(fault), random.Random(fault), Progress()
    settings: dict[str, Any] = {"run": folder / fault, "data": pictures(folder), "checkpoint_every": CHECKPOINT_EVERY}
    struck_at_s: list[float] = []
    codes: list[int | None] = []
    left = 0
    while len(struck_at_s) < moments:
        driver = Driver(settings, **environment)
        moment_s = random_moment(driver, progress, rng)
        if strike(driver):
            struck_at_s.append(moment_s)
        codes.append(driver.exit_code())
        progress.add(driver)
        if codes[-1] in (0, 2) or (driver.said("error") and codes[-1] != 3):
            row.wrong.append(f"exit code {codes[-1]}: {driver.said('error')}")
        left += driver.clean()
        if len(codes) > 2 * moments + 5:
            row.wrong.append("could not be struck")
            break
    driver = Driver(settings, **environment)
    driver.wait_for(progress.farthest + 10)
    driver.signal(signal.SIGTERM)
    code = driver.exit_code()
    progress.add(driver)
    if code != STOPPED_EXIT_CODE:
        row.wrong.append(f"the last driver ended with exit code {code}: {driver.said('error')}")
    driver.clean()
    checkpoint = find_checkpoint(str(settings["run"]))
    row.compare(checkpoint.digest(), quiet_of(folder).digest(checkpoint.step))
    row.moments = len(struck_at_s)
    row.lost_s = [lost for lost in map(progress.lost_s, struck_at_s) if lost is not None]
    row.notes += [
        f"{checkpoint.step} steps",
        f"exit codes {sorted(set(map(str, codes)))}",
        f"{left} processes left over",
    ]
    return row


def kill_driver(driver: Driver) -> bool:
    driver.signal(signal.SIGKILL)
    return True


def kill_gcs(driver: Driver) -> bool:
    """Its driver ends by itself."""
    return driver.kill_program("gcs_server") > 0


def coordinator_case(folder: Path, moments: int) -> Row:
    return rerun_case("coordinator", kill_driver, folder, moments)


def gcs_case(folder: Path, moments: int) -> Row:
    return rerun_case("gcs", kill_gcs, folder, moments)
