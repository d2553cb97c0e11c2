"""What is done about a failure: a pure function of what happened, and the record of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # importing torch takes a second
    from freqgan.tensor_dicts import Metrics

UNLIMITED = -1

Decision = Literal["replay", "roll back", "set back", "move", "fail"]


@dataclass(frozen=True)
class Symptoms:
    """What is known when waiting for a result ended in an error.

    Attributes:
        dead: stages and readers of shards whose actors no longer answer.
        lost_calls: a stage that lives says that calls before the last one never reached it.
        lost_objects: results that are still needed are gone with the machine that held them.
        failures: recoveries so far, without this one.
        homeless: stages whose machine is gone or out of reach.
        preemptions: recoveries from lost machines so far, without this one.

    """

    dead: tuple[str, ...]
    lost_calls: bool
    lost_objects: bool
    failures: int
    homeless: tuple[str, ...] = ()
    preemptions: int = 0


def decide(symptoms: Symptoms, max_failures: int, max_preemption_failures: int = UNLIMITED) -> Decision:
    """Decide to replay what was lost, to roll all back where inputs are gone, or to fail when the budget is spent.

    An error without any of these symptoms is the run's own, and would come again. A machine that is lost is no fault of
    the run and has a budget of its own.
    """
    if symptoms.homeless:
        return "fail" if _spent(symptoms.preemptions, max_preemption_failures) else "roll back"
    if not (symptoms.dead or symptoms.lost_calls or symptoms.lost_objects):
        return "fail"
    if _spent(symptoms.failures, max_failures):
        return "fail"
    return "roll back" if symptoms.lost_objects else "replay"


def _spent(used: int, budget: int) -> bool:
    return budget != UNLIMITED and used >= budget


@dataclass(frozen=True)
class Recovery:
    """A failure that the run got over.

    Attributes:
        step: finished steps when it was noticed.
        stages: that were dead, were set back or have moved; none where only calls were lost.
        cause: what Ray said.
        decision: what was done.
        from_step: the step after which the dead stages were begun again.
        steps: that they have to do once more.
        seconds: until all of them were submitted again.

    """

    step: int
    stages: tuple[str, ...]
    cause: str
    decision: Decision
    from_step: int
    steps: int
    seconds: float


def setbacks(step: int, stages: Mapping[str, Metrics]) -> list[Recovery]:
    """Return the stages that were set back in the step after which ``step`` steps are finished."""
    from freqgan.training.rollback import SET_BACK  # only here: importing torch takes a second

    causes = {
        "diverged": "a loss or a gradient was not finite",
        "collapsed": "its discriminator had won, or its samples were all alike",
    }
    return [
        Recovery(step, (name,), causes[why], "set back", int(metrics[key]), 0, 0.0)
        for name, metrics in stages.items()
        for why, key in SET_BACK.items()
        if key in metrics
    ]
