"""How a failure is found out about, and how what :mod:`cluster.ray_engine.recovery_plan` says is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)

from cluster.data.quarantine import QuarantinedImage
from cluster.execution.executor import RecoveryBudget, RestorePoint
from cluster.execution.failure_policy import Recovery, Symptoms, decide
from cluster.ray_engine import recovery_plan as plan
from cluster.ray_engine.failure_detector import FailureDetector
from cluster.ray_engine.recovery_plan import Action, Diagnosis, RepeatCounter, plan_recovery
from cluster.ray_engine.replay_log import ReplayLog
from cluster.ray_engine.results import (
    damage_in,
    error_of,
    is_broken_group,
    is_death,
    is_ready,
    is_there,
    is_unavailable,
    raise_as_ours,
    retry_lost_calls,
)
from cluster.ray_engine.worker_group import UPLOADER, WorkerGroup
from cluster.run.settings import RunSettings
from cluster.stages.host import OutOfStepError
from cluster.stages.process_group import GroupBrokenError
from cluster.stages.snapshots import SnapshotLostError
from freqgan.errors import RunError, first_line
from freqgan.model.stage_names import IMAGE_STAGE

ANSWER_TIMEOUT_S = 600.0


class ReplayImpossible(Exception):  # noqa: N818  # no error yet: the executor makes a roll-back of it
    """What a replay needs is gone."""

    def __init__(self, cause: str, stages: tuple[str, ...]) -> None:
        super().__init__(cause)
        self.cause, self.stages = cause, stages


class Replayer:
    """Does again what a failure has cost.

    Args:
        settings: of the run.
        workers: its actors.
        replay_log: of its calls.
        restore: state that the actors began from, or None for a new run.
        detector: to wait with.
        used: budgets used so far.

    """

    def __init__(
        self,
        settings: RunSettings,
        workers: WorkerGroup,
        replay_log: ReplayLog,
        restore: RestorePoint | None,
        detector: FailureDetector,
        used: RecoveryBudget,
    ) -> None:
        self.settings, self.workers, self.replay_log, self.restore = settings, workers, replay_log, restore
        self._wait = detector.wait
        self.used = replace(used, use_gpus=workers.allocation.use_gpus)
        self._restarting: frozenset[str] = frozenset()
        self._repeats = RepeatCounter()

    def recover(self, error: RayError, finished: int, submitted: int) -> Recovery | None:
        """Replays what ``error`` has cost; returns None where only images were damaged, of which others tell.

        Raises:
            ReplayImpossible: all stages have to begin again at the last checkpoint.
            RunError: it is the run's own error, or a budget is spent.
            RayError: something else failed meanwhile: to be called again with that.

        """
        begun_s = time.monotonic()
        homeless = self._end_homeless()
        if not homeless:
            self._end_idle(error, finished, submitted)
        diagnosis = self.diagnose(error, finished, submitted, homeless)
        limits = self.settings.max_failures, self.settings.max_preemption_failures
        self.apply(plan_recovery(diagnosis, *limits), error)
        if not diagnosis.is_failure:
            return None
        from_step = diagnosis.snapshot_step if diagnosis.restarted else finished
        steps = submitted - from_step if diagnosis.restarted else 0
        seconds = time.monotonic() - begun_s
        return Recovery(finished, diagnosis.dead, diagnosis.cause, "replay", from_step, steps, seconds)

    def diagnose(self, error: RayError, finished: int, submitted: int, homeless: tuple[str, ...]) -> Diagnosis:
        """Find out what ``error`` has cost, by asking all actors once they have gone through their queues.

        Args:
            error: of the result that was waited for.
            finished: steps that are finished.
            submitted: steps whose calls were made.
            homeless: actors whose machine is lost; then nobody is asked.

        """
        cause = error.cause if isinstance(error, RayTaskError) else None
        steps_done = {} if homeless else self._steps_done()  # first: then all batches are there that were asked for
        damaged_step = self._damaged_step()
        diagnosis = Diagnosis(
            cause=first_line(error),
            finished=finished,
            submitted=submitted,
            snapshot_step=self.replay_log.snapshot.step,
            groups={stage: tuple(replica.name for replica in group) for stage, group in self.workers.groups.items()},
            readers=tuple(self.workers.readers),
            steps_done=steps_done,
            homeless=homeless,
            used=self.used,
            lost_call=is_unavailable(error) or isinstance(cause, OutOfStepError),
            lost_object=isinstance(error, ObjectLostError),
            dead_call=is_death(error),
            restarting=self._restarting,
            damaged_step=damaged_step,
            damage="" if damaged_step is None else self._damage_at(damaged_step)[0].reason,
        )
        if homeless:
            where = f"the machine of {', '.join(homeless)} is gone or cannot be reached"
            return replace(diagnosis, cause=where)
        diagnosis = replace(
            diagnosis,
            broken_groups=self._broken_groups(diagnosis.dead),
            lost_replies=self._lost_replies(diagnosis.steps_done, submitted),
            lost_gradients=bool(self.replay_log.lost_gradients()),
            lost_saves=self._lost_saves(),
            lost_batches=self._lost_batches(diagnosis.dead, submitted),
        )
        return replace(diagnosis, repeats=self._repeats.count(diagnosis))

    def apply(self, actions: Collection[Action], error: RayError) -> None:
        """Do ``actions`` in order.

        Raises:
            ReplayImpossible: for RollBack.
            RunError: for Fail, as what ``error`` means.
            RayError: something else failed meanwhile.

        """
        for action in actions:
            match action:
                case plan.Fail():
                    raise_as_ours(error)
                case plan.RollBack(cause, stages):
                    raise ReplayImpossible(cause, stages)
                case plan.CountFailure(preempted):
                    self._count(preempted=preempted)
                case plan.RenewReader(name):
                    self.workers.renew_reader(name)
                case plan.Restart(replaced, rewound):
                    self._restart(replaced, rewound)
                case plan.ExcludeImages(step):
                    self._exclude_images(step)
                case plan.CallAgain(step, stages, read_again):
                    self.replay_log.call_again(step, stages, read_again)

    def may_begin_again(self) -> bool:
        """Count a failure that cost everything; False where the budget is spent."""
        return self._within_budget(Symptoms((), False, True, self.used.failures))

    def may_upload_again(self) -> bool:
        """Count a death of who writes checkpoints; False where the budget is spent."""
        return self._within_budget(Symptoms((UPLOADER,), False, False, self.used.failures))

    def _within_budget(self, symptoms: Symptoms) -> bool:
        if decide(symptoms, self.settings.max_failures) == "fail":
            return False
        self._count(preempted=False)
        return True

    def _count(self, *, preempted: bool) -> None:
        if preempted:
            self.used = replace(self.used, preemptions=self.used.preemptions + 1)
        else:
            self.used = replace(self.used, failures=self.used.failures + 1)

    # -- ending who keeps the others waiting -----------------------------------------------------

    def _end_homeless(self) -> tuple[str, ...]:
        """End the actors on machines that are gone: what waits for them would wait until Ray has noticed as well."""
        homeless = tuple(self.workers.allocation.homeless())
        for name in homeless:
            self.workers.kill(name)
        return homeless

    def _end_idle(self, error: RayError, finished: int, submitted: int) -> None:
        """End who keeps the others waiting."""
        if isinstance(error, GetTimeoutError):
            self._end_stuck(finished, submitted)
        elif isinstance(error, RayTaskError) and isinstance(error.cause, GroupBrokenError):
            self._end_silent_replicas(finished, submitted)

    def _end_stuck(self, finished: int, submitted: int) -> None:
        """End the actor that keeps the oldest step from being finished: the first that has all it needs."""
        step = min(finished, submitted - 1)
        refs = self.replay_log.steps[step]
        for call in self.replay_log.graph:
            for replica in self.workers.groups[call.stage] if call.kind == "step" else ():
                if not is_ready(refs.metrics[replica.name]):
                    self.workers.kill(replica.name if is_ready(refs.images) else self.workers.reader_of(step))
                    return

    def _end_silent_replicas(self, finished: int, submitted: int) -> None:
        """End the replicas that have given nothing for a step for which others of their group have waited in vain.

        Asking them would not do: their queues may wait for results that depend on the very step that hangs.
        """
        for group in [group for group in self.workers.groups.values() if len(group) > 1]:
            for step in range(finished, submitted):
                refs = {replica.name: self.replay_log.steps[step].metrics[replica.name] for replica in group}
                if any(is_broken_group(ref) for ref in refs.values()):
                    ray.wait(list(refs.values()), num_returns=len(refs), timeout=self.settings.replica_timeout_s)
                    for name in [name for name, ref in refs.items() if not is_ready(ref)]:
                        self.workers.kill(name)
                    break

    # -- what happened ---------------------------------------------------------------------------

    def _steps_done(self) -> dict[str, int | None]:
        """Return how many steps every actor has done, once it has gone through its queue; None for the dead."""
        asks = {name: actor.done.remote for name, actor in self.workers.actors.items()}
        asks |= {name: reader.ready.remote for name, reader in self.workers.readers.items()}
        first = {name: ask() for name, ask in asks.items()}  # all at once: each waits for its queue
        return {name: self._answer(name, iter([first[name]]), ask) for name, ask in asks.items()}

    def _answer(self, name: str, first: Iterator[Any], ask: Callable[[], Any]) -> int | None:
        """Return the answer ``first``, or that to the same question again where it was lost; None from the dead."""
        try:
            (steps,) = retry_lost_calls(
                [lambda: next(first, None) or ask()], lambda refs: self._wait(refs, ANSWER_TIMEOUT_S)
            )
            return int(steps)
        except ActorUnavailableError:
            self.workers.kill(name)
            return None
        except RayActorError:
            return None
        except GetTimeoutError as error:
            raise RunError(
                f"{name} has not answered for {ANSWER_TIMEOUT_S:g} s after a failure; run the same command again"
            ) from error

    def _broken_groups(self, dead: tuple[str, ...]) -> frozenset[str]:
        """Return the replicas that say that their group is broken: a step may have been applied in some alone.

        Those are not asked who have lost a replica: they are of no whole group anyway.
        """
        names = [
            replica.name
            for group in self.workers.groups.values()
            if len(group) > 1 and not any(replica.name in dead for replica in group)
            for replica in group
        ]
        answers = self._wait([self.workers.actors[name].has_lost_others.remote() for name in names], ANSWER_TIMEOUT_S)
        return frozenset(name for name, is_broken in zip(names, answers, strict=True) if is_broken)

    def _lost_replies(self, steps_done: Mapping[str, int | None], submitted: int) -> frozenset[str]:
        """Return the stages that have done a step of which no results have come: the reply was lost, not the call."""
        return frozenset(
            replica.name
            for step in range(self.replay_log.snapshot.step, submitted)
            for replica in self.workers.replicas
            if step < (steps_done[replica.name] or 0)
            and any(not is_there(ref) for ref in self.replay_log.steps[step].refs_of(replica))
        )

    def _lost_saves(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Return the saves of which replies were lost: their steps, and whose replies."""
        lost = [
            (
                save.step,
                tuple(name for name, ref in save.by_actor.items() if is_ready(ref) and is_unavailable(error_of(ref))),
            )
            for save in self.replay_log.saves
        ]
        return tuple((step, names) for step, names in lost if names)

    def _lost_batches(self, dead: tuple[str, ...], submitted: int) -> frozenset[int]:
        """Return the steps since the snapshot whose batch was lost, with its reader or with the reader's reply."""
        steps = range(self.replay_log.snapshot.step, submitted)
        return frozenset(step for step in steps if self.workers.reader_of(step) in dead or self._batch_is_lost(step))

    def _batch_is_lost(self, step: int) -> bool:
        images = self.replay_log.steps[step].images
        return is_ready(images) and error_of(images) is not None

    def _damaged_step(self) -> int | None:
        """Return the first step of whose batch there is nothing but the account of damaged images."""
        return next((step for step in sorted(self.replay_log.steps) if self._damage_at(step)), None)

    def _damage_at(self, step: int) -> tuple[QuarantinedImage, ...]:
        return damage_in(self.replay_log.steps[step].images)

    # -- what is done about it -------------------------------------------------------------------

    def _exclude_images(self, step: int) -> None:
        """Put the damaged images of ``step`` into quarantine and have all readers know it; RunError if too many."""

        def leave_out(images: tuple[QuarantinedImage, ...]) -> None:
            asks = [partial(reader.leave_out.remote, images) for reader in self.workers.readers.values()]
            retry_lost_calls(asks, lambda refs: self._wait(refs, ANSWER_TIMEOUT_S))

        self.workers.source.exclude(self._damage_at(step), leave_out)

    def _restart(self, replaced: tuple[str, ...], rewound: tuple[str, ...]) -> None:
        """Give those ``replaced`` new actors; they and those ``rewound`` get the state of the snapshot or start."""
        point = self.replay_log.snapshot
        replicas = [replica for replica in self.workers.replicas if replica.name in {*replaced, *rewound}]
        names = frozenset(replica.name for replica in replicas)
        ready = [self.workers.place(replica) for replica in replicas if replica.name in replaced]
        ready += [  # a state of the start has no other way to be had; and that call may be what was lost the last time
            self.workers.build(replica)
            for replica in replicas
            if replica.name not in replaced and (not point.by_actor or replica.name in self._restarting)
        ]
        ready += self._restore(names)
        self._restarting = names
        try:
            self._wait(ready, None)  # first: a group waits for its replicas no longer than its timeout
            self._wait(self.workers.form_groups({replica.stage for replica in replicas}), None)
        except RayTaskError as error:
            if isinstance(error.cause, SnapshotLostError):
                raise ReplayImpossible(f"inputs to replay are gone ({error.cause})", replaced) from error
            raise
        self._restarting = frozenset()
        if IMAGE_STAGE in names:
            self.replay_log.remember_gradients(self.replay_log.lost_gradients())
        self.replay_log.write_again(point.step, names)

    def _restore(self, names: Collection[str]) -> list[Any]:
        """Have stages take the state of the snapshot, or of the checkpoint of the start; references to wait for."""
        point, actors = self.replay_log.snapshot, self.workers.actors
        if point.by_actor:
            return [actors[name].restore.remote(point.by_actor[name]) for name in names]
        if self.restore is None:
            return []
        arguments = (self.restore.root_url, self.restore.records, self.restore.step)
        return [actors[name].load.remote(*arguments) for name in names]
