"""What a run tells Prometheus through Ray: gauges and counters of every stage, and of the coordinator.

Ray's agent on every machine serves them (``ray metrics launch-prometheus`` finds the ports); names begin with
``freqgan_`` and every series has the tags ``run`` and ``stage``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from ray.util.metrics import Counter, Gauge

TAGS = ("run", "stage")
COORDINATOR = "coordinator"
STAGE_GAUGES = {
    "step": ("freqgan_steps_done", "steps that this stage has done; the least over all is what the run has done"),
    "seconds": ("freqgan_step_seconds", "time the last step took"),
    "waited_s": (
        "freqgan_wait_seconds",
        "time between the last step and the one before it: waiting for its next batch",
    ),
    "loss_d": ("freqgan_loss_d", "loss of the discriminator"),
    "loss_g": ("freqgan_loss_g", "loss of the generator"),
    "loss": ("freqgan_loss", "flow matching loss: the mean squared error of the velocity"),
    "sample_deviation": ("freqgan_sample_deviation", "how much samples of a batch differ; 0 is a collapse"),
    "alpha": ("freqgan_alpha", "weight of the chain in the blend"),
    "lambda": ("freqgan_lambda", "share of the bands in the images of the jointly trained system"),
}
RUN_GAUGES = {
    "left_out": ("freqgan_damaged_images", "images that are damaged for good and left out"),
    "images_per_s": ("freqgan_images_per_second", "speed over the last steps"),
    "in_flight": ("freqgan_steps_in_flight", "steps submitted and not finished"),
    "checkpoint_age_s": ("freqgan_checkpoint_age_seconds", "time since the last checkpoint was committed"),
    "lag_steps": ("freqgan_lag_steps", "steps between the stage that is furthest and the last finished step"),
}


TELL_EVERY_S = 1.0
"""Prometheus asks every ten seconds or so, and a step of a small band takes a few milliseconds."""


class StageTelemetry:
    """The series of one stage; one object per process and stage.

    A step less than a second after one that was told is not; its bytes come with the next that is.
    """

    def __init__(self, run: str, stage: str) -> None:
        self.tags = {"run": run, "stage": stage}
        self.gauges = {key: Gauge(name, text, TAGS) for key, (name, text) in STAGE_GAUGES.items()}
        self.exchanged = Counter("freqgan_exchanged_bytes", "bytes taken from and given to other stages", TAGS)
        self.batches = Counter("freqgan_batch_bytes", "bytes of the batches of images that were taken", TAGS)
        self._told_s = -TELL_EVERY_S
        self._untold_bytes: dict[Counter, int] = {self.exchanged: 0, self.batches: 0}

    def stepped(
        self,
        step: int,
        metrics: Mapping[str, float],
        images: NDArray[np.generic],
        exchanged: Iterable[NDArray[np.generic] | None],
    ) -> None:
        """Report that a step is done.

        Args:
            step: its number, from 0.
            metrics: of the step.
            images: (B, N, N, C) of the batch, which came in.
            exchanged: arrays (...) of any shape that came from other stages or go to them.

        """
        self._untold_bytes[self.batches] += images.nbytes
        self._untold_bytes[self.exchanged] += sum(array.nbytes for array in exchanged if array is not None)
        now_s = time.monotonic()
        if now_s - self._told_s < TELL_EVERY_S:
            return
        for key, value in {**metrics, "step": step + 1}.items():
            if key in self.gauges:
                self.gauges[key].set(value, self.tags)
        for counter, size_bytes in self._untold_bytes.items():
            if size_bytes:  # a counter refuses 0: what stages that exchange nothing count is never served
                counter.inc(size_bytes, self.tags)
        self._told_s, self._untold_bytes = now_s, dict.fromkeys(self._untold_bytes, 0)


class RunTelemetry:
    """The series of the coordinator."""

    def __init__(self, run: str) -> None:
        self.tags = {"run": run, "stage": COORDINATOR}
        self.gauges = {key: Gauge(name, text, TAGS) for key, (name, text) in RUN_GAUGES.items()}
        self.recoveries = Counter("freqgan_recoveries", "failures that the run got over, by stage", TAGS)

    def set(self, **values: float) -> None:
        """Gauges by their short names."""
        for key, value in values.items():
            self.gauges[key].set(value, self.tags)

    def recovered(self, stages: Iterable[str]) -> None:
        """Count one failure of each of ``stages``."""
        for stage in stages:
            self.recoveries.inc(1, self.tags | {"stage": stage})
