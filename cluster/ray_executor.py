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
from typing import Any

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

from cluster.actors import EvaluationActor
from cluster.coordinator import RATE_SPAN_STEPS
from cluster.executors import Restore, RollBackError, kept_steps, watched
from cluster.failures import Recovery, Symptoms, decide
from cluster.files import FileRecord
from cluster.host import OutOfStepError
from cluster.members import Member
from cluster.program import Call, step_program
from cluster.ray_crew import INGEST, Crew
from cluster.ray_results import (
    first_line,
    is_broken_group,
    is_death,
    is_ready,
    raise_as_ours,
    translated,
    values_of,
)
from cluster.ray_start import connect
from cluster.replica_group import GroupBrokenError
from cluster.settings import RunSettings
from cluster.snapshots import SnapshotLostError
from cluster.source import DataSource
from cluster.telemetry import RunTelemetry
from cluster.watching import ScoreValues
from freqgan.critic import Metrics
from freqgan.errors import RunError
from freqgan.image_stage import IMAGE_STAGE

ANSWER_TIMEOUT_S = 600.0
CLOSE_TIMEOUT_S = 5.0


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
        self.settings, self.restore = settings, restore
        self.plan = settings.band_plan()
        self.program = step_program(self.plan)
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
        self._telemetry = RunTelemetry(settings.run)
        self._last_commit_s = time.monotonic()
        self._finished_at_s = deque([time.monotonic()], maxlen=RATE_SPAN_STEPS + 1)
        self.crew = Crew(settings, source, statistics)
        self._start()

    @property
    def window(self) -> int:
        """As set: beyond it, finished sub-images would pile up in the object store."""
        return self.settings.window

    def submit(self, step: int) -> None:
        """Submits every call of ``step``; returns at once."""
        self._log[step] = StepRefs(*self.crew.ingest.batch.options(num_returns=2).remote(step))
        self._call(step, self.crew.actors)
        self._submitted = step + 1
        if self._submitted % self.settings.snapshot_every == 0:
            refs = {name: actor.snapshot.remote(self._submitted) for name, actor in self.crew.actors.items()}
            self._taking.append(PointRefs(self._submitted, refs))

    def finish(self) -> dict[str, Metrics]:
        """Waits for every stage of the oldest step, through failures; only metrics come here."""
        step = self._finished
        values = self._collect(lambda: list(self._log[step].metrics.values()), self.settings.step_deadline_s)
        by_actor = dict(zip(self._log[step].metrics, values, strict=True))
        self._finished += 1
        self._settle_snapshots()
        self._tell()
        return {stage: by_actor[stage] for stage in self.crew.groups}  # replicas' are the same

    def save(self, step: int, folder_url: str) -> None:
        """Queues a save behind the steps already submitted; stages only hand over their state, others write it."""
        self._saves.append(PointRefs(step, self._written(step, folder_url, self.crew.actors), folder_url))

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """The oldest save, through failures."""
        if not wait and not all(is_ready(ref) for ref in self._saves[0].by_actor.values()):
            return None
        found = self._collect(lambda: list(self._saves[0].by_actor.values()), deadline_s=None)  # storage has its own
        self._saves.popleft()
        self._last_commit_s = time.monotonic()
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
            gone = [actor.delete_snapshots.remote() for actor in self.crew.actors.values()]
            ray.wait(gone, num_returns=len(gone), timeout=CLOSE_TIMEOUT_S) if gone else None
            if self._scorer is not None:
                ray.kill(self._scorer)
            self.crew.end()
            if self._owns_ray:
                ray.shutdown()

    def _tell(self) -> None:
        """What Prometheus is told after every step."""
        now_s = time.monotonic()
        self._finished_at_s.append(now_s)
        span_s, first = now_s - self._finished_at_s[0], next(iter(self.crew.groups))
        ahead = 0
        while self._finished + ahead < self._submitted and is_ready(self._log[self._finished + ahead].metrics[first]):
            ahead += 1
        self._telemetry.set(
            images_per_s=self.settings.batch * (len(self._finished_at_s) - 1) / max(span_s, 1e-9),
            in_flight=self._submitted - self._finished,
            checkpoint_age_s=now_s - self._last_commit_s,
            lag_steps=ahead,
        )

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, step: int, actors: Collection[str]) -> None:
        """Submits the calls of ``step`` that belong to ``actors``, with the references that there are."""
        refs = self._log[step]
        told = self._told(step - self.settings.feedback.lag)
        for call in self.program:
            for member in self.crew.groups[call.stage]:
                if member.name in actors:
                    self._call_member(step, call, member, refs, told)

    def _call_member(self, step: int, call: Call, member: Member, refs: StepRefs, told: dict[str, Any]) -> None:
        parts = [(name, part) for name, number in call.inputs for _, part in sorted(refs.outputs[name, number].items())]
        names, inputs = [name for name, _ in parts], [part for _, part in parts]
        actor = self.crew.actors[member.name]
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
            self.crew.keep_a_spare()
        oldest = self._snapshot.step - self.settings.feedback.lag
        for step in [step for step in self._log if step < min(oldest, self._finished)]:
            del self._log[step]
        for step in [step for step in self._kept_gradients if step < oldest]:
            del self._kept_gradients[step]

    def _start(self) -> None:
        self.crew.start()
        restore, actors = self.restore, self.crew.actors
        if restore is not None:
            arguments = (restore.folder_url, restore.records, restore.step)
            translated(lambda: ray.get([actor.load.remote(*arguments) for actor in actors.values()]))
        translated(lambda: ray.get(self.crew.form_groups(self.crew.groups)))
        for step in kept_steps(self.settings, restore):
            refs = actors[IMAGE_STAGE].gradients.options(num_returns=len(self.receivers)).remote(step)
            told = dict(zip(self.receivers, refs if len(self.receivers) > 1 else [refs], strict=True))
            self._kept_gradients[step] = told

    # -- failures ------------------------------------------------------------------------------

    def _collect(self, refs: Callable[[], list[Any]], deadline_s: float | None) -> list[Any]:
        """The values of ``refs()``; when something failed, what was lost is done again first."""
        while True:
            failure: RayError | None
            try:
                return values_of(refs(), deadline_s)
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
            for member in self.crew.groups[call.stage] if call.kind == "step" else ():
                if not is_ready(refs.metrics[member.name]):
                    ray.kill(self.crew.actors[member.name] if is_ready(refs.images) else self.crew.ingest)
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
        lost_objects = isinstance(error, ObjectLostError) or (is_death(error) and not dead)
        decision = decide(Symptoms(dead, lost_calls, lost_objects, self.failures), self.settings.max_failures)
        if decision == "fail":
            raise_as_ours(error)
        self.failures += 1
        if decision == "roll back":
            raise self._roll_back(f"inputs to replay are gone ({first_line(error)})", dead) from error
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
                cause=first_line(error),
                decision=decision,
                from_step=base if anew else self._finished,
                steps=self._submitted - base if anew else 0,
                seconds=time.monotonic() - begun_s,
            )
        )
        self._telemetry.recovered(dead)

    def _roll_back(self, cause: str, dead: tuple[str, ...]) -> RollBackError:
        return RollBackError(cause, self.failures, self._finished, dead)

    def _end_silent(self) -> None:
        """Kills the replicas that have given nothing for a step for which others of their group have waited in vain.

        Asking them would not do: their queues may wait for results that depend on the very step that hangs.
        """
        for group in [group for group in self.crew.groups.values() if len(group) > 1]:
            for step in range(self._finished, self._submitted):
                refs = {member.name: self._log[step].metrics[member.name] for member in group}
                if any(is_broken_group(ref) for ref in refs.values()):
                    ray.wait(list(refs.values()), num_returns=len(refs), timeout=self.settings.replica_timeout_s)
                    for name in [name for name, ref in refs.items() if not is_ready(ref)]:
                        ray.kill(self.crew.actors[name])
                    break

    def _done_steps(self) -> dict[str, int | None]:
        """How many steps every actor has done, once it has gone through its queue; None for the dead."""
        refs = {name: actor.done.remote() for name, actor in self.crew.actors.items()}
        refs[INGEST] = self.crew.ingest.ready.remote()
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
        for group in self.crew.groups.values():
            living = [member.name for member in group if member.name not in dead]
            if len(group) > 1 and living:
                asked = [self.crew.actors[name].has_lost_others.remote() for name in living]
                if len(living) < len(group) or any(ray.get(asked)):
                    found += living
        return tuple(found)

    def _revive(self, dead: tuple[str, ...], alone: tuple[str, ...]) -> None:
        """New actors for ``dead``; they and those left ``alone`` get the state of the last snapshot or of the start."""
        if INGEST in dead:
            self.crew.renew_ingest()
        lost = [member for member in self.crew.members if member.name in dead]
        moved = self.crew.seats.replace([member.name for member in lost])
        if moved and self._snapshot.by_actor:
            raise self._roll_back(f"the machine of {', '.join(moved)} is gone, and its snapshots with it", dead)
        anew = [member for member in self.crew.members if member.name in {*dead, *alone}]
        ready = [self.crew.seat(member) for member in lost]
        if alone and not self._snapshot.by_actor:
            ready += [self.crew.build(member) for member in anew if member not in lost]
        if self._snapshot.by_actor:
            ready += [self.crew.actors[m.name].restore.remote(self._snapshot.by_actor[m.name]) for m in anew]
        elif self.restore is not None:
            arguments = (self.restore.folder_url, self.restore.records, self.restore.step)
            ready += [self.crew.actors[member.name].load.remote(*arguments) for member in anew]
        ready += self.crew.form_groups({member.stage for member in anew})
        self._reviving = {member.name for member in anew}
        try:
            ray.get(ready)
        except RayTaskError as error:
            if isinstance(error.cause, SnapshotLostError):
                raise self._roll_back(str(error.cause), dead) from error
            raise
        self._reviving = set()
        self._write_again(self._snapshot.step, {member.name for member in anew})

    def _call_again(self, step: int, actors: set[str], batch: bool) -> None:
        """What was to happen at ``step`` in ``actors``, in the same order: batch, calls, snapshot, save."""
        if batch:
            refs = self._log[step]
            refs.images, refs.labels = self.crew.ingest.batch.options(num_returns=2).remote(step)
        self._call(step, actors)
        for taking in self._taking:
            if taking.step == step + 1:
                taking.by_actor |= {name: self.crew.actors[name].snapshot.remote(taking.step) for name in actors}
        self._write_again(step + 1, actors)

    def _write_again(self, step: int, actors: set[str]) -> None:
        """The save that was to be made after ``step`` steps, if there is one that is not collected yet."""
        for save in self._saves:
            if save.step == step:
                save.by_actor |= self._written(step, save.folder_url, actors)

    def _written(self, step: int, folder_url: str, actors: Collection[str]) -> dict[str, Any]:
        """References to the records of what ``actors`` have to save after ``step`` steps."""
        packed = {name: self.crew.actors[name].pack.remote(step) for name in actors}
        return {name: self.crew.upload(name, folder_url, files) for name, files in packed.items()}
