"""The references of a run: which calls were made at every step, and what is needed to make them again.

References of the steps since the last snapshot are kept. Their owner is the process that submits the calls, so what a
dead actor has returned is still there for those that come after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from cluster.ray_engine.results import error_of, is_death, is_ready, is_unavailable
from cluster.ray_engine.worker_group import WorkerGroup
from cluster.run.settings import RunSettings
from cluster.stages.replicas import StageReplica
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.model.step_graph import StageCall, step_graph


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

    def made_by(self, member: StageReplica) -> list[Any]:
        """References to what an actor has given, in any pass: all of one call come together or not at all."""
        parts = [
            made[member.index] for (s, _), made in self.outputs.items() if s == member.stage and member.index in made
        ]
        return [*parts, *(ref for name, ref in self.metrics.items() if name == member.name)]


@dataclass
class StateRefs:
    """What every actor gives after ``step`` steps, or references to it: the path of a snapshot, records of a save.

    ``packed`` are references to the files of a save, which outlive who was to write them; ``attempt`` names the writer.
    """

    step: int
    by_actor: dict[str, Any]
    attempt: str = ""
    packed: dict[str, Any] = field(default_factory=dict)


class ReplayLog:
    """Makes the calls of a run's steps and keeps their references.

    Args:
        settings: of the run.
        crew: its actors.
        first_step: finished steps so far.

    """

    def __init__(self, settings: RunSettings, crew: WorkerGroup, first_step: int) -> None:
        plan = settings.band_plan()
        self.settings, self.crew = settings, crew
        self.program = step_graph(plan)
        self.receivers = [gan.name for gan in plan.gans] if settings.feeds_back else []
        self.steps: dict[int, StepRefs] = {}
        self.kept_gradients: dict[int, dict[str, Any]] = {}
        """Of steps before the first one here: what the image stage has kept of them."""
        self.snapshot = StateRefs(first_step, {})
        """The one to begin again from; of the very start where it names no files."""
        self.taking: deque[StateRefs] = deque()
        self.saves: deque[StateRefs] = deque()

    # -- making calls --------------------------------------------------------------------------

    def open(self, step: int) -> None:
        """Asks for the batch of ``step`` and makes all of its calls."""
        self.steps[step] = StepRefs(*self._batch(step))
        self.call(step, self.crew.actors)

    def call(self, step: int, actors: Collection[str]) -> None:
        """Makes the calls of ``step`` that belong to ``actors``, with the references that there are."""
        refs = self.steps[step]
        told = self._told(step - self.settings.feedback.lag)
        for call in self.program:
            for member in self.crew.groups[call.stage]:
                if member.name in actors:
                    self._call_member(step, call, member, refs, told)

    def call_again(self, step: int, actors: set[str], batch: bool) -> None:
        """What was to happen at ``step`` in ``actors``, in the same order: batch, calls, snapshot, save."""
        if batch:
            refs = self.steps[step]
            refs.images, refs.labels = self._batch(step)
        self.call(step, actors)
        for taking in self.taking:
            if taking.step == step + 1:
                taking.by_actor |= self._snapshots(taking.step, actors)
        self.write_again(step + 1, actors)

    def take_snapshot(self, step: int) -> None:
        """Has every actor write its state after ``step`` steps, behind the calls made so far."""
        self.taking.append(StateRefs(step, self._snapshots(step, self.crew.actors)))

    def save(self, step: int, attempt: str) -> None:
        """Has every actor hand over its state after ``step`` steps to its uploader."""
        save = StateRefs(step, {}, attempt)
        self._write(save, self.crew.actors)
        self.saves.append(save)

    def write_again(self, step: int, actors: Collection[str]) -> None:
        """The save that was to be made after ``step`` steps, if there is one that is not collected yet."""
        for save in self.saves:
            if save.step == step:
                self._write(save, actors)

    def lost_uploads(self) -> set[str]:
        """The machines whose uploader died over what there is to write."""
        return {
            self.crew.home_of(name)
            for save in self.saves
            for name, ref in save.by_actor.items()
            if _has_died(ref) and not _has_died(save.packed[name])
        }

    def upload_again(self, lost: Collection[str]) -> None:
        """Has new uploaders on the machines ``lost`` write what is not written there.

        Ray could start them again by itself and repeat their calls, but now and then the queue of one that was killed
        in the midst of a call waits for ever for a call that does not come.
        """
        for node_id in lost:
            self.crew.renew_uploader(node_id)
        for save in self.saves:
            for name, ref in save.by_actor.items():
                if self.crew.home_of(name) in lost and (not is_ready(ref) or _has_died(ref)):
                    save.by_actor[name] = self.crew.upload(name, save.packed[name])

    def remember_gradients(self, steps: Iterable[int]) -> None:
        """Asks the image stage for what it told at ``steps``, which were before the first one here."""
        actor = self.crew.actors[IMAGE_STAGE]
        for step in steps:
            refs = actor.gradients.options(num_returns=len(self.receivers)).remote(step)
            told = dict(zip(self.receivers, refs if len(self.receivers) > 1 else [refs], strict=True))
            self.kept_gradients[step] = told

    def lost_gradients(self) -> list[int]:
        """The steps before the first one here, of which the image stage's answer was lost."""
        return [
            step
            for step, told in self.kept_gradients.items()
            if any(is_ready(ref) and error_of(ref) is not None for ref in told.values())
        ]

    # -- forgetting ----------------------------------------------------------------------------

    def begin_from(self, snapshot: StateRefs, finished: int) -> None:
        """Makes this the point to begin again from: references that no replay needs any more are dropped."""
        self.snapshot = snapshot
        oldest = snapshot.step - self.settings.feedback.lag
        self.steps = {step: refs for step, refs in self.steps.items() if step >= min(oldest, finished)}
        self.kept_gradients = {step: refs for step, refs in self.kept_gradients.items() if step >= oldest}

    def forget_all(self) -> None:
        """When every step is finished and a new beginning is made."""
        self.steps, self.kept_gradients = {}, {}
        self.taking.clear()

    # -- parts ---------------------------------------------------------------------------------

    def _batch(self, step: int) -> Any:
        return self.crew.readers[self.crew.reader_of(step)].batch.options(num_returns=2).remote(step)

    def _snapshots(self, step: int, actors: Collection[str]) -> dict[str, Any]:
        return {name: self.crew.actors[name].snapshot.remote(step) for name in actors}

    def _write(self, save: StateRefs, actors: Collection[str]) -> None:
        """Has ``actors`` pack what they have to save, and others write it."""
        for name in actors:
            save.packed[name] = self.crew.actors[name].pack.remote(save.step, save.attempt)
            save.by_actor[name] = self.crew.upload(name, save.packed[name])

    def _call_member(
        self, step: int, call: StageCall, member: StageReplica, refs: StepRefs, told: dict[str, Any]
    ) -> None:
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
        return self.steps[step].gradients if step in self.steps else self.kept_gradients.get(step, {})


def _has_died(ref: Any) -> bool:
    """Whether who was to give it is dead, or cannot be reached."""
    error = error_of(ref) if is_ready(ref) else None
    return error is not None and (is_death(error) or is_unavailable(error))
