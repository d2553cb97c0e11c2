"""What is to be done about a failure: a pure function of what is known of it, without a call to Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cluster.execution.executor import RecoveryBudget
from cluster.execution.failure_policy import Symptoms, decide
from freqgan.model.stage_names import IMAGE_STAGE

MOST_IN_VAIN = 20
"""Recoveries in a row that have changed nothing; more than replies that chance loses."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a failure. Names are those of actors: a stage with replicas has one actor for each.

    Attributes:
        cause: what Ray said, in one line.
        finished: steps that all stages have done and whose metrics have come.
        submitted: steps whose calls were made.
        snapshot_step: the step after which the last snapshot was taken, or training began.
        groups: the actors of every stage by the stage's name, in the order of the chain.
        readers: names of the readers of shards.
        steps_done: by actor, how many steps a stage has done (a number without a meaning for a reader); None of the
            dead. Empty where machines are lost.
        homeless: actors whose machine is gone or cannot be reached.
        used: what previous recoveries have used of the budgets.
        lost_call: the error says that calls, or replies, were lost on their way.
        lost_object: the error says that a result is gone.
        dead_call: the error says that an actor died.
        broken_groups: living replicas that say that their group is broken.
        lost_replies: actors that have done a step whose results have not come.
        lost_gradients: gradients that the image stage kept of steps before the first one here have not come.
        lost_saves: for saves whose records have not come, the step and the actors.
        restarting: actors that an earlier recovery had begun to restart when it failed itself.
        lost_batches: steps whose batch is lost, or was to come from a reader that is dead.
        damaged_step: the first step whose batch is nothing but an account of damaged images.
        damage: what the first of these images has.
        repeats: recoveries in a row, before this one, that found the stages where they still are; 0 where this one
            changes something.

    """

    cause: str
    finished: int
    submitted: int
    snapshot_step: int
    groups: Mapping[str, tuple[str, ...]]
    readers: tuple[str, ...]
    steps_done: Mapping[str, int | None]
    homeless: tuple[str, ...] = ()
    used: RecoveryBudget = field(default_factory=RecoveryBudget)
    lost_call: bool = False
    lost_object: bool = False
    dead_call: bool = False
    broken_groups: frozenset[str] = frozenset()
    lost_replies: frozenset[str] = frozenset()
    lost_gradients: bool = False
    lost_saves: tuple[tuple[int, tuple[str, ...]], ...] = ()
    restarting: frozenset[str] = frozenset()
    lost_batches: frozenset[int] = frozenset()
    damaged_step: int | None = None
    damage: str = ""
    repeats: int = 0

    @cached_property
    def dead(self) -> tuple[str, ...]:
        """The actors that do not live any more."""
        return tuple(name for name, steps in self.steps_done.items() if steps is None)

    @cached_property
    def rewound(self) -> tuple[str, ...]:
        """The living actors that go back to the snapshot, with all replicas of their stage, in the order of the chain.

        They have lost a replica, or a reply, or were being restarted. Replies to finished steps count as well: a stage
        that has done them once more has given new results, and others that go back to the snapshot take those.
        """
        if self.homeless:
            return ()
        wanted = self.lost_replies | self.restarting
        wanted |= {name for _, names in self.lost_saves for name in names if self.steps_done.get(name) is not None}
        if self.lost_gradients:
            wanted |= set(self.groups[IMAGE_STAGE])
        for group in self.groups.values():
            if len(group) > 1 and (self.broken_groups & set(group) or set(group) & set(self.dead)):
                wanted |= set(group)
        return tuple(
            name for group in self.groups.values() for name in group if wanted & set(group) and name not in self.dead
        )

    @property
    def changes_something(self) -> bool:
        """Whether more than calls is to be done again."""
        return bool(self.dead or self.rewound or self.damaged_step is not None)

    @property
    def restarted(self) -> frozenset[str]:
        """The stages that begin again at the snapshot."""
        return frozenset({*self.dead, *self.rewound} - set(self.readers))

    @property
    def is_failure(self) -> bool:
        """Whether it counts as a failure of the run: images that are damaged have a limit of their own."""
        return self.damaged_step is None or bool(self.dead or self.rewound or self.homeless)

    @property
    def symptoms(self) -> Symptoms:
        """The symptoms by which it is decided what is done."""
        lost_call = self.lost_call or bool(self.rewound)
        # An actor that died, and none that is dead: what is gone belonged to one that was replaced long ago.
        lost_object = self.lost_object or (self.dead_call and not self.dead)
        return Symptoms(self.dead, lost_call, lost_object, self.used.failures, self.homeless, self.used.preemptions)


class RepeatCounter:
    """Counts the diagnoses in a row that are alike."""

    def __init__(self) -> None:
        self._last: tuple[int, Mapping[str, int | None]] | None = None
        self._repeats = 0

    def count(self, diagnosis: Diagnosis) -> int:
        """Return how many before ``diagnosis`` found the stages where they are; 0 where this one changes something."""
        seen = diagnosis.finished, diagnosis.steps_done
        repeated = seen == self._last and not diagnosis.changes_something
        self._last, self._repeats = seen, self._repeats + 1 if repeated else 0
        return self._repeats


@dataclass(frozen=True)
class Fail:
    """The run ends with the error."""


@dataclass(frozen=True)
class RollBack:
    """All stages begin again at the last checkpoint: what a replay needs is gone."""

    cause: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class CountFailure:
    """One more recovery of the run is used, from a lost machine where ``preempted``."""

    preempted: bool


@dataclass(frozen=True)
class RenewReader:
    """A new reader of shards takes the place of one that died."""

    name: str


@dataclass(frozen=True)
class Restart:
    """``replaced`` stages get new actors; they and those ``rewound`` get the state of the last snapshot."""

    replaced: tuple[str, ...]
    rewound: tuple[str, ...]


@dataclass(frozen=True)
class ExcludeImages:
    """The damaged images of the batch of ``step`` go into quarantine, and all readers learn of it."""

    step: int


@dataclass(frozen=True)
class CallAgain:
    """The calls of ``step`` are made in ``stages``, with a batch that is read anew where ``read_again``."""

    step: int
    stages: frozenset[str]
    read_again: bool


Action = Fail | RollBack | CountFailure | RenewReader | Restart | ExcludeImages | CallAgain


def plan_recovery(diagnosis: Diagnosis, max_failures: int, max_preemption_failures: int) -> list[Action]:
    """Return what is to be done, in order. Where it cannot be replayed, the last action is Fail or RollBack.

    An actor that died is replaced; the new one gets the state of the last snapshot and the calls since then. Its living
    replicas go back to that snapshot with it, for they share every batch. So does an actor that did a step whose reply
    was lost on the way. All others keep their state, and get only the calls that never reached them.
    """
    for step, names in diagnosis.lost_saves:
        if step < diagnosis.snapshot_step:  # there is no state to make it of
            return [RollBack(f"a reply of {', '.join(sorted(names))} was lost", tuple(sorted(names)))]
    actions: list[Action] = []
    if diagnosis.is_failure:
        decision = decide(diagnosis.symptoms, max_failures, max_preemption_failures)
        if decision == "fail":
            return [Fail()]
        actions.append(CountFailure(preempted=bool(diagnosis.homeless)))
        if decision == "roll back":
            return [*actions, _roll_back(diagnosis)]
    if obstacle := _obstacle(diagnosis):
        return [*actions, RollBack(obstacle, ())]
    return [*actions, *_repairs(diagnosis), *_calls(diagnosis)]


def _roll_back(diagnosis: Diagnosis) -> RollBack:
    cause = diagnosis.cause if diagnosis.homeless else f"inputs to replay are gone ({diagnosis.cause})"
    return RollBack(cause, diagnosis.dead or diagnosis.homeless)


def _obstacle(diagnosis: Diagnosis) -> str:
    """Return why a replay would come to nothing; "" where it would not."""
    if diagnosis.repeats >= MOST_IN_VAIN:  # the same calls would be made for ever
        return f"calls were made {MOST_IN_VAIN} times and nothing came of it ({diagnosis.cause})"
    damaged = diagnosis.damaged_step
    farthest = max((steps or 0 for name, steps in diagnosis.steps_done.items() if name not in diagnosis.readers))
    if damaged is not None and farthest > damaged:
        return f"images of step {damaged}, which is to be done again, have been damaged since ({diagnosis.damage})"
    return ""


def _repairs(diagnosis: Diagnosis) -> list[Action]:
    """Return what comes before calls are made again."""
    repairs: list[Action] = [RenewReader(name) for name in diagnosis.dead if name in diagnosis.readers]
    if diagnosis.restarted:
        replaced = tuple(name for name in diagnosis.dead if name not in diagnosis.readers)
        repairs.append(Restart(replaced, diagnosis.rewound))
    if diagnosis.damaged_step is not None:
        repairs.append(ExcludeImages(diagnosis.damaged_step))
    return repairs


def _calls(diagnosis: Diagnosis) -> list[Action]:
    """Return the calls that each stage lacks.

    From the step of damaged images on no batch has been trained on, so all of them can be read without these images.
    """
    positions = {
        name: diagnosis.snapshot_step if name in diagnosis.restarted else steps or 0
        for name, steps in diagnosis.steps_done.items()
        if name not in diagnosis.readers
    }
    calls: list[Action] = []
    for step in range(min(positions.values()), diagnosis.submitted):
        stages = frozenset(name for name, position in positions.items() if step >= position)
        lost = step in diagnosis.lost_batches
        shifted = diagnosis.damaged_step is not None and step >= diagnosis.damaged_step
        calls.append(CallAgain(step, stages, lost or shifted))
    return calls
