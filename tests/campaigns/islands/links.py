"""Images/s behind a link of 10 Mbit/s and 200 ms there and back: islands, GANs with feedback, and data parallelism."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from launch.run_folder.metrics import MetricsLine, parse_metrics
from tests.campaigns.hosts import told_over_two_hosts
from tests.campaigns.islands.jobs import Island, wait_until
from tests.campaigns.islands.same_bytes import bucket
from tests.support.commands import ROOT
from tests.support.free_runs import FLOW, free_settings
from tests.support.namespaces import Shape, islands, running, two_hosts
from tests.support.runs import tiny_run_settings, write_small_shards

SLOW = Shape(mbit_per_s=10, delay_ms=100)
LEAST_SHARE = 0.98
MEASURED_S, START_TIMEOUT_S = 180.0, 300.0
MANY, STEPS, WARM_UP = 10**6, 60, 20
NETWORK = {"width": 16, "coarse_width": 16, "heads": 2}
ENDLESS: dict[str, Any] = {
    "max_steps": MANY, "images": 8 * MANY, "checkpoint_every": 2000, "executor": "ray", "plan": {"bands": ["LL1"]},
    "flow": {**FLOW, "coarse_network": NETWORK},
}  # fmt: skip


def lines_of(settings: RunSettings) -> list[MetricsLine]:
    """The metrics of the one component of a run, as far as they are stored."""
    folder = open_folder(settings.by_component()["LL1"].run)
    name = "metrics.jsonl"
    return list(parse_metrics(folder.read(name).splitlines(keepends=True))) if folder.exists(name) else []


def rate(lines: list[MetricsLine]) -> float:
    """Images/s without the beginning."""
    first, last = lines[len(lines) // 5], lines[-1]
    return (last.images - first.images) / (last.wall_s - first.wall_s)


def rates_of_islands(folder: Path, data: Path, shapes: list[Shape | None]) -> tuple[list[float], int, int]:
    """Images/s of islands that train at the same time, behind links of these shapes; bytes of a checkpoint; weights."""
    with islands(shapes) as hosts, bucket() as url:
        runs = [free_settings(f"{url}/run{i}", data, **ENDLESS) for i in range(len(shapes))]
        jobs = [Island(run, ("LL1",), folder, host) for run, host in zip(runs, hosts, strict=True)]
        try:
            for job in jobs:
                job.start()
            if not wait_until(lambda: all(map(lines_of, runs)), START_TIMEOUT_S):
                raise RuntimeError(str([job.told() for job in jobs]))
            time.sleep(MEASURED_S)
            for job in jobs:
                job.stop()
            checkpoint = find_checkpoint(runs[0].run)
            weights = sum(x.numel() for state in checkpoint.averages().values() for x in state.values())
            return [rate(lines_of(run)) for run in runs], sum(one.size_bytes for one in checkpoint.records), weights
        finally:
            for job in jobs:
                job.clean()


def rate_with_feedback(folder: Path, data: Path, shape: Shape | None) -> float:
    """Images/s of band GANs that an image stage judges, over two hosts with such a link; 0 where it does not end."""
    common: dict[str, Any] = {"max_steps": STEPS, "images": 8 * STEPS, "checkpoint_every": 1000}
    settings = tiny_run_settings(folder / f"feedback {shape}", data, executor="ray", **common)
    told = told_over_two_hosts(settings, shape=shape)
    steps = [line["at_s"] for line in told.of("stepped")][WARM_UP:]
    return settings.batch * (len(steps) - 1) / (steps[-1] - steps[0]) if len(steps) > 1 else 0.0


def rate_of_data_parallelism(weights: int, shape: Shape | None) -> float:
    """Images/s of two processes that share every batch and average gradients by gloo, over such a link."""
    with two_hosts(shape) as hosts:
        command = [sys.executable, "-m", "tests.campaigns.islands.data_parallel"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        options: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE}
        words = [[*command, str(rank), hosts[0].address, str(weights)] for rank in range(2)]
        with (
            running(hosts[0].command(words[0]), **options) as first,
            running(hosts[1].command(words[1]), **options) as _,
        ):
            return float(first.communicate(timeout=300)[0])


def row(name: str, local: float, slow: float, *, bound: bool = False) -> int:
    """Prints a line; 1 where a bound does not hold."""
    share = slow / local if local else 0.0
    print(f"{name:52} {local:9.1f} {slow:9.1f} {share:6.3f}", flush=True)
    return int(bound and share < LEAST_SHARE)


def campaign(folder: Path) -> int:
    """Prints a table; 1 where an island is slower than LEAST_SHARE of one with a fast link."""
    data = write_small_shards(folder)
    print(f"{'images/s':52} {'fast link':>9} {'slow link':>9} {'share':>6}", flush=True)
    (local, slow), size, weights = rates_of_islands(folder, data, [None, SLOW])
    (slow_first, local_second), *_ = rates_of_islands(folder, data, [SLOW, None])
    row("islands of a flow expert, the second one slow", local, slow)
    row("the same, the first one slow", local_second, slow_first)
    wrong = row("both: mean", (local + local_second) / 2, (slow + slow_first) / 2, bound=True)
    print(f"  a checkpoint every {ENDLESS['checkpoint_every']} steps: {size:,} bytes; {weights:,} weights", flush=True)
    row("GANs with feedback, over two hosts", *(rate_with_feedback(folder, data, one) for one in (None, SLOW)))
    row(
        f"data parallelism by gloo, {weights:,} weights",
        *(rate_of_data_parallelism(weights, x) for x in (None, SLOW)),
    )
    return wrong
