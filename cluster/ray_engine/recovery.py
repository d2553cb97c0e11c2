"""What is done again after a failure, and in which actors.

A stage that died gets a new actor, the state of the last snapshot and its own calls since then. So does, in the actor
that it has, one that did a step whose reply was lost on the way. Stages that live and were not reached by some calls
get those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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

from cluster.execution.executors import RecoveryBudget, RestorePoint
from cluster.execution.failure_policy import Decision, Recovery, Symptoms, decide
from cluster.ray_engine.failure_detector import FailureDetector
from cluster.ray_engine.replay_log import ReplayLog
from cluster.ray_engine.results import (
    damage_in,
    error_of,
    first_line,
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
from freqgan.errors import RunError
from freqgan.model.stage_names import IMAGE_STAGE

ANSWER_TIMEOUT_S = 600.0
MOST_IN_VAIN = 20
"""Recoveries in a row that have changed nothing; more than replies that chance loses."""


class ReplayImpossible(Exception):  # noqa: N818  # no error yet: the executor makes a roll-back of it
    """What a replay needs is gone."""

    def __init__(self, cause: str, stages: tuple[str, ...]) -> None:
        super().__init__(cause)
        self.cause, self.stages = cause, stages


class Replayer:
    """Does again what a failure has cost.

    Args:
        settings: of the run.
        crew: its actors.
        ledger: of its calls.
        restore: state that the actors began from, or None for a new run.
        watch: to wait with.
        carried: budgets used so far.

    """

    def __init__(
        self,
        settings: RunSettings,
        crew: WorkerGroup,
        ledger: ReplayLog,
        restore: RestorePoint | None,
        watch: FailureDetector,
        carried: RecoveryBudget,
    ) -> None:
        self.settings, self.crew, self.ledger, self.restore = settings, crew, ledger, restore
        self.watch, self._wait = watch, watch.wait
        self.carried = replace(carried, use_gpus=crew.seats.use_gpus)
        self._reviving: set[str] = set()
        self._seen: tuple[int, dict[str, int | None]] | None = None
        self._in_vain = 0

    def recover(self, error: RayError, finished: int, submitted: int) -> Recovery | None:
        """Replays what ``error`` has cost, or raises what the user is to read; None where only images were damaged.

        Raises:
            Lost: all stages have to begin again at the last checkpoint.
            RunError: it is the run's own error, or a budget is spent.
            RayError: something else failed meanwhile: to be called again with that.

        """
        begun_s = time.monotonic()
        homeless = self._end_homeless()
        if not homeless:
            self._end_idle(error, finished, submitted)
        done = {} if homeless else self._done_steps()
        dead = tuple(name for name, steps in done.items() if steps is None)
        again = () if homeless else self._to_do_again(dead, done, submitted)
        damaged = self._damaged_step()
        cause = self._cause(error, homeless)
        decision: Decision = "replay"
        failed = damaged is None or dead or again or homeless  # else only data are damaged: they have their own limit
        if failed:
            symptoms = self._symptoms(error, dead, again, homeless)
            decision = decide(symptoms, self.settings.max_failures, self.settings.max_preemption_failures)
            if decision == "fail":
                raise_as_ours(error)
            self._count(homeless)
        if decision == "roll back":
            raise ReplayImpossible(cause if homeless else f"inputs to replay are gone ({cause})", dead or homeless)
        self._count_in_vain(finished, done, bool(dead or again or damaged is not None), cause)
        base = self.ledger.snapshot.step
        self._revive(dead, again)
        if damaged is not None:
            self._leave_out(damaged, done)
        readers = self.crew.readers.keys()
        anew = {*dead, *again} - readers
        positions = {name: base if name in anew else steps or 0 for name, steps in done.items() if name not in readers}
        for step in range(min(positions.values()), submitted):
            names = {name for name, position in positions.items() if step >= position}
            shifted = damaged is not None and step >= damaged
            lost = self.crew.reader_of(step) in dead or self._batch_is_lost(step)
            self.ledger.call_again(step, names, shifted or lost)
        if not failed:
            return None  # whoever reports what is left out tells of it
        from_step, steps = (base, submitted - base) if anew else (finished, 0)
        return Recovery(finished, dead, cause, decision, from_step, steps, time.monotonic() - begun_s)

    def may_begin_again(self) -> bool:
        """Counts a failure that cost everything; False where the budget is spent."""
        return self._within_budget(Symptoms((), False, True, self.carried.failures))

    def may_upload_again(self) -> bool:
        """Counts a death of who writes checkpoints; False where the budget is spent."""
        return self._within_budget(Symptoms((UPLOADER,), False, False, self.carried.failures))

    def _within_budget(self, symptoms: Symptoms) -> bool:
        if decide(symptoms, self.settings.max_failures) == "fail":
            return False
        self._count(())
        return True

    # -- what happened ---------------------------------------------------------------------------

    def _symptoms(
        self, error: RayError, dead: tuple[str, ...], again: tuple[str, ...], homeless: tuple[str, ...]
    ) -> Symptoms:
        cause = error.cause if isinstance(error, RayTaskError) else None
        lost_calls = is_unavailable(error) or isinstance(cause, OutOfStepError) or bool(again)
        # An actor that died, and none that is dead: what is gone belonged to one that was replaced long ago.
        lost_objects = isinstance(error, ObjectLostError) or (is_death(error) and not dead)
        used = self.carried
        return Symptoms(dead, lost_calls, lost_objects, used.failures, homeless, used.preemptions)

    def _count(self, homeless: tuple[str, ...]) -> None:
        used = self.carried
        if homeless:
            self.carried = replace(used, preemptions=used.preemptions + 1)
        else:
            self.carried = replace(used, failures=used.failures + 1)

    def _count_in_vain(self, finished: int, done: dict[str, int | None], changes: bool, cause: str) -> None:
        """Lost where the same calls were made over and over and nothing has come of it: they would be for ever."""
        seen = finished, done
        self._in_vain = self._in_vain + 1 if seen == self._seen and not changes else 0
        self._seen = seen
        if self._in_vain >= MOST_IN_VAIN:
            self._in_vain = 0
            raise ReplayImpossible(f"calls were made {MOST_IN_VAIN} times and nothing came of it ({cause})", ())

    def _cause(self, error: RayError, homeless: tuple[str, ...]) -> str:
        if homeless:
            return f"the machine of {', '.join(homeless)} is gone or cannot be reached"
        return first_line(error)

    def _end_homeless(self) -> tuple[str, ...]:
        """Ends the actors on machines that are gone: what waits for them would wait until Ray has noticed as well."""
        homeless = tuple(self.crew.seats.homeless())
        for name in homeless:
            self.crew.kill(name)
        return homeless

    def _end_idle(self, error: RayError, finished: int, submitted: int) -> None:
        """Ends who keeps the others waiting."""
        if isinstance(error, GetTimeoutError):
            self._end_stuck(finished, submitted)
        elif isinstance(error, RayTaskError) and isinstance(error.cause, GroupBrokenError):
            self._end_silent_replicas(finished, submitted)

    def _end_stuck(self, finished: int, submitted: int) -> None:
        """Ends the actor that keeps the oldest step from being finished: the first that has all it needs."""
        step = min(finished, submitted - 1)
        refs = self.ledger.steps[step]
        for call in self.ledger.program:
            for member in self.crew.groups[call.stage] if call.kind == "step" else ():
                if not is_ready(refs.metrics[member.name]):
                    self.crew.kill(member.name if is_ready(refs.images) else self.crew.reader_of(step))
                    return

    def _end_silent_replicas(self, finished: int, submitted: int) -> None:
        """Ends the replicas that have given nothing for a step for which others of their group have waited in vain.

        Asking them would not do: their queues may wait for results that depend on the very step that hangs.
        """
        for group in [group for group in self.crew.groups.values() if len(group) > 1]:
            for step in range(finished, submitted):
                refs = {member.name: self.ledger.steps[step].metrics[member.name] for member in group}
                if any(is_broken_group(ref) for ref in refs.values()):
                    ray.wait(list(refs.values()), num_returns=len(refs), timeout=self.settings.replica_timeout_s)
                    for name in [name for name, ref in refs.items() if not is_ready(ref)]:
                        self.crew.kill(name)
                    break

    def _done_steps(self) -> dict[str, int | None]:
        """How many steps every actor has done, once it has gone through its queue; None for the dead."""
        asks = {name: actor.done.remote for name, actor in self.crew.actors.items()}
        asks |= {name: reader.ready.remote for name, reader in self.crew.readers.items()}
        first = {name: ask() for name, ask in asks.items()}  # all at once: each waits for its queue
        return {name: self._done(name, iter([first[name]]), ask) for name, ask in asks.items()}

    def _done(self, name: str, first: Iterator[Any], ask: Callable[[], Any]) -> int | None:
        """The answer ``first``, or that to the same question again where it was lost."""
        try:
            (steps,) = retry_lost_calls(
                [lambda: next(first, None) or ask()], lambda refs: self._wait(refs, ANSWER_TIMEOUT_S)
            )
            return int(steps)
        except ActorUnavailableError:
            self.crew.kill(name)
            return None
        except RayActorError:
            return None
        except GetTimeoutError as error:
            raise RunError(
                f"{name} has not answered for {ANSWER_TIMEOUT_S:g} s after a failure; run the same command again"
            ) from error

    def _to_do_again(self, dead: tuple[str, ...], done: dict[str, int | None], submitted: int) -> tuple[str, ...]:
        """Living stages that go back to the snapshot: with their group, by a lost reply, or by a failed recovery."""
        found = self._left_alone(dead) | self._unheard(done, submitted) | self._reviving
        for group in self.crew.groups.values():
            names = {member.name for member in group}
            found |= names if names & found else set()
        return tuple(member.name for member in self.crew.members if member.name in found - {*dead})

    def _left_alone(self, dead: tuple[str, ...]) -> set[str]:
        """Living replicas whose group has broken, or has lost a member: a step may have been applied in some alone."""
        found: set[str] = set()
        for group in self.crew.groups.values():
            living = [member.name for member in group if member.name not in dead]
            if len(group) > 1 and living:
                asked = [self.crew.actors[name].has_lost_others.remote() for name in living]
                if len(living) < len(group) or any(self._wait(asked, ANSWER_TIMEOUT_S)):
                    found |= set(living)
        return found

    def _unheard(self, done: dict[str, int | None], submitted: int) -> set[str]:
        """Living stages that have done a step of which no results have come: the reply was lost, not the call.

        Of finished steps as well: a stage that has done them once more has given new results, and others that go back
        to the snapshot take those.

        Raises:
            Lost: so was the reply to a save of before the last snapshot: there is no state to make it of.

        """
        found = {
            member.name
            for step in range(self.ledger.snapshot.step, submitted)
            for member in self.crew.members
            if step < (done[member.name] or 0)
            and any(not is_there(ref) for ref in self.ledger.steps[step].made_by(member))
        }
        if self.ledger.lost_gradients():
            found |= {member.name for member in self.crew.groups[IMAGE_STAGE]}
        for save in self.ledger.saves:
            lost = {name for name, ref in save.by_actor.items() if is_ready(ref) and is_unavailable(error_of(ref))}
            if lost and save.step < self.ledger.snapshot.step:
                raise ReplayImpossible(f"a reply of {', '.join(sorted(lost))} was lost", tuple(sorted(lost)))
            found |= {name for name in lost if done[name] is not None}
        return found

    def _batch_is_lost(self, step: int) -> bool:
        """Whether the reader's reply was lost; it reads the same again."""
        images = self.ledger.steps[step].images
        return is_ready(images) and error_of(images) is not None

    def _damaged_step(self) -> int | None:
        """The first step of whose batch there is nothing but the account of images that are damaged for good."""
        return next((step for step, refs in sorted(self.ledger.steps.items()) if damage_in(refs.images)), None)

    # -- what is done about it -------------------------------------------------------------------

    def _leave_out(self, step: int, done: dict[str, int | None]) -> None:
        """Puts the damaged images of ``step`` into quarantine and has all readers know it.

        No batch from that step on has been trained on, so all of them can be had anew without these images.

        Raises:
            Lost: it has: the images were whole when it was read first.
            RunError: they are too many.

        """
        found = damage_in(self.ledger.steps[step].images)
        if any(steps is not None and steps > step for name, steps in done.items() if name not in self.crew.readers):
            raise ReplayImpossible(
                f"images of step {step}, which is to be done again, have been damaged since ({found[0].reason})", ()
            )
        if self.crew.source.quarantine is not None:
            self.crew.source.quarantine.add(found, self.crew.source.index.sample_count)
        asks = [partial(reader.leave_out.remote, found) for reader in self.crew.readers.values()]
        retry_lost_calls(asks, lambda refs: self._wait(refs, ANSWER_TIMEOUT_S))

    def _revive(self, dead: tuple[str, ...], again: tuple[str, ...]) -> None:
        """New actors for ``dead``; they and those in ``again`` get the state of the last snapshot or of the start."""
        for name in self.crew.readers.keys() & dead:
            self.crew.renew_reader(name)
        point = self.ledger.snapshot
        lost = [member for member in self.crew.members if member.name in dead]
        anew = [member for member in self.crew.members if member.name in {*dead, *again}]
        ready = [self.crew.seat(member) for member in lost]
        ready += [  # a state of the start has no other way to be had; and that call may be what was lost the last time
            self.crew.build(member)
            for member in anew
            if member not in lost and (not point.by_actor or member.name in self._reviving)
        ]
        if point.by_actor:
            ready += [self.crew.actors[m.name].restore.remote(point.by_actor[m.name]) for m in anew]
        elif self.restore is not None:
            arguments = (self.restore.root_url, self.restore.records, self.restore.step)
            ready += [self.crew.actors[member.name].load.remote(*arguments) for member in anew]
        self._reviving = {member.name for member in anew}
        try:
            self._wait(ready, None)  # first: a group waits for its members no longer than its timeout
            self._wait(self.crew.form_groups({member.stage for member in anew}), None)
        except RayTaskError as error:
            if isinstance(error.cause, SnapshotLostError):
                raise ReplayImpossible(f"inputs to replay are gone ({error.cause})", dead) from error
            raise
        self._reviving = set()
        if IMAGE_STAGE in {member.name for member in anew}:
            self.ledger.remember_gradients(self.ledger.lost_gradients())
        self.ledger.write_again(point.step, {member.name for member in anew})
