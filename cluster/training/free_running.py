"""Training at a free pace: the components of a run, each with a lease and checkpoints of its own.

Every component is trained as a run of its own is, in its folder below the run's. In one process they take turns, so
that the whole model grows evenly; what one of them meets costs the others nothing. Processes that train other
components of the same run need nothing in common with this one but the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cluster.data.quarantine import Quarantine
from cluster.evaluation.background import BackgroundEvaluator
from cluster.execution.callbacks import TrainingCallback
from cluster.execution.scoring_process import ScoringProcess
from cluster.run.data_source import open_source
from cluster.run.free_run import Choice, FreeRun, begin_free_run
from cluster.run.settings import RunSettings
from cluster.run.trained_model import check_base
from cluster.storage.folder import open_folder
from cluster.storage.lease import HeldError
from cluster.training.features import with_features
from cluster.training.stop_signals import stop_requests
from cluster.training.train import Surroundings, TrainResult, band_statistics, training
from freqgan.errors import FreqganError, InputError, RunError
from freqgan.model.band_statistics import BandStatistics

CallbackOf = Callable[[RunSettings], TrainingCallback]
"""Gives the callback of one component, by its settings."""


@dataclass
class Turn:
    """A component that is trained in this process.

    Attributes:
        name: of the component.
        settings: that it is trained by.
        steps: gives way after every step.
        done: how many steps it has taken, here and before.
        result: how it ended, None while it trains.
        error: that ended it, if one did.

    """

    name: str
    settings: RunSettings
    steps: Generator[None, None, TrainResult]
    done: int = 0
    result: TrainResult | None = None
    error: FreqganError | None = None

    @property
    def share(self) -> float:
        """The part of its steps that is done."""
        return self.done / self.settings.last_step

    @property
    def ended(self) -> bool:
        """Whether it takes no more steps here."""
        return self.result is not None or self.error is not None

    def take(self) -> None:
        """Take one step."""
        try:
            next(self.steps)
            self.done += 1
        except StopIteration as end:
            self.result = end.value
        except FreqganError as error:
            self.error = error


@dataclass(frozen=True)
class FreeResult:
    """How components ended, by name; and those that others are training."""

    results: dict[str, TrainResult]
    busy: dict[str, str] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """Whether a signal stopped any."""
        return any(result.reason == "stopped" for result in self.results.values())


def begin(settings: RunSettings, callback: TrainingCallback, address: str | None = None) -> FreeRun:
    """Return the run of ``settings``, begun if nobody has: the first to come measures the bands for all.

    ``address`` is that of the Ray to compute features by, if the run is shown such.

    Raises:
        InputError: the run was begun with other settings or data, or what is given cannot be used.

    """
    root = open_folder(settings.run)
    root.check_writable()
    root.check_conditions()
    check_base(settings)
    source = open_source(settings, Quarantine(None, settings.max_damaged, ()))

    def measured() -> BandStatistics:
        return band_statistics(with_features(source, callback, address, None), callback)

    return begin_free_run(settings, source.fingerprint(), measured, source.class_names, source.values)


class WholeModel:
    """Watches the whole model grow: its callback gets every checkpoint of it, and its scores.

    Args:
        run: the run at a free pace.
        settings: of the whole run.
        callback: is told of checkpoints of the whole model and of their scores.

    """

    def __init__(self, run: FreeRun, settings: RunSettings, callback: TrainingCallback) -> None:
        self.run, self.callback, self.images = run, callback, _least_images(run)
        self._scorer = ScoringProcess(settings)
        self._evaluator: BackgroundEvaluator | None = None
        if settings.watch.data:
            self._evaluator = BackgroundEvaluator(self._scorer.score, callback.on_note, settings.watch.best)
        callback.on_start(self.images // settings.batch, [])

    def look(self) -> None:
        """Pass on the whole model where every component has a later checkpoint than before, and scores that came."""
        if (least := _least_images(self.run)) > self.images:
            self.images = least
            checkpoint = self.run.open(lambda checkpoint: checkpoint, Choice(), self.callback.on_note)
            self.callback.on_checkpoint(checkpoint)
            if self._evaluator is not None:
                self._evaluator.offer(checkpoint.step, checkpoint.images)
        self._report()

    def close(self, *, stopped: bool) -> None:
        """End the watch; a run that was not ``stopped`` waits for all scores."""
        self.look()
        self._report(wait=not stopped)
        self._scorer.close()
        self.callback.on_end(self.images // self.run.settings.batch, "stopped" if stopped else "done")

    def _report(self, *, wait: bool = False) -> None:
        for evaluation in self._evaluator.ready(wait=wait) if self._evaluator else ():
            checkpoint = self.run.open(lambda checkpoint: checkpoint, Choice(step=evaluation.step), lambda _: None)
            best = self.run.mark(checkpoint, evaluation.fit, evaluation.yardstick)
            self.callback.on_evaluation(evaluation, best=best)


def _least_images(run: FreeRun) -> int:
    """Return how many images the component that is behind all others has seen; 0 where one has no checkpoint."""
    return min(images or 0 for images in run.newest_images().values())


def train_components(
    settings: RunSettings, callback: TrainingCallback, callback_of: CallbackOf, *, address: str | None = None
) -> FreeResult:
    """Train the components that ``settings.only`` names, in this process, in turns; each as far as it goes.

    A component that somebody else trains is left to him. SIGTERM and SIGINT end all of them with a checkpoint.

    Args:
        settings: of the whole run.
        callback: is told what concerns all components; where all are trained here, of the whole model as well.
        callback_of: gives the callback of each.
        address: of the Ray to use, see :func:`cluster.training.train.train`.

    Raises:
        InputError: as :func:`begin`; or others train all of the components.
        RunError: a component failed; the others were trained as far as they went.

    """
    run = begin(settings, callback, address)
    statistics = run.statistics()
    watch = None if settings.only else WholeModel(run, settings, callback)
    with stop_requests() as stopped:
        surroundings = Surroundings(address, stopped, statistics)
        seen = run.newest_images()
        turns = [
            Turn(name, own, training(own, callback_of(own), surroundings), (seen[name] or 0) // own.batch)
            for name, own in settings.by_component().items()
        ]
        try:
            _take_turns(turns, watch, callback.on_note)
        finally:
            if watch is not None:
                watch.close(stopped=stopped.is_set())
    return _result(turns)


def _take_turns(turns: list[Turn], watch: WholeModel | None, note: Callable[[str], None]) -> None:
    """Let the component with the smallest share of its steps go next, until all have ended.

    What ends one of them is told at once where others go on.
    """
    while left := [turn for turn in turns if not turn.ended]:
        turn = min(left, key=lambda one: one.share)
        turn.take()
        if turn.error is not None and any(one.error is None for one in turns):
            note(f"{turn.name}: {turn.error}")
        saved = turn.ended or turn.done % turn.settings.checkpoint_every == 0
        if watch is not None and saved and all(one.ended or one.share >= turn.share for one in turns):
            watch.look()  # every look reads the manifests of all components


def _result(turns: list[Turn]) -> FreeResult:
    busy = {turn.name: str(turn.error) for turn in turns if isinstance(turn.error, HeldError)}
    failed = [turn for turn in turns if turn.error is not None and turn.name not in busy]
    if failed:
        rest = [turn.name for turn in turns if turn.result is not None]
        others = f" ({', '.join(rest)} went on)" if rest else ""
        texts = "; ".join(f"{turn.name}: {turn.error}" for turn in failed)
        kind = InputError if all(isinstance(turn.error, InputError) for turn in failed) else RunError
        raise kind(f"{texts}{others}")
    if len(busy) == len(turns):
        raise HeldError("; ".join(busy.values()))
    return FreeResult({turn.name: turn.result for turn in turns if turn.result is not None}, busy)
