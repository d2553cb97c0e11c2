"""``train``: opens the data, resumes or begins a run, builds the executor, runs the coordinator and closes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.data.quarantine import QUARANTINE, Quarantine
from cluster.execution.callbacks import TrainingCallback
from cluster.execution.coordinator import Coordinator
from cluster.execution.executor import Executor, RecoveryBudget, RestorePoint, RollBackError
from cluster.execution.failure_policy import Recovery
from cluster.execution.inline import InlineExecutor
from cluster.ray_engine.address import LOOPBACK_VARIABLE, given_address
from cluster.run.base_record import BaseRecord, changed_text
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoint_writer import CheckpointWriter
from cluster.run.checkpoints import has_checkpoints, open_checkpoint
from cluster.run.data_source import DataSource, measure_statistics, open_source
from cluster.run.free_run import find_free_run
from cluster.run.layout import CHECKPOINTS, LATEST, LEASE
from cluster.run.leftovers import remove_leftovers
from cluster.run.settings import RunSettings, differing_keys
from cluster.run.teacher import has_students, open_teacher
from cluster.run.trained_model import check_base
from cluster.stages.devices import choose_device, emulates_precision
from cluster.storage.checksummed_files import DamagedFileError
from cluster.storage.folder import open_folder
from cluster.storage.lease import Lease
from cluster.training.features import with_features
from cluster.training.stop_signals import stop_requests
from freqgan.companions.kinds import build_companion
from freqgan.errors import InputError, counted
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.companion_settings import is_imported
from freqgan.model.stage_names import IMAGE_STAGE, stage_names

Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainResult:
    """How training ended: at which step, and whether all was done or a signal stopped it."""

    step: int
    reason: Literal["done", "stopped"]


def preflight(settings: RunSettings) -> tuple[DataSource, Checkpoint | None]:
    """Check all that can be refused before machines are taken: data, run folder, settings of an earlier start.

    Returns:
        The data, and the checkpoint to resume from or None for a new run.

    Raises:
        InputError: with the remedy.

    """
    open_folder(settings.run).check_writable()
    open_folder(settings.run).check_conditions()
    if find_free_run(settings.run) is not None:
        raise InputError(f"{settings.run} was begun with pace=free: use the same value, or another run=")
    if has_students(settings):
        open_teacher(settings).verify()
    if IMAGE_STAGE in stage_names(settings) and is_imported(settings.image_stage.companion):
        build_companion(settings)  # to see that it can be
    check_base(settings)
    checkpoint = _newest(settings)
    if checkpoint is not None:
        _check_same_settings(settings, checkpoint)
    left_out = () if checkpoint is None else None  # what a start without a checkpoint has left out means nothing
    source = open_source(settings, Quarantine(open_folder(settings.run), settings.max_damaged, left_out))
    if checkpoint is not None:
        _check_same_data(settings, source, checkpoint)
    return source, checkpoint


def train(settings: RunSettings, callback: TrainingCallback, *, address: str | None = None) -> TrainResult:
    """Train ``settings`` to its end, resuming where its run folder left off.

    SIGTERM and SIGINT end it at the next step boundary with a checkpoint ("stopped"). Where a failure has cost more
    than can be replayed, all stages begin again at the last checkpoint. A run at a free pace is for
    :mod:`cluster.training.free_running`.

    Raises:
        InputError: something given cannot be used, or another process trains the same run.
        RunError: something failed while running; running again resumes.

    """
    return finish(training(settings, callback, Surroundings(address)))


def finish(steps: Generator[None, None, Result]) -> Result:
    """Run a training that gives way after every step to its end, and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


@dataclass(frozen=True)
class Surroundings:
    """What a training is given from outside.

    Attributes:
        address: of the Ray that it is to use; None starts one.
        stopped: ends it at the next step boundary with a checkpoint when it is set; None has signals end it.
        statistics: of the bands; None measures them where they are not there yet.

    """

    address: str | None = None
    stopped: threading.Event | None = None
    statistics: BandStatistics | None = None


def training(
    settings: RunSettings, callback: TrainingCallback, surroundings: Surroundings
) -> Generator[None, None, TrainResult]:
    """Train as :func:`train` does, and give way after every finished step."""
    if settings.executor == "inline" or given_address(surroundings.address) is None:
        choose_device(settings.device)  # no other machine will come with the GPU that this one lacks
    given, settings = settings, effective_settings(settings)
    root = open_folder(settings.run).child(CHECKPOINTS)
    before = root.read_tagged(LATEST)
    source, checkpoint = preflight(settings)
    with Lease(root, LEASE, settings.run, note=callback.on_note) as lease:
        if root.read_tagged(LATEST) != before:  # somebody else trained it until a moment ago
            source, checkpoint = preflight(settings)
        if settings != given:
            callback.on_note(
                f"object_store_mib: {settings.object_store_mib} MiB hold window={settings.window} and "
                f"snapshot_every={settings.snapshot_every}, in place of {given.window} and {given.snapshot_every}"
            )
        return (yield from _train(settings, source, checkpoint, callback, lease, surroundings))


def effective_settings(settings: RunSettings) -> RunSettings:
    """Return ``settings`` as they are used: with Ray, ``window`` and ``snapshot_every`` fit its object store.

    InputError where not even single steps fit.
    """
    if settings.executor == "inline" or settings.system == "fusion":
        return settings
    from cluster.ray_engine.object_store_budget import fit_to_object_store  # only here: inline runs have no such store

    return fit_to_object_store(settings)


def _newest(settings: RunSettings, damaged: Mapping[tuple[int, str], str] | None = None) -> Checkpoint | None:
    """Return the newest checkpoint but those ``damaged``, with its statistics in memory; None for a new run.

    Its other files are verified by the stages that read them; all of them here where no stage will.
    """

    def read(checkpoint: Checkpoint) -> Checkpoint:
        checkpoint.statistics()
        if checkpoint.step >= settings.last_step:
            checkpoint.verify()
        return checkpoint

    return open_checkpoint(settings.run, read, damaged=damaged) if has_checkpoints(settings.run) else None


def _train(
    settings: RunSettings,
    source: DataSource,
    checkpoint: Checkpoint | None,
    callback: TrainingCallback,
    lease: Lease,
    surroundings: Surroundings,
) -> Generator[None, None, TrainResult]:
    """Train as :func:`train` says, while nobody else trains the same run."""
    notes = _notes(checkpoint, source)
    if checkpoint is not None and checkpoint.step >= settings.last_step:  # machines would have nothing to do
        callback.on_start(checkpoint.step, notes)
        callback.on_end(checkpoint.step, "done")
        return TrainResult(checkpoint.step, "done")
    if settings.executor == "ray" and (ray_address := given_address(surroundings.address)) is not None:
        from cluster.ray_engine.connection import check_cluster  # only here: importing Ray takes a second

        check_cluster(ray_address)  # before anything is measured for it
    if checkpoint is None and source.quarantine is not None:
        source.quarantine.begin_anew()  # here, where nobody else trains the same run
    statistics = surroundings.statistics if checkpoint is None else checkpoint.statistics()
    source = with_features(source, callback, surroundings.address, statistics)
    statistics = statistics or band_statistics(source, callback)
    start = Start(checkpoint, notes)
    names = source.class_names or (() if checkpoint is None else checkpoint.class_names)
    values = source.values or ({} if checkpoint is None else checkpoint.values)
    base = _base_record(settings, checkpoint, notes.append)
    writer = CheckpointWriter(settings, statistics, source.fingerprint(), lease, start.step, names, base, values)
    remove_leftovers(open_folder(settings.run))
    writer.prune_unfinished()
    if settings.executor == "inline" and emulates_precision(settings):
        notes.append("precision: this processor has no bfloat16 instructions; float32 would be several times faster")
    with _stop_event(surroundings.stopped) as stopped:  # for all attempts: a request between them counts as well
        run = Run(settings, source, statistics, writer, callback, surroundings, stopped)
        step = yield from run.train(start)
    reason: Literal["done", "stopped"] = "done" if step >= settings.last_step else "stopped"
    callback.on_end(step, reason)
    return TrainResult(step, reason)


def _base_record(
    settings: RunSettings, checkpoint: Checkpoint | None, note: Callable[[str], None]
) -> BaseRecord | None:
    """Return what is recorded of the model whose images are shown: as it was when the run began, if it is the same run.

    That it has changed since is told.
    """
    now = check_base(settings)
    before = None if checkpoint is None else BaseRecord.in_manifest(checkpoint.manifest)
    if now is None or before is None or before.run != now.run:
        return now
    if before.digest != now.digest:
        note(changed_text(before, now))
    return before


def _stop_event(given: threading.Event | None) -> AbstractContextManager[threading.Event]:
    """Return what gives the event that ends a training: ``given``, or one that signals set."""
    return stop_requests() if given is None else nullcontext(given)


def band_statistics(source: DataSource, callback: TrainingCallback) -> BandStatistics:
    """Return the statistics of a new run; those of students' teacher."""
    if has_students(source.settings):
        return open_teacher(source.settings).statistics()
    count = min(source.settings.statistics_images, source.index.sample_count)
    callback.on_prepare(f"measuring the bands of {count} images")
    return measure_statistics(source)


@dataclass(frozen=True)
class Start:
    """Where an attempt begins.

    Attributes:
        checkpoint: with the state to begin from; None for a new run.
        notes: for the user.
        budget: what attempts before it have used.
        rolled_back: what ended the attempt before it, where that was rolled back.

    """

    checkpoint: Checkpoint | None
    notes: list[str]
    budget: RecoveryBudget = field(default_factory=RecoveryBudget)
    rolled_back: Recovery | None = None

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return 0 if self.checkpoint is None else self.checkpoint.step


@dataclass(frozen=True)
class Run:
    """What all attempts of a training have in common.

    Attributes:
        settings: of the run, as they are used.
        source: its training images.
        statistics: of the bands of these images.
        writer: commits its checkpoints.
        callback: receives its events.
        surroundings: what it is given from outside.
        stopped: is set when the training is to end with a checkpoint.

    """

    settings: RunSettings
    source: DataSource
    statistics: BandStatistics
    writer: CheckpointWriter
    callback: TrainingCallback
    surroundings: Surroundings
    stopped: threading.Event

    @property
    def address(self) -> str | None:
        """The address of the Ray that it is to use; None starts one."""
        return self.surroundings.address

    def train(self, start: Start) -> Generator[None, None, int]:
        """Train with one executor after the other, each from the last checkpoint; return the finished steps."""
        damaged: dict[tuple[int, str], str] = {}
        while True:
            try:
                return (yield from self.attempt(start))
            except RollBackError as error:
                checkpoint = _newest(self.settings, damaged)
                start = Start(checkpoint, [], error.budget)
                start = replace(start, rolled_back=error.recovery(start.step))
            except DamagedFileError as error:  # a stage has met it: files are verified by who reads them
                if start.checkpoint is None:
                    raise
                damaged[start.checkpoint.step, start.checkpoint.attempt] = str(error)
                checkpoint = _newest(self.settings, damaged)
                start = replace(start, checkpoint=checkpoint, notes=_notes(checkpoint, self.source))
                self.writer.first_step = start.step

    def attempt(self, start: Start) -> Generator[None, None, int]:
        """Train with one executor, to the end or to a stop; return the finished steps.

        Raises:
            RollBackError: all stages have to begin again at the last checkpoint.
            DamagedFileError: the checkpoint cannot be read.

        """
        if self.settings.executor == "ray":
            actors = f"an actor for each of {len(stage_names(self.settings))} stages"
            if self.settings.system == "fusion":
                actors = f"at least {counted(self.settings.workers.min, 'worker')}"
            there = given_address(self.address)
            self.callback.on_prepare(
                f"starting {actors} on the Ray at {there.text}" if there else f"starting Ray and {actors}"
            )
        executor = self._executor(start)
        try:
            with self._signals():
                self.callback.on_start(start.step, start.notes)
                if start.rolled_back is not None:
                    self.callback.on_recovery(start.rolled_back)
                coordinator = Coordinator(
                    self.settings,
                    executor,
                    self.writer,
                    self.callback,
                    start.step,
                    stopping=lambda: self.stopped.is_set() or executor.is_leaving(),
                    quarantine=self.source.quarantine,
                )
                return (yield from coordinator.run())
        finally:
            executor.close()

    def _signals(self) -> AbstractContextManager[object]:
        """Have signals set ``stopped``, again: Ray has installed handlers of its own when it started."""
        own = self.surroundings.stopped is None or self.settings.executor == "ray"
        return stop_requests(self.stopped) if own else nullcontext()

    def _executor(self, start: Start) -> Executor:
        checkpoint, restore = start.checkpoint, None
        if checkpoint is not None:
            restore = RestorePoint(checkpoint.step, checkpoint.root.url, checkpoint.records)
        arrays: dict[str, NDArray[np.float32]] = {k: v.cpu().numpy() for k, v in self.statistics.tensors().items()}
        if self.settings.executor == "inline":
            return InlineExecutor(self.settings, self.source, arrays, restore)
        if given_address(self.address) is None:
            os.environ.setdefault(LOOPBACK_VARIABLE, "0")
        if self.settings.system == "fusion":
            from cluster.ray_engine.data_parallel import DataParallelExecutor  # only here: importing Ray takes a second

            return DataParallelExecutor(self.settings, self.source, arrays, restore, self.address)
        from cluster.ray_engine.executor import RayExecutor  # only here: importing Ray takes a second

        return RayExecutor(self.settings, self.source, arrays, restore, self.address, start.budget)


def _check_same_settings(settings: RunSettings, checkpoint: Checkpoint) -> None:
    differing = differing_keys(settings.identity(), checkpoint.settings.identity())
    if differing:
        rows = ", ".join(f"{key} is {theirs!r} there and {ours!r} here" for key, (ours, theirs) in differing.items())
        raise InputError(f"{settings.run} was trained with other settings: {rows}; use the same values or another run=")


def _check_same_data(settings: RunSettings, source: DataSource, checkpoint: Checkpoint) -> None:
    if source.fingerprint() != checkpoint.manifest["data"]["fingerprint"]:
        raise InputError(
            f"data: the shards of {settings.data} are not those {settings.run} was trained on "
            f"({checkpoint.settings.data}); give the same shards or another run="
        )


def _notes(checkpoint: Checkpoint | None, source: DataSource) -> list[str]:
    notes = []
    if checkpoint is not None:
        resumes = f"resumes after step {checkpoint.step} ({checkpoint.images} images)"
        if not checkpoint.step:
            resumes = "begins with the weights of an older model"
        elif checkpoint.step >= source.settings.last_step:
            resumes = f"is done already, with step {checkpoint.step} ({checkpoint.images} images)"
        notes = [*checkpoint.notes, resumes]
    if source.quarantine is not None and (
        before := len(source.quarantine.left_out) - len(source.quarantine.unreported)
    ):
        notes.append(f"{before} damaged images stay left out, as {QUARANTINE} in {source.settings.run} has them")
    return notes
