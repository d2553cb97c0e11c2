"""``train``: opens the data, resumes or starts, builds the executor, runs the coordinator, closes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cluster.data.quarantine import QUARANTINE, Quarantine
from cluster.execution.callbacks import TrainingCallback
from cluster.execution.coordinator import Coordinator
from cluster.execution.executors import Executor, InlineExecutor, RecoveryBudget, RestorePoint, RollBackError
from cluster.execution.failure_policy import Recovery
from cluster.ray_engine.address import LOOPBACK_VARIABLE, given_address
from cluster.run.checkpoint_writer import CheckpointWriter
from cluster.run.checkpoints import Checkpoint, has_checkpoints, open_checkpoint
from cluster.run.data_source import DataSource, measure_statistics, open_source
from cluster.run.layout import CHECKPOINTS, LATEST, LEASE
from cluster.run.leftovers import remove_leftovers
from cluster.run.settings import RunSettings, differing_keys
from cluster.stages.host import choose_device, emulates_precision
from cluster.storage.checksummed_files import DamagedFileError
from cluster.storage.folder import open_folder
from cluster.storage.lease import Lease
from freqgan.errors import InputError
from freqgan.model.band_statistics import BandStatistics
from freqgan.model.stage_names import stage_names


@dataclass(frozen=True)
class TrainResult:
    """How training ended: at which step, and whether all was done or a signal stopped it."""

    step: int
    reason: Literal["done", "stopped"]


def preflight(settings: RunSettings) -> tuple[DataSource, Checkpoint | None]:
    """Everything that can be refused before machines are taken: data, run folder, settings of an earlier start.

    Returns:
        The data, and the checkpoint to resume from or None for a new run.

    Raises:
        InputError: with the remedy.

    """
    open_folder(settings.run).check_writable()
    open_folder(settings.run).check_conditions()
    checkpoint = _newest(settings)
    if checkpoint is not None:
        _check_same_settings(settings, checkpoint)
    left_out = () if checkpoint is None else None  # what a start without a checkpoint has left out means nothing
    source = open_source(settings, Quarantine(open_folder(settings.run), settings.max_damaged, left_out))
    if checkpoint is not None:
        _check_same_data(settings, source, checkpoint)
    return source, checkpoint


def train(settings: RunSettings, reporter: TrainingCallback, *, address: str | None = None) -> TrainResult:
    """Trains ``settings`` to its end, resuming where its run folder left off.

    SIGTERM and SIGINT end it at the next step boundary with a checkpoint ("stopped"). Where a failure has cost more
    than can be replayed, all stages begin again at the last checkpoint.

    Raises:
        InputError: something given cannot be used, or another process trains the same run.
        RunError: something failed while running; running again resumes.

    """
    if settings.executor == "inline" or given_address(address) is None:
        choose_device(settings.device)  # no other machine will come with the GPU that this one lacks
    root = open_folder(settings.run).child(CHECKPOINTS)
    before = root.read_tagged(LATEST)
    source, checkpoint = preflight(settings)
    with Lease(root, LEASE, settings.run, note=reporter.on_note) as lease:
        if root.read_tagged(LATEST) != before:  # somebody else trained it until a moment ago
            source, checkpoint = preflight(settings)
        return _train(settings, source, checkpoint, reporter, lease, address)


def _newest(settings: RunSettings, damaged: Mapping[tuple[int, str], str] | None = None) -> Checkpoint | None:
    """The newest checkpoint but those ``damaged``, with its statistics in memory; None for a new run.

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
    reporter: TrainingCallback,
    lease: Lease,
    address: str | None,
) -> TrainResult:
    """:func:`train`, while nobody else trains the same run."""
    notes = _notes(checkpoint, source)
    if checkpoint is not None and checkpoint.step >= settings.last_step:  # machines would have nothing to do
        reporter.on_start(checkpoint.step, notes)
        reporter.on_end(checkpoint.step, "done")
        return TrainResult(checkpoint.step, "done")
    if settings.executor == "ray" and (there := given_address(address)) is not None:
        from cluster.ray_engine.connection import check_cluster  # only here: importing Ray takes a second

        check_cluster(there)  # before anything is measured for it
    if checkpoint is None:
        if source.quarantine is not None:
            source.quarantine.begin_anew()  # here, where nobody else trains the same run
        count = min(settings.statistics_images, source.index.sample_count)
        reporter.on_prepare(f"measuring the bands of {count} images")
        statistics = measure_statistics(source)
    else:
        statistics = checkpoint.statistics()
    writer = CheckpointWriter(settings, statistics, source.fingerprint(), lease, checkpoint.step if checkpoint else 0)
    remove_leftovers(open_folder(settings.run))
    writer.prune_unfinished()
    if settings.executor == "inline" and emulates_precision(settings):
        notes.append("precision: this processor has no bfloat16 instructions; float32 would be several times faster")
    with stop_requests() as stopped:  # one for all attempts: a request that comes between them counts as well
        step = _attempts(settings, source, statistics, checkpoint, reporter, writer, address, notes, stopped)
    reason: Literal["done", "stopped"] = "done" if step >= settings.last_step else "stopped"
    reporter.on_end(step, reason)
    return TrainResult(step, reason)


def _attempts(
    settings: RunSettings,
    source: DataSource,
    statistics: BandStatistics,
    checkpoint: Checkpoint | None,
    reporter: TrainingCallback,
    writer: CheckpointWriter,
    address: str | None,
    notes: list[str],
    stopped: threading.Event,
) -> int:
    """Trains with one executor after the other, each from the last checkpoint, until one comes to an end; the step."""
    carried = RecoveryBudget()
    rolled_back: Recovery | None = None
    damaged: dict[tuple[int, str], str] = {}
    while True:
        first_step = 0 if checkpoint is None else checkpoint.step
        executor: Executor | None = None
        try:
            if settings.executor == "ray":
                actors = f"an actor for each of {len(stage_names(settings.band_plan()))} stages"
                there = given_address(address)
                reporter.on_prepare(
                    f"starting {actors} on the Ray at {there.text}" if there else f"starting Ray and {actors}"
                )
            executor = _executor(settings, source, statistics, checkpoint, address, carried)
            with stop_requests(stopped):  # again: Ray has installed handlers of its own when it started
                reporter.on_start(first_step, notes)
                if rolled_back is not None:
                    reporter.on_recovery(rolled_back)
                stopping = _either(stopped.is_set, executor.is_leaving)
                quarantine = source.quarantine
                return Coordinator(settings, executor, writer, reporter, first_step, stopping, quarantine).run()
        except RollBackError as error:
            checkpoint = _newest(settings, damaged)
            carried, notes = error.carried, []
            rolled_back = error.recovery(0 if checkpoint is None else checkpoint.step)
        except DamagedFileError as error:  # a stage has met it: files are verified by who reads them
            if checkpoint is None:
                raise
            damaged[checkpoint.step, checkpoint.attempt] = str(error)
            checkpoint = _newest(settings, damaged)
            notes, writer.first_step = _notes(checkpoint, source), 0 if checkpoint is None else checkpoint.step
        finally:
            if executor is not None:
                executor.close()


def _executor(
    settings: RunSettings,
    source: DataSource,
    statistics: BandStatistics,
    checkpoint: Checkpoint | None,
    address: str | None,
    carried: RecoveryBudget,
) -> Executor:
    restore = None if checkpoint is None else RestorePoint(checkpoint.step, checkpoint.root.url, checkpoint.records)
    arrays: dict[str, NDArray[np.float32]] = {k: v.cpu().numpy() for k, v in statistics.tensors().items()}
    if settings.executor == "inline":
        return InlineExecutor(settings, source, arrays, restore)
    if given_address(address) is None:
        os.environ.setdefault(LOOPBACK_VARIABLE, "0")
    from cluster.ray_engine.executor import RayExecutor  # only here: importing Ray takes a second that inline runs save

    return RayExecutor(settings, source, arrays, restore, address, carried)


def _either(first: Callable[[], bool], second: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: first() or second()


@contextmanager
def stop_requests(event: threading.Event | None = None) -> Iterator[threading.Event]:
    """An event, a new one if none is given, that SIGTERM or SIGINT sets. Main thread only.

    A second SIGINT does what it always did.

    SIGTERM may come twice (to a process and to its group): the second one must not cost the checkpoint.
    """
    event = event or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def request(number: int, _frame: object) -> None:
        event.set()
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
