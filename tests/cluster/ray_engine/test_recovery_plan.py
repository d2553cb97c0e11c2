"""What is done about a failure, by what is known of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.execution.executor import RecoveryBudget
from cluster.ray_engine.recovery_plan import (
    MOST_IN_VAIN,
    Action,
    CallAgain,
    CountFailure,
    Diagnosis,
    ExcludeImages,
    Fail,
    RenewReader,
    RepeatCounter,
    Restart,
    RollBack,
    plan_recovery,
)

STAGES = ("LL1", "HL1", "HL1@1", "image")
GROUPS = {"LL1": ("LL1",), "HL1": ("HL1", "HL1@1"), "image": ("image",)}
READERS = {"ingest": 0, "ingest@1": 0}
COUNT = CountFailure(preempted=False)
LOST = RollBack("inputs to replay are gone (it died)", ())


def diagnosis(**changes: Any) -> Diagnosis:
    """A snapshot was taken after step 4, steps 0 to 5 are finished, 6 and 7 submitted; all stages have done all."""
    steps_done = dict.fromkeys(STAGES, 8) | READERS | changes.pop("steps_done", {})
    usual = Diagnosis(
        cause="it died", finished=6, submitted=8, snapshot_step=4, groups=GROUPS, readers=tuple(READERS),
        steps_done=steps_done,
    )  # fmt: skip
    return replace(usual, **changes)


def calls(*steps: tuple[int, set[str]], read_again: frozenset[int] = frozenset()) -> list[Action]:
    return [CallAgain(step, frozenset(stages), step in read_again) for step, stages in steps]


def plan(budgets: tuple[int, int] = (3, -1), **changes: Any) -> list[Action]:
    return plan_recovery(diagnosis(**changes), *budgets)


FROM_SNAPSHOT = range(4, 8)
CASES: dict[str, tuple[dict[str, Any], list[Action]]] = {
    "an error without symptoms is the run's own": ({}, [Fail()]),
    "a stage that died gets its calls since the snapshot": (
        {"steps_done": {"LL1": None}},
        [COUNT, Restart(("LL1",), ()), *calls(*((step, {"LL1"}) for step in FROM_SNAPSHOT))],
    ),
    "the others of a dead replica's group go back with it": (
        {"steps_done": {"HL1@1": None}},
        [COUNT, Restart(("HL1@1",), ("HL1",)), *calls(*((step, {"HL1", "HL1@1"}) for step in FROM_SNAPSHOT))],
    ),
    "a whole group that is dead": (
        {"steps_done": {"HL1": None, "HL1@1": None}},
        [COUNT, Restart(("HL1", "HL1@1"), ()), *calls(*((step, {"HL1", "HL1@1"}) for step in FROM_SNAPSHOT))],
    ),
    "a group that is broken": (
        {"broken_groups": frozenset({"HL1@1"})},
        [COUNT, Restart((), ("HL1", "HL1@1")), *calls(*((step, {"HL1", "HL1@1"}) for step in FROM_SNAPSHOT))],
    ),
    "a living stage gets the calls that did not reach it": (
        {"lost_call": True, "steps_done": {"LL1": 7, "image": 6}},
        [COUNT, *calls((6, {"image"}), (7, {"LL1", "image"}))],
    ),
    "a living stage with nothing done and nothing restored is called from the start": (
        {"lost_call": True, "snapshot_step": 0, "finished": 0, "submitted": 1, "steps_done": {"LL1": 0}},
        [COUNT, *calls((0, {"LL1"}))],
    ),
    "a stage whose reply was lost goes back": (
        {"lost_replies": frozenset({"LL1"})},
        [COUNT, Restart((), ("LL1",)), *calls(*((step, {"LL1"}) for step in FROM_SNAPSHOT))],
    ),
    "so does the image stage whose gradients were lost": (
        {"lost_gradients": True},
        [COUNT, Restart((), ("image",)), *calls(*((step, {"image"}) for step in FROM_SNAPSHOT))],
    ),
    "and one whose save was lost": (
        {"lost_saves": ((6, ("LL1",)),)},
        [COUNT, Restart((), ("LL1",)), *calls(*((step, {"LL1"}) for step in FROM_SNAPSHOT))],
    ),
    "a save of before the snapshot cannot be made again": (
        {"lost_saves": ((2, ("LL1", "HL1")),)},
        [RollBack("a reply of HL1, LL1 was lost", ("HL1", "LL1"))],
    ),
    "a save of one that is dead is made by the one that takes its place": (
        {"lost_saves": ((6, ("LL1",)),), "steps_done": {"LL1": None}},
        [COUNT, Restart(("LL1",), ()), *calls(*((step, {"LL1"}) for step in FROM_SNAPSHOT))],
    ),
    "a recovery that failed is taken up": (
        {"restarting": frozenset({"LL1", "image"}), "steps_done": {"image": None}},
        [COUNT, Restart(("image",), ("LL1",)), *calls(*((step, {"LL1", "image"}) for step in FROM_SNAPSHOT))],
    ),
    "a reader that died reads its batches again": (
        {"steps_done": {"ingest@1": None, "LL1": 5}, "lost_batches": frozenset({5, 7})},
        [COUNT, RenewReader("ingest@1"), *calls(*((s, {"LL1"}) for s in (5, 6, 7)), read_again=frozenset({5, 7}))],
    ),
    "a reader and a stage": (
        {"steps_done": {"ingest": None, "LL1": None}, "lost_batches": frozenset({6})},
        [
            COUNT, RenewReader("ingest"), Restart(("LL1",), ()),
            *calls(*((step, {"LL1"}) for step in FROM_SNAPSHOT), read_again=frozenset({6})),
        ],
    ),
    "damaged images are no failure, and no batch from there on stays": (
        {"steps_done": dict.fromkeys(STAGES, 6), "damaged_step": 6},
        [ExcludeImages(6), *calls((6, set(STAGES)), (7, set(STAGES)), read_again=frozenset({6, 7}))],
    ),
    "damaged images and a death": (
        {"steps_done": {**dict.fromkeys(STAGES, 7), "LL1": None}, "damaged_step": 7},
        [
            COUNT, Restart(("LL1",), ()), ExcludeImages(7),
            *calls(*((s, {"LL1"}) for s in (4, 5, 6)), (7, set(STAGES)), read_again=frozenset({7})),
        ],
    ),
    "images that were trained on and have been damaged since": (
        {"steps_done": {"LL1": None}, "damaged_step": 5, "damage": "it is torn", "lost_batches": frozenset({5})},
        [COUNT, RollBack("images of step 5, which is to be done again, have been damaged since (it is torn)", ())],
    ),
    "a result that is gone": ({"lost_object": True}, [COUNT, LOST]),
    "a result of one that was replaced long ago": ({"dead_call": True}, [COUNT, LOST]),
    "a result of one that is dead": (
        {"dead_call": True, "steps_done": {"LL1": None}},
        [COUNT, Restart(("LL1",), ()), *calls(*((step, {"LL1"}) for step in FROM_SNAPSHOT))],
    ),
    "a machine that is lost": (
        {"homeless": ("LL1",), "steps_done": {}, "cause": "the machine of LL1 is gone"},
        [CountFailure(preempted=True), RollBack("the machine of LL1 is gone", ("LL1",))],
    ),
    "a machine that is lost while images are damaged": (
        {"homeless": ("LL1",), "steps_done": {}, "cause": "the machine of LL1 is gone", "damaged_step": 6},
        [CountFailure(preempted=True), RollBack("the machine of LL1 is gone", ("LL1",))],
    ),
    "calls that were made too often": (
        {"lost_call": True, "repeats": MOST_IN_VAIN},
        [COUNT, RollBack(f"calls were made {MOST_IN_VAIN} times and nothing came of it (it died)", ())],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    changes, actions = CASES[case]
    steps_done = changes.get("steps_done")
    there = replace(diagnosis(**changes), steps_done={}) if steps_done == {} else diagnosis(**changes)
    assert plan_recovery(there, 3, -1) == actions


@pytest.mark.parametrize(
    ("used", "budgets", "changes", "fails"),
    [
        (RecoveryBudget(failures=2), (3, -1), {"lost_call": True}, False),
        (RecoveryBudget(failures=3), (3, -1), {"lost_call": True}, True),
        (RecoveryBudget(failures=3), (-1, -1), {"lost_call": True}, False),
        (RecoveryBudget(failures=3), (3, 2), {"homeless": ("LL1",)}, False),
        (RecoveryBudget(preemptions=2), (3, 2), {"homeless": ("LL1",)}, True),
        (RecoveryBudget(failures=3), (3, -1), {"damaged_step": 6, "steps_done": dict.fromkeys(STAGES, 6)}, False),
    ],
)
def test_a_budget_that_is_spent_ends_the_run(
    used: RecoveryBudget, budgets: tuple[int, int], changes: dict[str, Any], fails: bool
) -> None:
    assert (plan(budgets, used=used, **changes) == [Fail()]) == fails


def test_what_is_counted_are_diagnoses_in_a_row_that_are_alike_and_change_nothing() -> None:
    counter = RepeatCounter()
    lost = diagnosis(lost_call=True, steps_done={"LL1": 7})
    assert [counter.count(lost) for _ in range(3)] == [0, 1, 2]
    assert counter.count(diagnosis(lost_call=True)) == 0  # it is getting on
    assert [counter.count(lost) for _ in range(2)] == [0, 1]
    assert counter.count(diagnosis(lost_replies=frozenset({"LL1"}), steps_done={"LL1": 7})) == 0
    assert counter.count(replace(lost, finished=7)) == 0
