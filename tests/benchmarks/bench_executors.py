"""The ray executor beside the inline executor on the default CIFAR-10 settings, one run after the other.

``inline`` may use every core inside its operations (``threads`` = cores); ``ray`` has one thread per actor,
which is its default. Start-up and the first steps do not count; steps after the last one that counts keep
the pipeline as full at the end of the measurement as it was at its start.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from cluster.data.packing import pack
from cluster.run.data_source import measure_statistics, open_source
from cluster.run.settings import RunSettings
from cluster.stages.devices import emulates_precision
from cluster.training.train import train
from launch.settings.load import load_settings
from tests.benchmarks.harness import Comparison
from tests.support.runs import Events

WARM_STEPS = 12
STEPS = 32
WINDOWS = (1, 4, 8)
ONE_THREAD = ("executor=inline", "threads=1")
ONE_START = "max_failures=0"
"""No spare actor: it starts after the first snapshot, once in a run, and takes seconds of a core from the steps that
count here."""
ALL_STEPS = WARM_STEPS + STEPS + max(WINDOWS)
SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


OVERHEAD_BOUND_MS = 2.0


class Clock(Events):
    """A reporter that keeps every step."""

    @property
    def seconds(self) -> float:
        """Of the steps after the warm-up."""
        return self.records[WARM_STEPS + STEPS - 1].elapsed_s - self.records[WARM_STEPS - 1].elapsed_s

    @property
    def overhead_ms(self) -> float:
        """Per call of a stage, where they run one after the other: what is not spent inside of the stages. Median."""
        spent = []
        for before, record in pairwise(self.records[WARM_STEPS - 1 : WARM_STEPS + STEPS]):
            inside = sum(stage["seconds"] for stage in record.stages.values())
            spent.append((record.elapsed_s - before.elapsed_s - inside) / len(record.stages))
        return 1e3 * statistics.median(spent)


def queued_ms(base: list[str]) -> float:
    """From the end of a band's step to the start of its next one, where that one's inputs are there already. Median.

    Two stages on as many cores, and the slower one is never out of work: this is what a step costs beyond itself.
    """
    few = ["plan.bands=[LL2]", "executor=ray", "window=8", ONE_START]
    records = timed(load_settings("cifar10", [*base, *few])).records[WARM_STEPS : WARM_STEPS + STEPS]
    stages = [[record.stages[name] for record in records] for name in records[0].stages]
    slowest = max(stages, key=lambda steps: statistics.median(step["seconds"] for step in steps))
    return 1e3 * statistics.median(step["waited_s"] for step in slowest)


def timed(settings: RunSettings) -> Clock:
    """A training in a folder that is deleted afterwards."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as run:
        train(settings.model_copy(update={"run": run}), clock)
    return clock


def images_per_s(settings: RunSettings) -> float:
    """Images a second over the steps after the warm-up."""
    return settings.batch * STEPS / timed(settings).seconds


def bytes_of_a_step(settings: RunSettings) -> tuple[int, int]:
    """What the object store holds of one step, as Ray counts it, and the bytes of its arrays."""
    import ray

    from cluster.ray_engine.executor import RayExecutor

    source = open_source(settings)
    arrays = {name: tensor.numpy() for name, tensor in measure_statistics(source).tensors().items()}
    executor = RayExecutor(settings, source, arrays, None)
    try:
        executor.submit(0)
        executor.finish()
        refs = executor.replay_log.steps[0]
        parts = [part for by_replica in refs.outputs.values() for part in by_replica.values()]
        made = [refs.images, *parts, *refs.gradients.values()]
        everything = [*made, refs.targets, *refs.metrics.values()]
        ray.wait(everything, num_returns=len(everything))
        held = sum(place["object_size"] for place in ray.experimental.get_object_locations(everything).values())
        return held, sum(array.nbytes for array in ray.get(made))
    finally:
        executor.close()


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
    """Inline with all cores, then ray with each window: the best window is the one to compare."""
    cores = os.cpu_count() or 1
    how = f"cifar10 preset, {STEPS} steps after {WARM_STEPS}, the pipeline full at both ends"
    with tempfile.TemporaryDirectory() as folder:
        base = [
            f"data={cifar10_data(folder)}",
            f"max_steps={ALL_STEPS}",
            "checkpoint_every=100000",
            "statistics_images=500",
            "device=cpu",
        ]
        default = load_settings("cifar10", [*base, "executor=ray", f"run={folder}/run"])
        held, arrays = (count / 1e6 for count in bytes_of_a_step(default))
        yield Comparison("object store / images, sub-images, feedback", held, arrays, "MB/step", False, "as Ray counts")
        yield Comparison("overhead of a band's step / 2 ms", queued_ms(base), OVERHEAD_BOUND_MS, "ms", False, "queued")
        inline = images_per_s(load_settings("cifar10", [*base, "executor=inline", f"threads={cores}"]))
        for window in WINDOWS:
            clock = timed(load_settings("cifar10", [*base, ONE_START, "executor=ray", f"window={window}"]))
            rate = default.batch * STEPS / clock.seconds
            yield Comparison(f"ray window {window} / inline {cores} threads", rate, inline, "images/s", True, how)
            if window == 1:
                yield Comparison(
                    "way from stage to stage, one by one / 2 ms", clock.overhead_ms, OVERHEAD_BOUND_MS, "ms", False, how
                )
        single = images_per_s(load_settings("cifar10", [*base, *ONE_THREAD]))
        yield Comparison("inline 1 thread / inline all cores", single, inline, "images/s", True, how)
        alone = images_per_s(load_settings("cifar10", [*base, *ONE_THREAD, "feedback.weight=0"]))
        yield Comparison("inline with feedback / without", single, alone, "images/s", True, "1 thread, else the same")
        in_half = load_settings("cifar10", [*base, *ONE_THREAD, "precision=bfloat16"])
        if not emulates_precision(in_half):  # ten times a step's time would say nothing about anybody's machine
            half = images_per_s(in_half)
            yield Comparison("inline bfloat16 / float32", half, single, "images/s", True, "1 thread, else the same")
