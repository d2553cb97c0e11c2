"""The simulation of a pipeline beside the pipeline: the default CIFAR-10 settings on the cores of this machine.

Stages are measured afresh; nothing of the pipeline goes into the prediction. Other processes on this machine slow the
pipeline down and not the prediction: every line says how much of the machine they took. The processor time of a step,
which they change less, is compared beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.execution.callbacks import StepRecord
from cluster.planning.cost_model import counted_work, measure
from cluster.planning.devices import own_cores, own_devices
from cluster.planning.planner import best_plan
from cluster.planning.simulation import Conditions, simulate
from cluster.run.settings import RunSettings
from cluster.training.train import train
from launch.settings.load import load_settings
from tests.benchmarks.bench_executors import ONE_START, STEPS, WARM_STEPS, WINDOWS, Clock, cifar10_data
from tests.benchmarks.harness import Comparison

BLOCK_STEPS = 8
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Watch(Clock):
    """A reporter that also keeps the processor seconds of this machine and of this program, over the steps that count.

    Linux only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, float]] = []

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        if len(self.records) in range(WARM_STEPS, WARM_STEPS + STEPS + 1, BLOCK_STEPS):
            self.marks.append((machine_s(), _own_s()))

    @property
    def own_s(self) -> float:
        """Processor seconds of all processes of the run."""
        return self.marks[-1][1] - self.marks[0][1]

    @property
    def least_step_s(self) -> float:
        """Processor seconds of a step, of the block of steps that took the least: others slow it down least."""
        return min(after - before for (_, before), (_, after) in pairwise(self.marks)) / BLOCK_STEPS

    @property
    def others(self) -> float:
        """Cores' worth of other processes."""
        return (self.marks[-1][0] - self.marks[0][0] - self.own_s) / self.seconds


def machine_s() -> float:
    """Processor seconds of all processes since the machine was started."""
    user, nice, system, _idle, _wait, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + sum(interrupts[:2])) / TICKS_PER_S


def _own_s() -> float:
    """Processor seconds of this process and all that descend from it and live."""
    children, ticks = defaultdict[int, list[int]](list), dict[int, int]()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if entry.name.isdecimal():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(entry.name))
                ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
    found, todo = 0, [os.getpid()]
    while todo:
        process = todo.pop()
        found += ticks.get(process, 0)
        todo += children[process]
    return found / TICKS_PER_S


def watched(settings: RunSettings) -> Watch:
    """A training in a folder that is deleted afterwards."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as run:
        train(settings.model_copy(update={"run": run}), watch)
    return watch


def comparisons() -> Iterable[Comparison]:
    """Costs, then every window: simulated and measured."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
        base = [
            f"data={cifar10_data(folder)}", "checkpoint_every=100000", "statistics_images=500", "device=cpu",
            "executor=ray", ONE_START,
        ]  # fmt: skip
        settings = load_settings("cifar10", base)
        work = counted_work(settings)
        costs = measure(settings, work)
        conditions = Conditions(contention=costs.contention)
        parameters = {name: w.parameters for name, w in work.items()}
        plan = best_plan(settings, costs.stages, own_devices("cpu"), parameters, conditions.link_bytes_per_s)
        alone_s = sum(stage.seconds(settings.batch) for stage in costs.stages)
        print(f"costs: {alone_s:.3f} s a step, {costs.contention:.2f} times that while all cores are busy", flush=True)
        for window in WINDOWS:
            # Steps after the last one that counts keep the pipeline as full at the end as at the start.
            chosen = load_settings("cifar10", [*base, f"window={window}", f"max_steps={WARM_STEPS + STEPS + window}"])
            simulated = simulate(chosen, plan, {stage.name: stage for stage in costs.stages}, conditions).images_per_s
            watch = watched(chosen)
            how = f"{STEPS} steps after {WARM_STEPS}; others took {watch.others:.2f} of {own_cores()} cores"
            measured = chosen.batch * STEPS / watch.seconds
            yield Comparison(f"simulated window {window} / measured", simulated, measured, "images/s", True, how)
            busy_s = alone_s * (costs.contention if window > 1 else 1.0)
            yield Comparison("its processor time of a step", busy_s, watch.own_s / STEPS, "s", False, how)
