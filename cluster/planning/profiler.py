"""Steps of all stages in this process, on noise, to see what they take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from cluster.data.decoding import Pixels
from cluster.run.settings import RunSettings
from cluster.stages.devices import choose_device
from cluster.stages.host import build_chain, build_host, tensor_of
from cluster.stages.malloc import keep_freed_pages
from cluster.stages.replicas import StageReplica
from freqgan.costing.operator_count import unit_statistics
from freqgan.model.stage_names import IMAGE_STAGE, stage_names
from freqgan.model.step_graph import StageCall, run_step, step_graph


def clock(settings: RunSettings) -> Callable[[], float]:
    """Return the processor time of this process where one core does everything, which others do not lengthen."""
    alone = choose_device(settings.device).type == "cpu" and settings.threads == 1
    return time.process_time if alone else time.perf_counter


def profile_steps(settings: RunSettings, batch: int) -> Iterator[dict[str, float]]:
    """Seconds by stage of one step with ``batch`` images after the other, without end.

    The stages run one after the other, from a step half-way through training on that has penalties, with memory kept
    as an actor keeps it.
    """
    keep_freed_pages()
    small = settings.model_copy(
        update={"batch": batch, "feedback": settings.feedback.model_copy(update={"lag": 1}), "executor": "inline"}
    )
    interval, now_s = small.loss.penalty_interval, clock(small)
    start = small.images // (2 * batch) // interval * interval
    flat = {name: tensor.numpy() for name, tensor in unit_statistics(small).items()}
    # A chain for each stage: one that has a process to itself shares no work on a batch.
    hosts = {
        name: build_host(small, StageReplica(name, 0, 1), build_chain(small, flat), untaught=True)
        for name in stage_names(small)
    }
    for host in hosts.values():
        host.done = start
    rng = np.random.default_rng(0)
    shape = (batch, small.image_size, small.image_size, small.channels)
    pixels: Pixels = rng.integers(0, 2**small.bit_depth, shape).astype(np.uint8 if small.bit_depth == 8 else np.uint16)
    labels = tensor_of(rng.integers(0, max(1, small.classes), batch))
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
            images = tensor_of(pixels.transpose(0, 3, 1, 2))
            result = host.step(step, images, labels, inputs, gradients.get(call.stage))
            spent_s[call.stage] = now_s() - begun_s
            if call.stage == IMAGE_STAGE:
                gradients.update(result.outputs)
            return result.outputs.get(call.stage)

        run_step(graph, run_call)
        yield spent_s
