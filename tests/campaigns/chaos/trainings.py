"""The training of the campaign: three band GANs and the image stage, small, and what it gives when undisturbed."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import threading
import time
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluster.data.packing import pack
from cluster.execution.callbacks import StepRecord
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.run.settings import RunSettings
from cluster.training.train import train
from tests.support.runs import Events, tiny_run_settings

BANDS = ("LL1", "HL1", "HH1")
MOST_STEPS = 1_000_000
QUIET_EVERY = 20


def pictures(folder: Path) -> Path:
    """Shards of 96 pictures of noise, always the same."""
    source, shards = folder / "pictures", folder / "shards"
    if not shards.is_dir():
        source.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for number in range(96):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(source / f"{number:02d}.png")
        pack(str(source), str(shards), shard_samples=40)
    return shards


def chaos_settings(run: str | Path, data: str | Path, **changes: Any) -> RunSettings:
    """A run that goes on until it is stopped."""
    base: dict[str, Any] = {
        "batch": 4, "images": 4 * MOST_STEPS, "max_steps": MOST_STEPS, "checkpoint_every": QUIET_EVERY,
        "snapshot_every": 10, "max_failures": -1, "executor": "ray", "plan": {"bands": list(BANDS)},
    }  # fmt: skip
    return tiny_run_settings(run, data, **(base | changes))


class Quiet:
    """The digests of an undisturbed run, by step. It is trained only as far as it is asked for.

    Args:
        settings: of the run: any executor; a run with replicas equals others with replicas alone.

    """

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings.model_copy(update={"checkpoint_every": QUIET_EVERY, "keep_checkpoints": MOST_STEPS})

    @property
    def done(self) -> int:
        run = self.settings.run
        return find_checkpoint(run).step if has_checkpoints(run) else 0

    def digest(self, step: int) -> str:
        """After ``step`` steps."""
        whole = step // QUIET_EVERY * QUIET_EVERY
        if self.done < whole:
            train(self.settings.model_copy(update={"max_steps": whole}), Events())
        if step == whole:
            return find_checkpoint(self.settings.run, step=step).digest()
        side = Path(f"{self.settings.run}-{step}")
        if whole and not side.exists():
            for name in (f"checkpoints/{whole:09d}", "checkpoints/rollback"):
                shutil.copytree(Path(self.settings.run) / name, side / name)
        train(self.settings.model_copy(update={"run": str(side), "max_steps": step}), Events())
        return find_checkpoint(str(side), step=step).digest()


class Moments(Events):
    """A reporter that knows when each step was finished for the first time, and keeps nothing else of it.

    Other threads read it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []
        self.farthest = 0
        self.changed = threading.Condition()
        self.steps_at_recovery = 0

    def on_step(self, record: StepRecord) -> None:
        with self.changed:
            if record.step > self.farthest:
                self.farthest = record.step
                self.at_s.append(time.monotonic())
            self.changed.notify_all()

    def on_recovery(self, recovery: Recovery) -> None:
        if recovery.decision == "move":  # no failure: another machine is better
            return
        with self.changed:
            super().on_recovery(recovery)
            self.steps_at_recovery = len(self.at_s)
            self.changed.notify_all()

    def wait_for_steps(self, count: int, timeout_s: float) -> bool:
        """Until there are ``count`` finished steps."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.at_s) >= count, timeout_s)

    def wait_for_recovery(self, recoveries: int, steps: int, timeout_s: float) -> bool:
        """Until there are more than ``recoveries`` of them, and ``steps`` more steps after the last one."""
        with self.changed:
            return self.changed.wait_for(
                lambda: len(self.recoveries) > recoveries and len(self.at_s) >= self.steps_at_recovery + steps,
                timeout_s,
            )


def lost_s(at_s: list[float], moment_s: float, until_s: float) -> float:
    """The longest time without a finished step from ``moment_s`` to ``until_s``, less that of a usual one."""
    gaps = [after - before for before, after in pairwise(at_s)]
    first, last = max(0, bisect_right(at_s, moment_s) - 1), bisect_right(at_s, until_s)
    around = [after - before for before, after in pairwise(at_s[first:last])]
    return max(around, default=until_s - moment_s) - statistics.median(gaps)


def stop_this_process() -> None:
    """As a scheduler would: a checkpoint at the next step boundary, then the end."""
    os.kill(os.getpid(), signal.SIGTERM)
