"""Steps of all stages in this process, on noise, to see what they take."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from cluster.run.settings import RunSettings
from cluster.stages.devices import choose_device
from cluster.stages.host import build_chain, build_host, tensor_of
from cluster.stages.malloc import keep_freed_pages
from cluster.stages.replicas import StageReplica
from freqgan.bit_depth import FLOAT_BITS
from freqgan.costing.operator_count import unit_statistics
from freqgan.model.stage_names import IMAGE_STAGE, stage_names
from freqgan.model.step_graph import StageCall, run_step, step_graph
from freqgan.networks.target_embedding import blank_targets
from freqgan.pixels import from_pixels

PROFILED_INTERVAL = 3
"""Steps from one penalty to the next while they are timed; those of a run are often further apart."""


def clock(settings: RunSettings) -> Callable[[], float]:
    """Return the processor time of this process where one core does everything, which others do not lengthen."""
    alone = choose_device(settings.device).type == "cpu" and settings.threads == 1
    return time.process_time if alone else time.perf_counter


def profile_steps(settings: RunSettings, batch: int, *, together: bool = False) -> Iterator[dict[str, float]]:
    """Seconds by stage of one step with ``batch`` images after the other, without end.

    The stages run one after the other, from a step half-way through training on that has penalties, with memory kept
    as an actor keeps it. ``together``: as in a process that trains all of them: they share the work on a batch, and
    memory is kept as it comes.
    """
    if not together:
        keep_freed_pages()
    small = settings.model_copy(
        update={"batch": batch, "feedback": settings.feedback.model_copy(update={"lag": 1}), "executor": "inline"}
    )
    interval, now_s = small.loss.penalty_interval, clock(small)
    start = small.images // (2 * batch) // interval * interval
    flat = {name: tensor.numpy() for name, tensor in unit_statistics(small).items()}
    common = build_chain(small, flat)
    hosts = {
        name: build_host(
            small, StageReplica(name, 0, 1), common if together else build_chain(small, flat), untaught=True
        )
        for name in stage_names(small)
    }
    for host in hosts.values():
        host.done = start
    rng = np.random.default_rng(0)
    shape = (batch, *small.size, small.image_channels)
    levels = rng.integers(0, 2 ** min(small.bit_depth, 16), shape)
    pixels = levels.astype(np.uint8 if small.bit_depth == 8 else np.uint16)

    def new_images(step: int) -> Tensor:
        images = tensor_of(pixels.transpose(0, 3, 1, 2))
        return from_pixels(images) if small.bit_depth == FLOAT_BITS else images

    images_of: Callable[[int], Tensor] = lru_cache(1)(new_images) if together else new_images
    labels = tensor_of(rng.integers(0, max(1, small.classes), batch))
    if small.target_layout.packed:
        labels = blank_targets(small.target_layout, batch)
    graph, gradients = step_graph(small), dict[str, Tensor]()
    for step in itertools.count(start):
        spent_s: dict[str, float] = {}

        def run_call(
            call: StageCall, inputs: dict[str, Tensor], step: int = step, spent_s: dict[str, float] = spent_s
        ) -> Tensor | None:
            host = hosts[call.stage]
            if call.kind == "forward":
                return host.forward(step, labels, inputs)
            begun_s = now_s()
            result = host.step(step, images_of(step), labels, inputs, gradients.get(call.stage))
            spent_s[call.stage] = now_s() - begun_s
            if call.stage == IMAGE_STAGE:
                gradients.update(result.outputs)
            return result.outputs.get(call.stage)

        run_step(graph, run_call)
        yield spent_s


def profile_rounds(settings: RunSettings, batch: int, *, together: bool = False) -> Iterator[list[dict[str, float]]]:
    """Seconds by stage of the steps up to the next one with penalties, round after round, after a step to warm up.

    Penalties come in every third step, or as often as in the run where that is more often: those of the run can be a
    minute apart. The arguments are those of :func:`profile_steps`.
    """
    profiled = min(settings.loss.penalty_interval, PROFILED_INTERVAL)
    loss = settings.loss.model_copy(update={"penalty_interval": profiled})
    steps = profile_steps(settings.model_copy(update={"loss": loss}), batch, together=together)
    next(steps)  # it has penalties
    while True:
        yield [next(steps) for _ in range(profiled)]


def step_seconds(
    settings: RunSettings,
    rounds: Sequence[list[dict[str, float]]],
    average: Callable[[Iterable[float]], float] = statistics.fmean,
) -> dict[str, float]:
    """Return the seconds of a step by stage, as a mean over a run, of the ``rounds`` of :func:`profile_rounds`.

    Steps with penalties are weighed by how often they come in the run. ``average`` is over steps of either kind.
    """
    share = 1 / settings.loss.penalty_interval
    with_penalties = [steps[-1] for steps in rounds]
    plain = [step for steps in rounds for step in steps[:-1]] or with_penalties
    return {
        name: share * average(step[name] for step in with_penalties)
        + (1 - share) * average(step[name] for step in plain)
        for name in with_penalties[0]
    }
