"""The ray executor beside the inline executor on the default CIFAR-10 settings, one run after the other.

``inline`` may use every core inside its operations (``threads`` = cores); ``ray`` has one thread per actor,
which is its default. Start-up and the first steps do not count; steps after the last one that counts keep
the pipeline as full at the end of the measurement as it was at its start.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cluster.checkpoints import Checkpoint
from cluster.failures import Recovery
from cluster.packing import pack
from cluster.reporting import StepRecord
from cluster.settings import RunSettings
from cluster.training import train
from cluster.watching import Evaluation
from launch.configuration import load_settings
from tests.benchmarks.harness import Comparison

WARM_STEPS = 12
STEPS = 32
WINDOWS = (1, 4, 8)
ONE_THREAD = ("executor=inline", "threads=1")
ALL_STEPS = WARM_STEPS + STEPS + max(WINDOWS)
SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


class _Clock:
    """A reporter that keeps when each step was finished."""

    def __init__(self) -> None:
        self.elapsed_s: list[float] = []

    def started(self, first_step: int, notes: list[str]) -> None: ...

    def stepped(self, record: StepRecord) -> None:
        self.elapsed_s.append(record.elapsed_s)

    def saved(self, checkpoint: Checkpoint) -> None: ...

    def evaluated(self, evaluation: Evaluation, *, best: bool) -> None: ...

    def recovered(self, recovery: Recovery) -> None: ...

    def noted(self, text: str) -> None: ...

    def finished(self, step: int, reason: str) -> None: ...


def images_per_s(settings: RunSettings) -> float:
    """Images a second over the steps after the warm-up."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as run:
        train(settings.model_copy(update={"run": run}), clock)
    return settings.batch * STEPS / (clock.elapsed_s[WARM_STEPS + STEPS - 1] - clock.elapsed_s[WARM_STEPS - 1])


def cifar10_data(folder: str) -> str:
    """CIFAR-10 where it is at hand; else noise of the same size (the cost of a step does not depend on the pixels)."""
    if SHARED.is_dir():
        return f"{SHARED}/train-0000*.tar"
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(2000):
        (Path(folder) / f"class{i % 10}").mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(folder) / f"class{i % 10}" / f"{i}.png")
    pack(folder, f"{folder}-shards")
    return f"{folder}-shards"


def comparisons() -> Iterable[Comparison]:
    """Inline with all cores, then ray with each window; the best window is the one that is compared."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        base = [
            f"data={cifar10_data(folder)}",
            f"max_steps={ALL_STEPS}",
            "checkpoint_every=100000",
            "statistics_images=500",
            "device=cpu",
        ]
        inline = images_per_s(load_settings("cifar10", [*base, "executor=inline", f"threads={cores}"]))
        single = images_per_s(load_settings("cifar10", [*base, *ONE_THREAD]))
        alone = images_per_s(load_settings("cifar10", [*base, *ONE_THREAD, "feedback.weight=0"]))
        half = images_per_s(load_settings("cifar10", [*base, *ONE_THREAD, "precision=bfloat16"]))
        rates = {w: images_per_s(load_settings("cifar10", [*base, "executor=ray", f"window={w}"])) for w in WINDOWS}
    how = f"cifar10 preset, {STEPS} steps after {WARM_STEPS}, the pipeline full at both ends"
    best = max(rates, key=lambda window: rates[window])
    for window, rate in rates.items():
        label = " (best)" if window == best else ""
        yield Comparison(f"ray window {window}{label} / inline {cores} threads", rate, inline, "images/s", True, how)
    yield Comparison("inline 1 thread / inline all cores", single, inline, "images/s", True, how)
    yield Comparison("inline with feedback / without", single, alone, "images/s", True, "1 thread, otherwise the same")
    yield Comparison("inline bfloat16 / float32", half, single, "images/s", True, "1 thread, otherwise the same")
