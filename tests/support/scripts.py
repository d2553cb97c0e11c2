"""Trainings in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.ray_engine.address import LOOPBACK_VARIABLE
from cluster.storage.lease import DURATION_S

ROOT = Path(__file__).parents[2]
PAIR: dict[str, Any] = {"plan": {"bands": ["LL1", "HL1"]}}
"""Two GANs: a Ray training takes as long as its actors take to import torch."""
UNSPARED: dict[str, Any] = {"max_failures": 0}
"""No actor that waits to take the place of another, where none is to die."""


def environment() -> dict[str, str]:
    """The variables of this process but the one that tells a Ray to listen on loopback alone: a run sees to that."""
    plain = {name: value for name, value in os.environ.items() if name != LOOPBACK_VARIABLE}
    return plain | {"PYTHONPATH": str(ROOT)}


def run_script(script: str, *arguments: Path | str) -> list[str]:
    """The words that a Python script printed, run in a process that has not imported Ray."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


TRAINING = """
import json, sys, time
from functools import partial
from cluster.storage.lease import Lease
from cluster.training import train
from tests.support.runs import Events, tiny_run_settings

vars(train)["Lease"] = partial(Lease, duration_s=float(sys.argv[7]))

class Counting(Events):
    def on_step(self, record):
        super().on_step(record)
        print(record.step, flush=True)
        time.sleep(float(sys.argv[6]))

steps = int(sys.argv[3])
changes = {"max_steps": steps, "images": max(400, 8 * steps), "executor": sys.argv[4]} | json.loads(sys.argv[5])
result = train.train(tiny_run_settings(sys.argv[1], sys.argv[2], **changes), Counting())
print(result.reason, result.step, "ray" in sys.modules and sys.modules["ray"].is_initialized(), flush=True)
"""


def start_training(
    run: Path,
    shards: Path,
    steps: int,
    executor: str = "inline",
    pause_s: float = 0.0,
    lease_s: float = DURATION_S,
    **changes: Any,
) -> subprocess.Popen[str]:
    """Starts a training as a process that prints the number of every step, and waits ``pause_s`` after it.

    It renews its lease three times in ``lease_s``. Its last line says why it ended, after which step, and whether it
    has left a Ray running.
    """
    arguments = [str(run), str(shards), str(steps), executor, json.dumps(changes), str(pause_s), str(lease_s)]
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, *arguments],
        cwd=ROOT, env=environment() | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    """Reads what a training prints up to that step."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == str(step):
            return
    raise AssertionError(f"the training ended before step {step}")
