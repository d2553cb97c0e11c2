"""One Ray actor per GAN, chained through the object store.

The coordinator submits every call of a step in the order of the chain and owns every reference; Ray's
argument dependencies make the chain a pipeline in which GAN i trains on batch t while GAN i - 1 trains on
batch t + 1. An actor runs its calls in the order of submission, so every stage sees exactly the sequence
that the inline executor gives it. Only sub-images and uint8 batches travel.

References of the steps since the last snapshot are kept. When an actor dies, a new one takes its stage's snapshot and
the same calls with the same references; all other stages keep their state and get only the calls that did not reach
them. Steps are pure functions, so the result is that of a run without failures.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)

from cluster.actors import EvaluationActor, IngestActor, StageActor
from cluster.executors import Restore, RollBackError, kept_steps, watched
from cluster.failures import Recovery, Symptoms, decide
from cluster.files import FileRecord
from cluster.host import OutOfStepError
from cluster.members import Member, members_of
from cluster.program import Call, step_program
from cluster.ray_seats import RaySeats
from cluster.ray_start import connect
from cluster.replica_group import GroupBrokenError
from cluster.settings import RunSettings
from cluster.snapshots import SnapshotLostError
from cluster.source import DataSource
from cluster.watching import ScoreValues
from freqgan.critic import Metrics
from freqgan.errors import FreqganError, RunError
from freqgan.image_stage import IMAGE_STAGE

START_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 600.0
CLOSE_TIMEOUT_S = 5.0
ALIVE_TIMEOUT_S = 1.0
LOOK_EVERY_S = 2.0
INGEST = "ingest"
Result = TypeVar("Result")


@dataclass
class StepRefs:
    """References to everything that one step makes, by who makes it.

    ``outputs`` by (GAN, pass) and replica, ``metrics`` by actor, ``gradients`` by GAN.
    """

    images: Any
    labels: Any
    outputs: dict[tuple[str, int], dict[int, Any]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Any] = field(default_factory=dict)


@dataclass
class PointRefs:
    """What every actor gives after ``step`` steps, or references to it: the path of a snapshot, records of a save."""

    step: int
    by_actor: dict[str, Any]
    folder_url: str = ""


class RayExecutor:
    """See the module.

    Args:
        settings: of the run.
        source: the shards.
        statistics: of the bands, by name.
        restore: state to begin from, or None for a new run.
        address: of a running cluster, "auto" for the one this process is part of; None starts one here, on loopback.

    """

    def __init__(
        self,
        settings: RunSettings,
        source: DataSource,
        statistics: dict[str, NDArray[np.float32]],
        restore: Restore | None,
        address: str | None = None,
    ) -> None:
        self.settings, self.source, self.restore = settings, source, restore
        self.plan = settings.band_plan()
        self.program = step_program(self.plan)
        self.members = members_of(settings)
        self._generation = 0
        self._reviving: set[str] = set()
        self.receivers = [gan.name for gan in self.plan.gans] if settings.feeds_back else []
        self.recoveries: deque[Recovery] = deque()
        self.failures = 0
        self._owns_ray = connect(settings, address)
        self._scorer: Any = None
        self._submitted = self._finished = 0 if restore is None else restore.step
        self._log: dict[int, StepRefs] = {}
        self._kept_gradients: dict[int, dict[str, Any]] = {}
        self._snapshot = PointRefs(self._submitted, {})
        self._taking: deque[PointRefs] = deque()
        self._saves: deque[PointRefs] = deque()
        self.seats = RaySeats(settings)
        self._dump, self._statistics = settings.model_dump(mode="json"), ray.put(statistics)
        self.ingest: Any = self._ingest_actor()
        self.actors: dict[str, Any] = {}
        self._spare: Any = None
        self._built = {member.name: self._actor(member) for member in self._all_members()}
        self._start()

    @property
    def window(self) -> int:
        """As set: beyond it, finished sub-images would pile up in the object store."""
        return self.settings.window

    def submit(self, step: int) -> None:
        """Submits every call of ``step``; returns at once."""
        self._log[step] = StepRefs(*self.ingest.batch.options(num_returns=2).remote(step))
        self._call(step, self.actors)
        self._submitted = step + 1
        if self._submitted % self.settings.snapshot_every == 0:
            refs = {name: actor.snapshot.remote(self._submitted) for name, actor in self.actors.items()}
            self._taking.append(PointRefs(self._submitted, refs))

    def finish(self) -> dict[str, Metrics]:
        """Waits for every stage of the oldest step, through failures; only metrics come here."""
        step = self._finished
        values = self._collect(lambda: list(self._log[step].metrics.values()), self.settings.step_deadline_s)
        by_actor = dict(zip(self._log[step].metrics, values, strict=True))
        self._finished += 1
        self._settle_snapshots()
        return {stage: by_actor[stage] for stage in self.members}  # replicas' are the same

    def save(self, step: int, folder_url: str) -> None:
        """Queues a save behind the steps already submitted; the pipeline is not drained."""
        refs = {name: actor.save.remote(step, folder_url) for name, actor in self.actors.items()}
        self._saves.append(PointRefs(step, refs, folder_url))

    def saved(self) -> list[FileRecord]:
        """Waits for the oldest save, through failures."""
        found = self._collect(lambda: list(self._saves[0].by_actor.values()), deadline_s=None)  # storage has its own
        self._saves.popleft()
        return [record for records in found for record in records]

    def score(self, step: int) -> Future[ScoreValues]:
        """In an actor of its own, started for the first score."""
        if self._scorer is None:
            self._scorer = ray.remote(EvaluationActor).options(num_cpus=0).remote()
        ref = self._scorer.score.remote(self.settings.run, step, *watched(self.settings))
        future: Future[ScoreValues] = ref.future()
        return future

    def close(self) -> None:
        """Ends the actors; and Ray itself where this executor started it."""
        if ray.is_initialized():
            gone = [actor.delete_snapshots.remote() for actor in self.actors.values()]
            ray.wait(gone, num_returns=len(gone), timeout=CLOSE_TIMEOUT_S) if gone else None
            for actor in [*self.actors.values(), self.ingest, *filter(None, [self._scorer, self._spare])]:
                ray.kill(actor)
            self.actors = {}
            self.seats.close()
            if self._owns_ray:
                ray.shutdown()

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, step: int, actors: Collection[str]) -> None:
        """Submits the calls of ``step`` that belong to ``actors``, with the references that there are."""
        refs = self._log[step]
        told = self._told(step - self.settings.feedback.lag)
        for call in self.program:
            for member in self.members[call.stage]:
                if member.name in actors:
                    self._call_member(step, call, member, refs, told)

    def _call_member(self, step: int, call: Call, member: Member, refs: StepRefs, told: dict[str, Any]) -> None:
        parts = [(name, part) for name, number in call.inputs for _, part in sorted(refs.outputs[name, number].items())]
        names, inputs = [name for name, _ in parts], [part for _, part in parts]
        actor = self.actors[member.name]
        made_here = refs.outputs.setdefault((call.stage, call.pass_number), {})
        if call.kind == "forward":
            made_here[member.index] = actor.forward.remote(step, names, refs.labels, *inputs)
            return
        receivers = self.receivers if call.stage == IMAGE_STAGE else [call.stage]
        arguments = (step, names, refs.images, refs.labels, told.get(call.stage), *inputs)
        returned = actor.step.options(num_returns=1 + len(receivers)).remote(*arguments)
        refs.metrics[member.name], *made = returned if receivers else [returned]
        if call.stage == IMAGE_STAGE:
            refs.gradients = dict(zip(receivers, made, strict=True))
        else:
            made_here[member.index] = made[0]

    def _told(self, step: int) -> dict[str, Any]:
        """What the image stage said at ``step``, by GAN."""
        return self._log[step].gradients if step in self._log else self._kept_gradients.get(step, {})

    def _settle_snapshots(self) -> None:
        """The newest snapshot that all stages have given becomes the one to begin again from; older steps go."""
        while self._taking and self._taking[0].step <= self._finished:
            taken = self._taking.popleft()
            try:
                paths = ray.get(list(taken.by_actor.values()), timeout=ANSWER_TIMEOUT_S)
            except RayError:
                continue  # a stage died after that step; the snapshot before it still stands
            self._snapshot = PointRefs(taken.step, dict(zip(taken.by_actor, paths, strict=True)))
            self._keep_a_spare()
        oldest = self._snapshot.step - self.settings.feedback.lag
        for step in [step for step in self._log if step < min(oldest, self._finished)]:
            del self._log[step]
        for step in [step for step in self._kept_gradients if step < oldest]:
            del self._kept_gradients[step]

    # -- failures ------------------------------------------------------------------------------

    def _collect(self, refs: Callable[[], list[Any]], deadline_s: float | None) -> list[Any]:
        """The values of ``refs()``; when something failed, what was lost is done again first."""
        while True:
            failure: RayError | None
            try:
                return _values(refs(), deadline_s)
            except GetTimeoutError as error:
                self._end_stuck()
                failure = error
            except RayError as error:
                failure = error
            while failure is not None:
                try:
                    self._recover(failure)
                    failure = None
                except RayError as another:  # something else died meanwhile
                    failure = another

    def _end_stuck(self) -> None:
        """Kills the actor that keeps the oldest step from being finished: the first that has all it needs."""
        refs = self._log[min(self._finished, self._submitted - 1)]
        for call in self.program:
            for member in self.members[call.stage] if call.kind == "step" else ():
                if not _is_ready(refs.metrics[member.name]):
                    ray.kill(self.actors[member.name] if _is_ready(refs.images) else self.ingest)
                    return

    def _recover(self, error: RayError) -> None:
        """Replays what ``error`` has cost, or raises what the user is to read."""
        begun_s = time.monotonic()
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, GroupBrokenError):
            self._end_silent()
        done = self._done_steps()
        dead = tuple(name for name, steps in done.items() if steps is None)
        alone = self._left_alone(dead)
        alone += tuple(name for name in self._reviving if name not in {*dead, *alone})
        lost_calls = isinstance(error, ActorUnavailableError) or isinstance(cause, OutOfStepError) or bool(alone)
        # An actor that died, and none that is dead: what is gone belonged to one that was replaced long ago.
        lost_objects = isinstance(error, ObjectLostError) or (_is_death(error) and not dead)
        decision = decide(Symptoms(dead, lost_calls, lost_objects, self.failures), self.settings.max_failures)
        if decision == "fail":
            _raise(error)
        self.failures += 1
        if decision == "roll back":
            raise self._roll_back(f"inputs to replay are gone ({_first_line(error)})", dead) from error
        base = self._snapshot.step
        self._revive(dead, alone)
        anew = {*dead, *alone} - {INGEST}
        positions = {name: base if name in anew else steps or 0 for name, steps in done.items() if name != INGEST}
        for step in range(min(positions.values()), self._submitted):
            self._call_again(step, {name for name, position in positions.items() if step >= position}, INGEST in dead)
        self.recoveries.append(
            Recovery(
                step=self._finished,
                stages=dead,
                cause=_first_line(error),
                decision=decision,
                from_step=base if anew else self._finished,
                steps=self._submitted - base if anew else 0,
                seconds=time.monotonic() - begun_s,
            )
        )

    def _roll_back(self, cause: str, dead: tuple[str, ...]) -> RollBackError:
        return RollBackError(cause, self.failures, self._finished, dead)

    def _end_silent(self) -> None:
        """Kills the replicas that have given nothing for a step for which others of their group have waited in vain.

        Asking them would not do: their queues may wait for results that depend on the very step that hangs.
        """
        for group in [group for group in self.members.values() if len(group) > 1]:
            for step in range(self._finished, self._submitted):
                refs = {member.name: self._log[step].metrics[member.name] for member in group}
                if any(_is_broken_group(ref) for ref in refs.values()):
                    ray.wait(list(refs.values()), num_returns=len(refs), timeout=self.settings.replica_timeout_s)
                    for name in [name for name, ref in refs.items() if not _is_ready(ref)]:
                        ray.kill(self.actors[name])
                    break

    def _done_steps(self) -> dict[str, int | None]:
        """How many steps every actor has done, once it has gone through its queue; None for the dead."""
        refs = {name: actor.done.remote() for name, actor in self.actors.items()} | {INGEST: self.ingest.ready.remote()}
        found: dict[str, int | None] = {}
        for name, ref in refs.items():
            try:
                found[name] = int(ray.get(ref, timeout=ANSWER_TIMEOUT_S))
            except RayActorError:
                found[name] = None
            except GetTimeoutError as error:
                raise RunError(
                    f"{name} has not answered for {ANSWER_TIMEOUT_S:g} s after a failure; run the same command again"
                ) from error
        return found

    def _left_alone(self, dead: tuple[str, ...]) -> tuple[str, ...]:
        """Living replicas whose group has broken, or has lost a member: a step may have been applied in some alone."""
        found: list[str] = []
        for group in self.members.values():
            living = [member.name for member in group if member.name not in dead]
            if len(group) > 1 and living:
                asked = [self.actors[name].has_lost_others.remote() for name in living]
                if len(living) < len(group) or any(ray.get(asked)):
                    found += living
        return tuple(found)

    def _revive(self, dead: tuple[str, ...], alone: tuple[str, ...]) -> None:
        """New actors for ``dead``; they and those left ``alone`` get the state of the last snapshot or of the start."""
        if INGEST in dead:
            self.ingest = self._ingest_actor()
        lost = [member for member in self._all_members() if member.name in dead]
        moved = self.seats.replace([member.name for member in lost])
        if moved and self._snapshot.by_actor:
            raise self._roll_back(f"the machine of {', '.join(moved)} is gone, and its snapshots with it", dead)
        anew = [member for member in self._all_members() if member.name in {*dead, *alone}]
        ready = [self._actor(member) for member in lost]
        if alone and not self._snapshot.by_actor:
            ready += [self._built_again(member) for member in anew if member not in lost]
        if self._snapshot.by_actor:
            ready += [self.actors[m.name].restore.remote(self._snapshot.by_actor[m.name]) for m in anew]
        elif self.restore is not None:
            arguments = (self.restore.folder_url, self.restore.records, self.restore.step)
            ready += [self.actors[member.name].load.remote(*arguments) for member in anew]
        ready += self._formed({member.stage for member in anew})
        self._reviving = {member.name for member in anew}
        try:
            ray.get(ready)
        except RayTaskError as error:
            if isinstance(error.cause, SnapshotLostError):
                raise self._roll_back(str(error.cause), dead) from error
            raise
        self._reviving = set()
        self._write_again(self._snapshot.step, {member.name for member in anew})

    def _formed(self, stages: Collection[str]) -> list[Any]:
        """References to wait for: a new generation of the group of each of ``stages`` that has several replicas."""
        refs = []
        for stage in stages:
            group = self.members[stage]
            if len(group) > 1:
                self._generation += 1
                meeting = self.actors[group[0].name].open_store.remote(self._generation)
                refs += [self.actors[member.name].join.remote(meeting) for member in group]
        return refs

    def _call_again(self, step: int, actors: set[str], batch: bool) -> None:
        """What was to happen at ``step`` in ``actors``, in the same order: batch, calls, snapshot, save."""
        if batch:
            refs = self._log[step]
            refs.images, refs.labels = self.ingest.batch.options(num_returns=2).remote(step)
        self._call(step, actors)
        for taking in self._taking:
            if taking.step == step + 1:
                taking.by_actor |= {name: self.actors[name].snapshot.remote(taking.step) for name in actors}
        self._write_again(step + 1, actors)

    def _write_again(self, step: int, actors: set[str]) -> None:
        """The save that was to be made after ``step`` steps, if there is one that is not collected yet."""
        for save in self._saves:
            if save.step == step:
                url = save.folder_url
                save.by_actor |= {name: self.actors[name].save.remote(step, url) for name in actors}

    # -- starting ------------------------------------------------------------------------------

    def _ingest_actor(self) -> Any:
        return ray.remote(IngestActor).options(num_cpus=0).remote(self.source)

    def _all_members(self) -> list[Member]:
        return [member for group in self.members.values() for member in group]

    def _actor(self, member: Member) -> Any:
        """Makes an actor that member, the spare one if it is in the right place; a reference to wait for."""
        seat = self.seats.by_actor[member.name]
        spare, fits = self._spare, seat.gpu is None and seat.node_id == self.seats.spare_node
        if spare is not None and fits and _lives(spare):
            actor, self._spare = spare, None
        else:
            actor = self._stage_actor(self.seats.options(member.name))
        self.actors[member.name] = actor
        return self._built_again(member)

    def _built_again(self, member: Member) -> Any:
        """Makes an actor that is there the stage as it is at the very start; a reference to wait for."""
        return self.actors[member.name].build.remote(self._dump, member, self._statistics)

    def _stage_actor(self, options: dict[str, Any]) -> Any:
        # No retries: a retried step would run on a fresh, untrained actor.
        return ray.remote(StageActor).options(num_cpus=0, max_restarts=0, max_task_retries=0, **options).remote()

    def _keep_a_spare(self) -> None:
        """One actor that has imported everything and waits: to start one takes longer than most replays.

        On a machine without GPUs only: a GPU would have to be held for it.
        """
        node_id = self.seats.spare_node
        if self._spare is None and self.settings.max_failures != 0 and node_id is not None:
            self._spare = self._stage_actor(self.seats.spare_options(node_id))

    def _start(self) -> None:
        ready = list(self._built.values())
        _, late = _translated(lambda: ray.wait(ready, num_returns=len(ready), timeout=START_TIMEOUT_S))
        if late:
            raise RunError(
                f"{len(late)} of {len(ready)} actors did not start within {START_TIMEOUT_S:g} s; the cluster offers "
                f"{ray.cluster_resources()}: add nodes, or train fewer GANs (plan.bands)"
            )
        self._wait(ready)
        restore = self.restore
        if restore is not None:
            arguments = (restore.folder_url, restore.records, restore.step)
            self._wait([actor.load.remote(*arguments) for actor in self.actors.values()])
        self._wait(self._formed(self.members))
        for step in kept_steps(self.settings, restore):
            refs = self.actors[IMAGE_STAGE].gradients.options(num_returns=len(self.receivers)).remote(step)
            told = dict(zip(self.receivers, refs if len(self.receivers) > 1 else [refs], strict=True))
            self._kept_gradients[step] = told

    def _wait(self, refs: list[Any]) -> list[Any]:
        return _translated(lambda: ray.get(refs))


def _values(refs: list[Any], deadline_s: float | None) -> list[Any]:
    """What ``refs`` stand for; an error among them is raised although others may never come.

    Raises:
        GetTimeoutError: they are not there after ``deadline_s``.

    """
    end_s = None if deadline_s is None else time.monotonic() + deadline_s
    while True:
        left_s = LOOK_EVERY_S if end_s is None else min(LOOK_EVERY_S, max(0.0, end_s - time.monotonic()))
        ready, waiting = ray.wait(refs, num_returns=len(refs), timeout=left_s)
        if not waiting:
            return list(ray.get(refs))
        ray.get(ready)
        if end_s is not None and time.monotonic() >= end_s:
            raise GetTimeoutError(f"{len(waiting)} results are not there after {deadline_s:g} s")


def _translated(action: Callable[[], Result]) -> Result:
    """What ``action`` returns; Ray's errors as ours, with what happened inside the actor in front."""
    try:
        return action()
    except RayError as error:
        _raise(error)


def _raise(error: RayError) -> NoReturn:
    """Ray's error as ours."""
    if isinstance(error, RayTaskError):
        if isinstance(error.cause, FreqganError):
            raise error.cause from error
        raise RunError(f"a stage failed: {error.cause or error}; its traceback is in Ray's logs") from error
    if isinstance(error, RayActorError):
        raise RunError(
            f"an actor died: {_first_line(error)}; run the same command again to resume from its checkpoint"
        ) from error
    raise RunError(f"Ray failed: {_first_line(error)}; run the same command again to resume") from error


def _lives(actor: Any) -> bool:
    """Whether an actor answers, or is only slow to."""
    try:
        ray.get(actor.pid.remote(), timeout=ALIVE_TIMEOUT_S)
    except GetTimeoutError:
        return True
    except RayActorError:
        return False
    return True


def _is_ready(ref: Any) -> bool:
    """Whether there is a result, be it an error."""
    return bool(ray.wait([ref], timeout=0, fetch_local=False)[0])


def _is_broken_group(ref: Any) -> bool:
    """Whether there is a result, and it is that other replicas could not be reached."""
    try:
        if _is_ready(ref):
            ray.get(ref, timeout=0)
    except RayTaskError as error:
        return isinstance(error.cause, GroupBrokenError)
    except RayError:
        return False
    return False


def _is_death(error: RayError) -> bool:
    """Whether an actor died, be it that of the call or one that the call's arguments come from."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, RayActorError) and not isinstance(cause, ActorUnavailableError)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
