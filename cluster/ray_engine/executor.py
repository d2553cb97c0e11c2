"""One Ray actor per expert, chained through the object store.

The coordinator submits every call of a step in the order of the chain and owns every reference; Ray's
argument dependencies make the chain a pipeline in which GAN i trains on batch t while GAN i - 1 trains on
batch t + 1. Flow experts wait for batches alone, and are ahead of each other by up to a window. An actor
runs its calls in the order of submission, so every stage sees exactly the sequence that the inline executor
gives it. Only sub-images and uint8 batches travel.

When an actor dies, a new one takes its stage's snapshot and the same calls with the same references; all other stages
keep their state and get only the calls that did not reach them. Steps are pure functions, so the result is that of a
run without failures. See :mod:`cluster.ray_engine.recovery`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError

from cluster.evaluation.background import ScoreValues
from cluster.execution.coordinator import RATE_SPAN_STEPS
from cluster.execution.executor import (
    RecoveryBudget,
    RestorePoint,
    RollBackError,
    steps_awaiting_feedback,
)
from cluster.execution.failure_policy import Recovery
from cluster.planning.placement import Slot
from cluster.ray_engine.connection import connect, head_answers
from cluster.ray_engine.failure_detector import FailureDetector
from cluster.ray_engine.metrics import RunTelemetry
from cluster.ray_engine.nodes import draining, gpus_are_wanted
from cluster.ray_engine.recovery import ANSWER_TIMEOUT_S, Replayer, ReplayImpossible
from cluster.ray_engine.replay_log import ReplayLog, StateRefs
from cluster.ray_engine.results import is_ready, is_unavailable, raise_as_ours, retry_lost_calls, translate_errors
from cluster.ray_engine.scoring import ScoringActor
from cluster.ray_engine.worker_group import UPLOADER, WorkerGroup
from cluster.run.data_source import DataSource
from cluster.run.settings import RunSettings
from cluster.stages.process_group import GroupBrokenError
from cluster.storage.checksummed_files import FileRecord
from freqgan.errors import RunError, first_line
from freqgan.tensor_dicts import Metrics

START_TIMEOUT_S = 600.0
CLOSE_TIMEOUT_S = 5.0
GROUP_TRIES = 5
WRITER_DIED = "a process that writes checkpoints died"
INSPECT_EVERY_S = 5.0
"""Between looks at which machines there are."""


class RayExecutor:
    """Runs the steps of all stages in actors of a Ray cluster.

    Args:
        settings: of the run.
        source: the shards.
        statistics: of the bands, by name.
        restore: state to begin from, or None for a new run.
        address: of a running cluster, "auto" for the one this process is part of; None starts one here, on loopback.
        budget: from the executor before a roll-back.

    """

    def __init__(
        self,
        settings: RunSettings,
        source: DataSource,
        statistics: dict[str, NDArray[np.float32]],
        restore: RestorePoint | None,
        address: str | None = None,
        budget: RecoveryBudget | None = None,
    ) -> None:
        self.settings, self.restore = settings, restore
        budget = budget or RecoveryBudget()
        self.recoveries: deque[Recovery] = deque()
        self._owns_ray = connect(self.settings, address)
        self._head_is_lost = self._leaving = False
        self._scorer = ScoringActor(settings)
        self._submitted = self._finished = 0 if restore is None else restore.step
        self._telemetry = RunTelemetry(settings.run)
        self._last_commit_s = self._inspected_s = time.monotonic()
        self._finished_at_s = deque([time.monotonic()], maxlen=RATE_SPAN_STEPS + 1)
        self._next_slots: dict[str, Slot] | None = {}
        use_gpus = gpus_are_wanted(settings) if budget.use_gpus is None else budget.use_gpus
        self.workers = translate_errors(lambda: WorkerGroup(self.settings, source, statistics, use_gpus))
        self.replay_log = ReplayLog(self.settings, self.workers, self._submitted)
        self.detector = FailureDetector(self.workers, settings.heartbeat_timeout_s, self._lose_head)
        self._wait = self.detector.wait
        self.replayer = Replayer(self.settings, self.workers, self.replay_log, restore, self.detector, budget)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def window(self) -> int:
        """As set: beyond it, finished sub-images would pile up in the object store."""
        return self.settings.window

    def submit(self, step: int) -> None:
        """Submit every call of ``step``; return at once."""
        self.replay_log.open(step)
        self._submitted = step + 1
        if self._submitted % self.settings.snapshot_every == 0:
            self.replay_log.take_snapshot(self._submitted)

    def finish(self) -> dict[str, Metrics]:
        """Wait for every stage of the oldest step, through failures; only metrics come here."""
        self.detector.glance()
        refs = self.replay_log.steps[self._finished]
        values = self._collect(lambda: list(refs.metrics.values()), self.settings.step_deadline_s)
        by_actor = dict(zip(refs.metrics, values, strict=True))
        self._finished += 1
        self._settle_snapshots()
        self._export_metrics()
        return {stage: by_actor[stage] for stage in self.workers.groups}  # replicas' are the same

    def save(self, step: int, attempt: str) -> None:
        """Queue a save behind the steps already submitted; stages only hand over their state, others write it."""
        self.replay_log.save(step, attempt)

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """Return the records of the oldest save, through failures."""
        saves = self.replay_log.saves
        self._upload_again()
        if not wait and not all(is_ready(ref) for ref in saves[0].by_actor.values()):
            return None
        by_actor = self._collect(lambda: list(saves[0].by_actor.values()), deadline_s=None)  # storage has its own
        saves.popleft()
        self._last_commit_s = time.monotonic()
        return [record for records in by_actor for record in records]

    def score(self, step: int) -> Future[ScoreValues]:
        """Score in an actor of its own, started for the first score."""
        return self._scorer.score(step)

    def close(self) -> None:
        """End the actors; and Ray itself where this executor started it."""
        if not ray.is_initialized():
            return
        if not self._head_is_lost:
            deletions = [actor.delete_snapshots.remote() for actor in self.workers.actors.values()]
            ray.wait(deletions, num_returns=len(deletions), timeout=CLOSE_TIMEOUT_S) if deletions else None
            self._scorer.close()
            self.workers.end()
        if self._owns_ray or self._head_is_lost:
            ray.shutdown()

    # -- machines that come and go ---------------------------------------------------------------

    def wants_to_move(self) -> bool:
        """Return whether machines have come that are worth it, or are to go."""
        self._inspect()
        return self._next_slots != {}

    def move(self, at: RestorePoint) -> None:
        """Start the stages that move on their new machines, from the checkpoint; all others keep their state.

        Raises:
            RollBackError: there is no place for them beside the others, or they did not come up: all begin anew.

        """
        slots, self._next_slots = self._next_slots, {}
        if slots is None:
            raise self._roll_back_error("a machine is to be taken away, and no other is free for its stages", ())
        begun_s, names = time.monotonic(), tuple(sorted(slots))
        try:
            self.workers.move(slots)
            self._retry([partial(self.workers.build, self.workers.replica(name)) for name in names])
            self._load(at, names)
            self._form_groups({self.workers.replica(name).stage for name in names})
            self._begin_at(at.step)
        except RayError as error:
            raise self._roll_back_error(f"stages could not move ({first_line(error)})", names) from error
        where = ", ".join(sorted({slot.address for slot in slots.values()}))
        seconds = time.monotonic() - begun_s
        self.recoveries.append(Recovery(at.step, names, f"to {where}", "move", at.step, 0, seconds))

    def is_leaving(self) -> bool:
        """Return whether the machine of this process is being drained."""
        self._inspect()
        return self._leaving

    def _inspect(self) -> None:
        """Look every few seconds at which machines there are; a head that does not answer is not asked."""
        if time.monotonic() - self._inspected_s < INSPECT_EVERY_S or not head_answers():
            return
        self._inspected_s = time.monotonic()
        self._leaving = ray.get_runtime_context().get_node_id() in draining()
        if self._next_slots == {}:
            self._next_slots = self.workers.allocation.better()

    # -- parts -----------------------------------------------------------------------------------

    def _start(self) -> None:
        """Have every actor built and loaded; a machine that is lost meanwhile is one for the budgets."""
        try:
            self.workers.start(self._wait_for_start)
            if self.restore is not None:
                self._load(self.restore, self.workers.actors)
            self._form_groups(self.workers.groups)
            self.replay_log.remember_gradients(steps_awaiting_feedback(self.settings, self.restore))
        except RayError as error:
            if isinstance(error, RayTaskError) or not self.replayer.may_begin_again():
                raise_as_ours(error)
            raise self._roll_back_error(f"the actors did not come up ({first_line(error)})", ()) from error

    def _load(self, at: RestorePoint, names: Iterable[str]) -> None:
        load = [partial(self.workers.actors[n].load.remote, at.root_url, at.records, at.step) for n in names]
        self._retry(load)

    def _form_groups(self, stages: Collection[str]) -> None:
        """Have the groups of ``stages`` formed: all of one at once, so that a lost call costs a new generation."""
        for left in reversed(range(GROUP_TRIES)):
            try:
                self._wait_for_start(self.workers.form_groups(stages))
                return
            except RayError as error:
                broken = isinstance(error, RayTaskError) and isinstance(error.cause, GroupBrokenError)
                if not left or not (broken or is_unavailable(error)):
                    raise

    def _retry(self, asks: Sequence[Callable[[], Any]]) -> None:
        retry_lost_calls(asks, self._wait_for_start)

    def _wait_for_start(self, refs: list[Any]) -> list[Any]:
        return self._wait(refs, START_TIMEOUT_S)

    def _begin_at(self, step: int) -> None:
        """Make the state of all stages after ``step`` steps, all of them finished, the point to replay from."""
        self.replay_log.forget_all()
        self.replay_log.remember_gradients(steps_awaiting_feedback(self.settings, RestorePoint(step, "", [])))
        self.replay_log.take_snapshot(step)
        self._wait(list(self.replay_log.pending_snapshots[0].by_actor.values()), ANSWER_TIMEOUT_S)
        self._settle_snapshots()

    def _settle_snapshots(self) -> None:
        """Make the newest snapshot that all stages have given the one to begin again from; older steps go."""
        pending = self.replay_log.pending_snapshots
        while pending and pending[0].step <= self._finished:
            snapshot = pending.popleft()
            try:
                paths = self._wait(list(snapshot.by_actor.values()), ANSWER_TIMEOUT_S)
            except RayError:
                continue  # a stage died after that step; the snapshot before it still stands
            done = StateRefs(snapshot.step, dict(zip(snapshot.by_actor, paths, strict=True)))
            self.replay_log.begin_from(done, self._finished)
            self.workers.keep_a_spare()
        self.replay_log.begin_from(self.replay_log.snapshot, self._finished)

    def _export_metrics(self) -> None:
        """Set the gauges of Prometheus, after every step."""
        now_s = time.monotonic()
        self._finished_at_s.append(now_s)
        span_s, first = now_s - self._finished_at_s[0], next(iter(self.workers.groups))
        ahead = 0
        while self._finished + ahead < self._submitted and is_ready(
            self.replay_log.steps[self._finished + ahead].metrics[first]
        ):
            ahead += 1
        self._telemetry.set(
            images_per_s=self.settings.batch * (len(self._finished_at_s) - 1) / max(span_s, 1e-9),
            in_flight=self._submitted - self._finished,
            checkpoint_age_s=now_s - self._last_commit_s,
            lag_steps=ahead,
            left_out=len(quarantine.left_out) if (quarantine := self.workers.source.quarantine) else 0,
        )

    # -- waiting ---------------------------------------------------------------------------------

    def _collect(self, refs: Callable[[], list[Any]], deadline_s: float | None) -> list[Any]:
        """Return the values of ``refs()``; when something failed, what was lost is done again first."""
        while True:
            failure: RayError | None
            try:
                return self._wait(refs(), deadline_s)
            except RayError as error:
                failure = error
            while failure is not None:
                try:
                    self._recover(failure)
                    failure = None
                except RayError as another:  # something else died meanwhile
                    failure = another

    def _recover(self, error: RayError) -> None:
        self.detector.await_head()
        if self._upload_again():
            return
        try:
            recovery = self.replayer.recover(error, self._finished, self._submitted)
        except ReplayImpossible as obstacle:
            raise self._roll_back_error(obstacle.cause, obstacle.stages) from error
        if recovery is not None:
            self._note(recovery)

    def _upload_again(self) -> bool:
        """Return whether uploaders had died; what they had to write is then being written by others."""
        lost = self.replay_log.lost_uploads()
        if not lost or not head_answers() or self.workers.allocation.homeless():
            return False
        if not self.replayer.may_upload_again():
            raise RunError(
                f"{WRITER_DIED}, and max_failures={self.settings.max_failures} is spent; give it memory and storage "
                "that answers, or raise max_failures, and run the same command again to resume"
            )
        begun_s = time.monotonic()
        self.replay_log.upload_again(lost)
        seconds = time.monotonic() - begun_s
        self._note(Recovery(self._finished, (UPLOADER,), WRITER_DIED, "replay", self._finished, 0, seconds))
        return True

    def _note(self, recovery: Recovery) -> None:
        self.recoveries.append(recovery)
        self._telemetry.recovered(recovery.stages)

    def _roll_back_error(self, cause: str, stages: tuple[str, ...]) -> RollBackError:
        return RollBackError(cause, self.replayer.used, self._finished, stages)

    def _lose_head(self) -> NoReturn:
        """Raise what a lost head means: a Ray of our own is started anew, any other ends the run."""
        self._head_is_lost = True
        cause = f"Ray's head has not answered for {self.settings.heartbeat_timeout_s:g} s"
        if self._owns_ray:
            raise self._roll_back_error(cause, ())
        raise RunError(f"{cause}; run the same command again to resume from the checkpoint")
