"""One training step as a list of calls."""

from __future__ import annotations

import pytest

from freqgan.model.plan import PlanSettings, build_plan
from freqgan.model.stage_names import stage_names
from freqgan.model.step_graph import step_graph
from freqgan.transforms import BandTransform, parse_transform


def haar(levels: int) -> BandTransform:
    return parse_transform("dwt:haar", levels)


@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_every_input_exists_before_it_is_taken(levels: int, cycles: int) -> None:
    plan = build_plan(haar(levels), PlanSettings(cycles=cycles))
    made: set[tuple[str, int]] = set()
    calls = step_graph(plan)
    for call in calls:
        assert set(call.inputs) <= made
        made.add((call.stage, call.pass_number))
    assert [call.stage for call in calls if call.kind == "step"] == stage_names(plan)
    assert len(calls) == cycles * len(plan.gans) + 1


def test_the_ring_takes_later_gans_from_the_pass_before() -> None:
    calls = {(c.stage, c.pass_number): c for c in step_graph(build_plan(haar(1), PlanSettings(cycles=2)))}
    assert calls["HL1", 1].inputs == (("LL1", 1),)
    assert calls["HL1", 2].inputs == (("LL1", 2), ("LH1", 1), ("HH1", 1))
    assert calls["image", 2].inputs == (("LL1", 2), ("HL1", 2), ("LH1", 2), ("HH1", 2))
