"""The references of a run: which calls were made at every step, and what is needed to make them again.

References of the steps since the last snapshot are kept. Their owner is the process that submits the calls, so what a
dead actor has returned is still there for those that come after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.execution.executor import feedback_lag
from cluster.ray_engine.results import error_of, is_death, is_ready, is_unavailable
from cluster.ray_engine.worker_group import WorkerGroup
from cluster.run.settings import RunSettings
from cluster.stages.replicas import StageReplica
from freqgan.model.needs import feedback_receivers
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.model.step_graph import StageCall, run_step, step_graph

Parts = dict[int, Any]
"""References to the parts of an output by the index of the replica that gives them."""


@dataclass
class StepRefs:
    """References to everything that one step makes, by who makes it.

    ``outputs`` by (GAN, pass) and replica, ``metrics`` by actor, ``gradients`` by GAN.
    """

    images: Any
    targets: Any
    outputs: dict[tuple[str, int], Parts] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Any] = field(default_factory=dict)

    def refs_of(self, replica: StageReplica) -> list[Any]:
        """References to what an actor has given, in any pass: all of one call come together or not at all."""
        parts = [
            made[replica.index] for (s, _), made in self.outputs.items() if s == replica.stage and replica.index in made
        ]
        return [*parts, *(ref for name, ref in self.metrics.items() if name == replica.name)]


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
        workers: its actors.
        first_step: finished steps so far.

    """

    def __init__(self, settings: RunSettings, workers: WorkerGroup, first_step: int) -> None:
        self.settings, self.workers = settings, workers
        self.graph = step_graph(settings)
        self.receivers = feedback_receivers(settings)
        self.steps: dict[int, StepRefs] = {}
        self.earlier_gradients: dict[int, dict[str, Any]] = {}
        """Of steps before the first one here: what the image stage has kept of them."""
        self.snapshot = StateRefs(first_step, {})
        """The one to begin again from; of the very start where it names no files."""
        self.pending_snapshots: deque[StateRefs] = deque()
        self.saves: deque[StateRefs] = deque()

    # -- making calls --------------------------------------------------------------------------

    def open(self, step: int) -> None:
        """Ask for the batch of ``step`` and make all of its calls."""
        self.steps[step] = StepRefs(*self._batch(step))
        self.call(step, self.workers.actors)

    def call(self, step: int, actors: Collection[str]) -> None:
        """Make the calls of ``step`` that belong to ``actors``, with the references that there are."""
        refs = self.steps[step]
        gradients = self._gradients_of(step - self.settings.feedback.lag)

        def run_call(call: StageCall, inputs: dict[str, Parts]) -> Parts:
            parts = refs.outputs.get((call.stage, call.pass_number), {})
            for replica in self.workers.groups[call.stage]:
                if replica.name in actors:
                    parts = parts | self._call_replica(step, call, replica, refs, inputs, gradients)
            return parts

        run_step(self.graph, run_call, refs.outputs)

    def call_again(self, step: int, actors: Collection[str], batch: bool) -> None:
        """Do again what was to happen at ``step`` in ``actors``, in the same order: batch, call, snapshot, save."""
        if batch:
            refs = self.steps[step]
            refs.images, refs.targets = self._batch(step)
        self.call(step, actors)
        for snapshot in self.pending_snapshots:
            if snapshot.step == step + 1:
                snapshot.by_actor |= self._snapshots(snapshot.step, actors)
        self.write_again(step + 1, actors)

    def take_snapshot(self, step: int) -> None:
        """Have every actor write its state after ``step`` steps, behind the calls made so far."""
        self.pending_snapshots.append(StateRefs(step, self._snapshots(step, self.workers.actors)))

    def save(self, step: int, attempt: str) -> None:
        """Have every actor hand over its state after ``step`` steps to its uploader."""
        save = StateRefs(step, {}, attempt)
        self._write(save, self.workers.actors)
        self.saves.append(save)

    def write_again(self, step: int, actors: Collection[str]) -> None:
        """Make again the save of after ``step`` steps, if there is one that is not collected yet."""
        for save in self.saves:
            if save.step == step:
                self._write(save, actors)

    def lost_uploads(self) -> set[str]:
        """Return the machines whose uploader died over what there is to write."""
        return {
            self.workers.home_of(name)
            for save in self.saves
            for name, ref in save.by_actor.items()
            if _has_died(ref) and not _has_died(save.packed[name])
        }

    def upload_again(self, lost: Collection[str]) -> None:
        """Have new uploaders on the machines ``lost`` write what is not written there.

        Ray could start them again by itself and repeat their calls, but now and then the queue of one that was killed
        in the midst of a call waits for ever for a call that does not come.
        """
        for node_id in lost:
            self.workers.renew_uploader(node_id)
        for save in self.saves:
            for name, ref in save.by_actor.items():
                if self.workers.home_of(name) in lost and (not is_ready(ref) or _has_died(ref)):
                    save.by_actor[name] = self.workers.upload(name, save.packed[name])

    def remember_gradients(self, steps: Iterable[int]) -> None:
        """Ask the image stage for its gradients of ``steps``, which were before the first one here."""
        for step in steps:
            refs = self.workers.actors[IMAGE_STAGE].gradients.options(num_returns=len(self.receivers)).remote(step)
            gradients = dict(zip(self.receivers, refs if len(self.receivers) > 1 else [refs], strict=True))
            self.earlier_gradients[step] = gradients

    def lost_gradients(self) -> list[int]:
        """Return the steps before the first one here of which the image stage's answer was lost."""
        return [
            step
            for step, gradients in self.earlier_gradients.items()
            if any(is_ready(ref) and error_of(ref) is not None for ref in gradients.values())
        ]

    # -- forgetting ----------------------------------------------------------------------------

    def begin_from(self, snapshot: StateRefs, finished: int) -> None:
        """Make this the point to begin again from: references that no replay needs any more are dropped."""
        self.snapshot = snapshot
        oldest = snapshot.step - feedback_lag(self.settings)
        self.steps = {step: refs for step, refs in self.steps.items() if step >= min(oldest, finished)}
        self.earlier_gradients = {step: refs for step, refs in self.earlier_gradients.items() if step >= oldest}

    def forget_all(self) -> None:
        """Forget all steps: they are finished, and a new beginning is made."""
        self.steps, self.earlier_gradients = {}, {}
        self.pending_snapshots.clear()

    # -- parts ---------------------------------------------------------------------------------

    def _batch(self, step: int) -> Any:
        return self.workers.readers[self.workers.reader_of(step)].batch.options(num_returns=2).remote(step)

    def _snapshots(self, step: int, actors: Collection[str]) -> dict[str, Any]:
        return {name: self.workers.actors[name].snapshot.remote(step) for name in actors}

    def _write(self, save: StateRefs, actors: Collection[str]) -> None:
        """Have ``actors`` pack what they have to save, and others write it."""
        for name in actors:
            save.packed[name] = self.workers.actors[name].pack.remote(save.step, save.attempt)
            save.by_actor[name] = self.workers.upload(name, save.packed[name])

    def _call_replica(
        self,
        step: int,
        call: StageCall,
        replica: StageReplica,
        refs: StepRefs,
        inputs: Mapping[str, Parts],
        gradients: Mapping[str, Any],
    ) -> Parts:
        """Make a replica's call; return the reference to its part of the output, if other calls take it."""
        parts = [(name, part) for name, by_index in inputs.items() for _, part in sorted(by_index.items())]
        names, arrays = [name for name, _ in parts], [part for _, part in parts]
        actor = self.workers.actors[replica.name]
        if call.kind == "forward":
            return {replica.index: actor.forward.remote(step, names, refs.targets, *arrays)}
        receivers = self.receivers if call.stage == IMAGE_STAGE else [call.stage] * call.has_output
        arguments = (step, names, refs.images, refs.targets, gradients.get(call.stage), *arrays)
        returned = actor.step.options(num_returns=1 + len(receivers)).remote(*arguments)
        refs.metrics[replica.name], *outputs = returned if receivers else [returned]
        if call.stage != IMAGE_STAGE:
            return {replica.index: outputs[0]} if outputs else {}
        refs.gradients = dict(zip(receivers, outputs, strict=True))
        return {}

    def _gradients_of(self, step: int) -> dict[str, Any]:
        """References to the image stage's gradients of ``step``, by GAN."""
        return self.steps[step].gradients if step in self.steps else self.earlier_gradients.get(step, {})


def _has_died(ref: Any) -> bool:
    """Return whether the actor that was to give ``ref`` is dead, or cannot be reached."""
    error = error_of(ref) if is_ready(ref) else None
    return error is not None and (is_death(error) or is_unavailable(error))
