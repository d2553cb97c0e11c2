"""The plan of a run at a free pace beside the run, and the simulation of a mixed chain beside the pipeline.

Stages are measured afresh; nothing of the trainings goes into the predictions. Other processes on this machine slow the
trainings down and not the predictions: where a line is not in processor seconds, it says how much of the machine they
took. The processor seconds of a free run are those of a long run less those of a short one, so that the start of its
processes does not count, and all components are named, so that no report is written; its images per second are the
steady ones, of each component while the others train.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.planning.cost_model import StageCosts, counted_work, stage_costs
from cluster.planning.devices import own_cores, own_devices
from cluster.planning.free_plan import ComponentRates
from cluster.planning.offers import by_type
from cluster.planning.planner import best_plan
from cluster.planning.simulation import Conditions, simulate
from cluster.run.settings import RunSettings
from freqgan.model.components import components
from launch.settings.load import load_settings
from tests.benchmarks.bench_executors import ONE_START, STEPS, WARM_STEPS, cifar10_data
from tests.benchmarks.bench_planner import TICKS_PER_S, machine_s, watched
from tests.benchmarks.harness import Comparison
from tests.support.commands import ROOT, command_line

FLOWS = ("experts=flow", "image_stage=none", "plan.high_gans={1: 1, 2: 1}", "plan.strict_nesting=true", "pace=free")
"""Three flow experts, LL2, HL-LH-HH2 and HL-LH-HH1."""
MIXED = ("experts.LL2=flow",)
SHORT_STEPS, LONG_STEPS = 8, 32
SAMPLE_S = 0.2
MARK = "FREQGAN_BENCHMARK"


class ProcessorTime:
    """The processor seconds of all processes that have MARK=``mark`` in their environment, also of those that end.

    The daemons of Ray, which are nobody's children, inherit it as well. Linux only.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._ticks: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def finish(self) -> float:
        """The seconds, to those that a process took after it was last looked at."""
        self._ended.set()
        self._thread.join()
        return sum(self._ticks.values()) / TICKS_PER_S

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for entry in Path("/proc").iterdir():
                with suppress(OSError, ValueError):
                    pid = int(entry.name)
                    if pid in self._ticks or self._mark in (entry / "environ").read_bytes():
                        fields = (entry / "stat").read_text().rpartition(")")[2].split()
                        self._ticks[pid] = int(fields[11]) + int(fields[12])


def comparisons() -> Iterable[Comparison]:
    """A mixed chain that keeps step, then flow experts that do not."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
        base = [f"data={cifar10_data(folder)}", "checkpoint_every=100000", "statistics_images=500", "device=cpu",
                "executor=ray", ONE_START]  # fmt: skip
        yield from mixed_chain(base)
        yield from free_run(base, folder)


def mixed_chain(base: list[str]) -> Iterable[Comparison]:
    """A flow expert for LL2 and GANs above it, all at the same step."""
    settings = load_settings("cifar10", [*base, *MIXED])
    costs, parameters = priced(settings)
    conditions = Conditions(contention=costs.contention)
    plan = best_plan(settings, costs.stages, costs.devices, parameters, conditions.link_bytes_per_s)
    for window in (1, 8):
        steps = WARM_STEPS + STEPS + window
        chosen = load_settings("cifar10", [*base, *MIXED, f"window={window}", f"max_steps={steps}"])
        simulated = simulate(chosen, plan, costs.by_name, conditions).images_per_s
        watch = watched(chosen)
        how = f"{STEPS} steps after {WARM_STEPS}; others took {watch.others:.2f} of {own_cores()} cores"
        rate = chosen.batch * STEPS / watch.seconds
        yield Comparison(f"mixed chain, window {window}: simulated / measured", simulated, rate, "images/s", True, how)
        busy_s = sum(plan.busy_s.values()) * (costs.contention if window > 1 else 1.0)
        yield Comparison("its processor time of a step", busy_s, watch.least_step_s, "s", False, how)


def free_run(base: list[str], folder: str) -> Iterable[Comparison]:
    """Flow experts, each in a process of its own, as many at a time as there are cores."""
    settings = load_settings("cifar10", [*base, *FLOWS, f"max_steps={LONG_STEPS}"])
    costs, parameters = priced(settings)
    (offer,) = by_type("here", costs.devices)
    rates = ComponentRates(settings, costs.by_name, parameters, Conditions(contention=costs.contention))
    steps = {part.name: rates.step_s(part, offer, 1) or 0.0 for part in components(settings)}
    used_s, others = {}, {}
    for count in (SHORT_STEPS, LONG_STEPS):
        used_s[count], others[count] = trained(base, f"{folder}/free-{count}", count)
    spent_s = (used_s[LONG_STEPS] - used_s[SHORT_STEPS]) / (LONG_STEPS - SHORT_STEPS)
    how = f"{LONG_STEPS} steps less {SHORT_STEPS}; others took {others[LONG_STEPS]:.2f} of {own_cores()} cores"
    yield Comparison("free run: processor time of a step of all", sum(steps.values()), spent_s, "s", False, how)
    for name, step_s in steps.items():
        rate = steady_rate(Path(f"{folder}/free-{LONG_STEPS}/components/{name}/metrics.jsonl"))
        yield Comparison(f"{name}: planned / measured", settings.batch / step_s, rate, "images/s", True, how)


def priced(settings: RunSettings) -> tuple[StageCosts, Mapping[str, int]]:
    """What stages cost on a core of this machine, and their weights."""
    work = counted_work(settings)
    costs = stage_costs(settings, work, own_devices("cpu"), measured=True, note=lambda text: None)
    alone_s = sum(stage.seconds(settings.batch) for stage in costs.stages)
    print(f"costs: {alone_s:.3f} s a step, {costs.contention:.2f} times that while all cores are busy", flush=True)
    return costs, {name: w.parameters for name, w in work.items()}


def trained(base: list[str], run: str, steps: int) -> tuple[float, float]:
    """Processor seconds of a whole free run of so many steps, and how many cores others took meanwhile."""
    mark = f"{os.getpid()}-{steps}"
    begun_s, machine_begun_s = time.monotonic(), machine_s()
    names = ",".join(part.name for part in components(load_settings("cifar10", [*base, *FLOWS])))
    command = command_line("train", "cifar10", *base, *FLOWS, f"max_steps={steps}", f"run={run}", f"only={names}")
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {MARK: mark}) as process:
        watch = ProcessorTime(mark)
        code = process.wait()
        own_s = watch.finish()
    assert code == 0, f"exit code {code}"
    others = (machine_s() - machine_begun_s - own_s) / (time.monotonic() - begun_s)
    return own_s, others


def steady_rate(path: Path) -> float:
    """Images a second of the later half of a component's steps."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    first, last = records[len(records) // 2], records[-1]
    return float((last["images"] - first["images"]) / (last["wall_s"] - first["wall_s"]))
