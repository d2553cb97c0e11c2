"""What a run, or a component of one, is doing, told from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.run.layout import LEASE
from cluster.storage.folder import Folder
from cluster.storage.lease import DURATION_S, Holder, holder_of
from freqgan.errors import counted
from launch.console.text import duration_text

StateKind = Literal["new", "begins", "trains", "waits", "ended", "stopped", "failed"]
SHORTEST_WAIT_S = 60.0
STEPS_OF_A_WAIT = 20
"""Steps whose time may pass without a line before a training counts as waiting."""
BY_URGENCY: tuple[StateKind, ...] = ("failed", "waits", "trains", "begins", "stopped", "new", "ended")
"""Of components: the first of these that one is in is that of the run."""
WORDS: dict[StateKind, str] = {
    "new": "not begun", "begins": "beginning", "trains": "training", "waits": "waiting", "ended": "ended",
    "stopped": "stopped", "failed": "failed",
}  # fmt: skip
GO_ON = "the same command goes on with it"


@dataclass(frozen=True)
class State:
    """What it is doing, in one word and in a sentence."""

    kind: StateKind
    text: str


@dataclass(frozen=True)
class Signs:
    """What the state is told from.

    Attributes:
        step: of the newest line of metrics or checkpoint; 0 where there is none.
        last_step: at which it ends, None where that is not known.
        checkpoint_step: of the newest checkpoint; 0 where there is none.
        line_age_s: seconds since the newest line, None where there is none.
        step_s: seconds of a step.
        upload_every_s: seconds between uploads of the log, 0 where lines are seen as they are written.

    """

    step: int
    last_step: int | None
    checkpoint_step: int
    line_age_s: float | None
    step_s: float
    upload_every_s: float = 0.0

    @property
    def longest_s(self) -> float:
        """Seconds that a training that does steps may be silent for."""
        return max(SHORTEST_WAIT_S, STEPS_OF_A_WAIT * self.step_s, 2 * self.upload_every_s)


def state_of(checkpoints: Folder, signs: Signs, *, has_traceback: bool) -> State:
    """Return the state of the run, or component, whose lease is in ``checkpoints``."""
    if signs.last_step is not None and signs.checkpoint_step >= signs.last_step:
        return State("ended", f"after {signs.last_step:,} steps")
    holder, age_s = holder_of(checkpoints, LEASE), checkpoints.age_s(LEASE)
    if holder is not None and age_s is not None and not holder.is_free and age_s < DURATION_S:
        return _of_holder(holder, signs)
    if has_traceback:
        return State("failed", "with an error that nobody foresaw; the same command goes on from its checkpoint")
    if holder is not None and holder.until_s != 0:
        gone = "" if age_s is None else f" {duration_text(age_s)} ago"
        return State("stopped", f"{holder.name} is gone: it gave its last sign of life{gone}; {GO_ON}")
    if signs.step:
        return State("stopped", f"after {signs.step:,} steps; {GO_ON}")
    return State("new", "nothing has been trained yet")


def _of_holder(holder: Holder, signs: Signs) -> State:
    if signs.line_age_s is None:
        return State("begins", f"{holder.name} prepares the first step")
    if signs.line_age_s > signs.longest_s:
        since = duration_text(signs.line_age_s)
        return State("waits", f"{holder.name} lives, and has ended no step for {since}: it prepares, or waits")
    return State("trains", f"in {holder.name}")


def joint_state(states: Sequence[State], *, has_traceback: bool) -> State:
    """Return the state of a run at a free pace from those of its components."""
    counts = {kind: sum(state.kind == kind for state in states) for kind in BY_URGENCY}
    text = ", ".join(f"{counts[kind]} {WORDS[kind]}" for kind in BY_URGENCY if counts[kind])
    kind = next(kind for kind in BY_URGENCY if counts[kind])
    failed = has_traceback and kind in ("stopped", "new")  # whatever of them the error was of
    return State("failed" if failed else kind, f"{counted(len(states), 'component')}: {text}")
