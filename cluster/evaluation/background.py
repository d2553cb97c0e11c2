"""Scores of checkpoints while training goes on: off its path, one at a time, the newest first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from cluster.run.settings import RunSettings
from freqgan.metrics.catalogue import LEARNED_FRECHET, Yardstick

ScoreValues = dict[str, dict[str, float | None]]
FIT = ("packet_frechet", "cross_band_frechet", "sliced_wasserstein", "spectrum_db", "feature_frechet")
"""The distances whose ratios to their floors make up one number: which band, coherence, detail, spectrum, kinds."""
FEWEST_COVERED = 0.1
MOST_DUPLICATES = 0.5
VALIDATION = "validation_loss."
"""Before the name of a flow expert: its loss on the held-out images."""
BACKGROUND_NICENESS = 10


@dataclass(frozen=True)
class Evaluation:
    """Scores of the checkpoint of ``step``, as {metric: {value, floor, ratio}}.

    ``best_by`` is what should decide which checkpoint is the best.
    """

    step: int
    images: int
    scores: ScoreValues
    best_by: Yardstick = "bands"

    @property
    def yardstick(self) -> Yardstick:
        """What ``fit`` is measured by: ``best_by``, or bands where no learned features were measured."""
        return self.best_by if self._ratio(LEARNED_FRECHET) is not None else "bands"

    @property
    def fit(self) -> float:
        """How many times as far from real images as these are from each other: 1 is as good as real images.

        By learned features it is the ratio of their Frechet distance; by bands the geometric mean of the ratios of FIT,
        infinite where one is missing.
        """
        learned = self._ratio(LEARNED_FRECHET)
        if self.yardstick == "learned" and learned is not None:
            return learned
        ratios = map(self._ratio, FIT)
        known = [ratio for ratio in ratios if ratio is not None and ratio > 0]
        return math.exp(sum(map(math.log, known)) / len(known)) if len(known) == len(FIT) else math.inf

    def _ratio(self, metric: str) -> float | None:
        return self.scores.get(metric, {}).get("ratio")

    @property
    def validation(self) -> dict[str, float]:
        """The losses of flow experts on held-out images, by the expert's name."""
        losses = {name: score["value"] for name, score in self.scores.items() if name.startswith(VALIDATION)}
        return {name.removeprefix(VALIDATION): loss for name, loss in losses.items() if loss is not None}

    @property
    def has_pictures(self) -> bool:
        """Whether pictures were scored, and not the losses of a part of the model alone."""
        return len(self.validation) < len(self.scores)

    @property
    def collapse(self) -> str:
        """What shows that the generators make few different images, or ""."""
        covered, duplicates = (self.scores.get(f"neighbours.{name}", {}) for name in ("coverage", "duplicates"))
        value, floor = covered.get("value"), covered.get("floor")
        if value is not None and floor and value < FEWEST_COVERED * floor:
            return f"only {value:.1%} of the kinds of real images are made (real images cover {floor:.1%})"
        value, floor = duplicates.get("value"), duplicates.get("floor")
        if value is not None and floor is not None and value > MOST_DUPLICATES:
            return f"{value:.1%} of the images are near-copies of each other (of real ones {floor:.1%})"
        return ""


class BackgroundEvaluator:
    """Has checkpoints scored one at a time; of those offered meanwhile, the newest.

    Args:
        start: begins to score the checkpoint of a step somewhere else.
        note: is told of scores that could not be had: training goes on without them.
        best_by: what should decide which checkpoint is the best.

    """

    def __init__(
        self,
        start: Callable[[int], Future[ScoreValues]],
        note: Callable[[str], None],
        best_by: Yardstick = "bands",
    ) -> None:
        self._start, self._note, self._best_by = start, note, best_by
        self._running: tuple[int, int, Future[ScoreValues]] | None = None
        self._waiting: tuple[int, int] | None = None

    def offer(self, step: int, images: int) -> None:
        """Take note of a checkpoint, to be scored when the one before is.

        One that waits is replaced by a later one.
        """
        self._waiting = (step, images)
        self._next()

    def ready(self, *, wait: bool = False) -> Iterator[Evaluation]:
        """Return the evaluations that have come since; with ``wait``, all that are still to come."""
        while self._running is not None and (wait or self._running[2].done()):
            step, images, future = self._running
            try:
                yield Evaluation(step, images, future.result(), self._best_by)
            except Exception as error:  # of any kind: a score is never worth a training
                self._note(f"the checkpoint of step {step} was not scored: {error}")
            self._running = None
            self._next()

    def _next(self) -> None:
        if self._running is None and self._waiting is not None:
            (step, images), self._waiting = self._waiting, None
            try:
                self._running = step, images, self._start(step)
            except Exception as error:  # the process that scores may be gone
                self._note(f"the checkpoint of step {step} was not scored: {error}")


def is_scored(settings: RunSettings) -> bool:
    """Return whether there is anything to score of checkpoints of ``settings``: pictures, or losses of flow experts."""
    gans = settings.band_plan().gans
    return not settings.only or any(gan.kind == "flow" and gan.name in settings.only for gan in gans)


def score_checkpoint(run: str, step: int, data: str, count: int) -> ScoreValues:
    """Return every metric of the checkpoint of ``step``, and the losses of its flow experts on held-out images.

    Of a component of a model these are all. It runs in a process of its own, politely.
    """
    from cluster.evaluation.evaluate import evaluate_checkpoint
    from cluster.evaluation.validation import validation_losses
    from cluster.run.checkpoints import find_checkpoint

    os.nice(max(0, BACKGROUND_NICENESS - os.nice(0)))
    checkpoint = find_checkpoint(run, step=step)
    losses = validation_losses(checkpoint, data, count)
    values: ScoreValues = {
        f"{VALIDATION}{name}": {"value": x, "floor": None, "ratio": None} for name, x in losses.items()
    }
    if checkpoint.settings.only:  # a component alone makes no pictures
        return values
    learned = checkpoint.settings.watch.learned
    scores = evaluate_checkpoint(checkpoint, data, count=count, seed=0, note=lambda _: None, learned=learned)["image"]
    return {name: {"value": s.value, "floor": s.floor, "ratio": s.ratio} for name, s in scores.items()} | values


def best_of(evaluations: Mapping[int, float]) -> int | None:
    """Return the step with the least fit; of equals the newest. None where there is no finite one."""
    finite = {step: fit for step, fit in evaluations.items() if math.isfinite(fit)}
    return min(finite, key=lambda step: (finite[step], -step)) if finite else None
