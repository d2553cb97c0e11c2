"""A long training on a cluster of several nodes with a random fault a minute: are its bytes right, and is memory flat?

``python -m tests.campaigns.soak [MINUTES]`` (``make soak``) prints a line a minute, then the slope of everything that
could leak, and whether the state is that of an undisturbed run of as many steps; a plot is written to build/soak.png.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.execution.callbacks import StepRecord
from cluster.ray_engine.address import LOOPBACK_VARIABLE
from cluster.run.checkpoints import find_checkpoint
from cluster.training.train import train
from tests.campaigns.chaos.drivers import Driver
from tests.campaigns.chaos.memory import SERIES, Sample, sample, trends
from tests.campaigns.chaos.monkey import Fault, Look, Monkey, kill
from tests.campaigns.chaos.processes import MARK, end_marked
from tests.campaigns.chaos.stages import REPLICATED, kill_machine, small_cluster
from tests.campaigns.chaos.trainings import BANDS, Moments, chaos_settings, pictures

BUILD = Path(__file__).parents[2] / "build"
PLOT, LOG = BUILD / "soak.png", BUILD / "soak.log"
FAULT_EVERY_S, SAMPLE_EVERY_S = 60.0, 60.0
STEP_DEADLINE_S = 20.0
QUIET_TIMEOUT_S = 7200.0
STAGES = (*BANDS, "image")


class Paced(Moments):
    """Takes ``pace_s`` for every step, so that the undisturbed run of as many steps does not take as long."""

    def __init__(self, pace_s: float) -> None:
        super().__init__()
        self.pace_s, self.due_s = pace_s, 0.0

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        now_s = time.monotonic()
        self.due_s = max(self.due_s + self.pace_s, now_s)
        time.sleep(self.due_s - now_s)


class MinuteMonkey(Monkey):
    """One fault a minute, at a random moment of it."""

    began_s = 0.0

    def pause(self) -> float:
        now_s = time.monotonic()
        self.began_s = max(self.began_s + FAULT_EVERY_S, now_s)
        return self.began_s - now_s + self.rng.uniform(0, FAULT_EVERY_S / 2)


class Faults:
    """All kinds that do not end the driver, in turn but shuffled; counts them."""

    def __init__(self, cluster: Any) -> None:
        self.kinds: dict[str, Fault] = {
            "band": kill(BANDS),
            "image": kill(["image"]),
            "ingest": kill(["ingest"]),
            "replica": kill(["HL1", "HL1@1"]),
            "uploader": kill_uploader,
            "machine": kill_machine(cluster),
            "hang": kill(STAGES, signal.SIGSTOP),
        }
        self.done: Counter[str] = Counter()
        self.last = ""
        self._queue: list[str] = []

    def __call__(self, executor: Any, seen: Look, rng: random.Random) -> Collection[str]:
        if not self._queue:
            self._queue = rng.sample(sorted(self.kinds), len(self.kinds))
        self.last = self._queue.pop()
        self.done[self.last] += 1
        return self.kinds[self.last](executor, seen, rng)


def kill_uploader(executor: Any, seen: Look, rng: random.Random) -> Collection[str]:
    import ray

    with suppress(ray.exceptions.RayError):
        uploaders = sorted(executor.workers.uploaders.items())
        if uploaders:
            os.kill(ray.get(rng.choice(uploaders)[1].pid.remote(), timeout=10), signal.SIGKILL)
    return ()


class FailureDetector(threading.Thread):
    """A sample a minute, until ``minutes`` are over; then it tells the monkey to end the training."""

    def __init__(self, minutes: float, reporter: Paced, monkey: Monkey, faults: Faults, run: str) -> None:
        super().__init__(daemon=True)
        self.minutes, self.reporter, self.monkey, self.faults, self.run_folder = minutes, reporter, monkey, faults, run
        self.samples: list[Sample] = []

    def run(self) -> None:
        print(" ".join(f"{name:>13}" for name in ("minute", "step", *SERIES)), " faults, the last", flush=True)
        began_s = time.monotonic()
        while (minute := (time.monotonic() - began_s) / 60) < self.minutes and self.monkey.is_alive():
            self.samples.append(found := sample(minute, self.reporter.farthest, self.run_folder))
            row = " ".join(f"{getattr(found, name):13.1f}" for name in SERIES)
            print(
                f"{minute:13.1f} {found.step:13} {row}  {sum(self.faults.done.values())} {self.faults.last}", flush=True
            )
            time.sleep(SAMPLE_EVERY_S)
        self.monkey.over.set()


def soak(minutes: float, pace_s: float, folder: Path) -> int:
    """0 when memory was flat and the state right."""
    from tests.campaigns.chaos.faults import executors

    changes: dict[str, Any] = {**REPLICATED, "step_deadline_s": STEP_DEADLINE_S}
    settings = chaos_settings(folder / "soak", pictures(folder), **changes)
    reporter = Paced(pace_s)
    with small_cluster() as cluster, executors() as running:
        faults = Faults(cluster)
        monkey = MinuteMonkey(faults, running, reporter, random.Random(0), most=10**9)
        watch = FailureDetector(minutes, reporter, monkey, faults, settings.run)
        monkey.start()
        watch.start()
        try:
            step = train(settings, reporter).step
        finally:
            monkey.over.set()
    print(f"stopped after step {step}; faults: {dict(faults.done)}", *monkey.wrong, flush=True)
    flat = told(watch.samples, [(m.at_s, m.lost_s) for m in monkey.struck])
    right = find_checkpoint(settings.run).digest() == quiet_digest(folder, step)
    print(f"digest {'right' if right else 'WRONG'}; {'no leak' if flat else 'MEMORY GROWS'}")
    return int(not (right and flat and not monkey.wrong))


def quiet_digest(folder: Path, step: int) -> str:
    """Of an undisturbed run in a process, and a Ray, of its own; with replicas as well, which round alike."""
    settings = {"run": folder / "quiet", "data": pictures(folder), "max_steps": step, "checkpoint_every": 10**6}
    driver = Driver({**settings, **REPLICATED}, None, **{LOOPBACK_VARIABLE: "0"})
    code = driver.exit_code(QUIET_TIMEOUT_S)
    driver.clean()
    assert code == 0, driver.said("error")
    return find_checkpoint(str(settings["run"])).digest()


def told(samples: Sequence[Sample], losses: Sequence[tuple[float, float]]) -> bool:
    """Prints the trends and draws the plot; whether all are flat."""
    found = trends(samples)
    print(*(trend.text() for trend in found), sep="\n")
    if losses:
        lost = sorted(seconds for _, seconds in losses)
        print(f"lost by a fault: median {lost[len(lost) // 2]:.1f} s, worst {lost[-1]:.1f} s")
    draw(samples)
    return all(trend.flat for trend in found if trend.name != "shm_mib")  # others on this machine use that too


def draw(samples: Sequence[Sample]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 3, figsize=(12, 8), sharex=True)
    for name, axis in zip(SERIES, axes.flat, strict=True):
        axis.plot([one.minute for one in samples], [getattr(one, name) for one in samples], linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    PLOT.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=120)
    print(f"plot: {PLOT}")


def keep_the_table() -> None:
    """What Ray and its processes write goes to a file; what this one prints stays where it was."""
    LOG.parent.mkdir(exist_ok=True)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(log, number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.soak", description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=60.0)
    parser.add_argument("--pace-s", type=float, default=0.5, help="least seconds of a step")
    given = parser.parse_args()
    os.environ.pop(LOOPBACK_VARIABLE, None)  # with it, Ray refuses a cluster of several nodes
    os.environ.setdefault(MARK, f"soak{os.getpid()}")
    keep_the_table()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return soak(given.minutes, given.pace_s, Path(folder))
    finally:
        end_marked(os.environ[MARK])


if __name__ == "__main__":
    sys.exit(main())
