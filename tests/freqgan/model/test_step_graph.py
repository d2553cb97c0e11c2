"""One training step as a list of calls."""

from __future__ import annotations

import pytest

from freqgan.model.plan import PlanSettings
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import stage_names
from freqgan.model.step_graph import StageCall, run_step, step_graph


@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_every_input_exists_before_it_is_taken(levels: int, cycles: int) -> None:
    settings = ModelSettings(levels=levels, plan=PlanSettings(cycles=cycles))
    made: set[tuple[str, int]] = set()
    calls = step_graph(settings)
    for call in calls:
        assert set(call.inputs) <= made
        made.add((call.stage, call.pass_number))
    assert [call.stage for call in calls if call.kind == "step"] == stage_names(settings)
    assert len(calls) == cycles * len(settings.band_plan().gans) + 1


def test_the_ring_takes_later_gans_from_the_pass_before() -> None:
    calls = {(c.stage, c.pass_number): c for c in step_graph(ModelSettings(levels=1, plan=PlanSettings(cycles=2)))}
    assert calls["HL1", 1].inputs == (("LL1", 1),)
    assert calls["HL1", 2].inputs == (("LL1", 2), ("LH1", 1), ("HH1", 1))
    assert calls["image", 2].inputs == (("LL1", 2), ("HL1", 2), ("LH1", 2), ("HH1", 2))


def test_a_step_hands_every_call_the_outputs_that_it_takes() -> None:
    graph = step_graph(ModelSettings(levels=1, plan=PlanSettings(cycles=2)))
    calls = []

    def run_call(call: StageCall, inputs: dict[str, str]) -> str | None:
        calls.append(call)
        assert inputs == {name: f"{name} of pass {pass_number}" for name, pass_number in call.inputs}
        assert list(inputs) == [name for name, _ in call.inputs]
        return None if call.stage == "image" else f"{call.stage} of pass {call.pass_number}"

    run_step(graph, run_call)
    assert calls == list(graph)


def test_outputs_of_an_earlier_run_are_taken_where_a_call_is_not_made_again() -> None:
    graph = step_graph(ModelSettings(levels=1))
    outputs = {(call.stage, 1): "old" for call in graph}
    taken = {}

    def run_call(call: StageCall, inputs: dict[str, str]) -> str | None:
        taken[call.stage] = inputs
        return "new" if call.stage == "HL1" else None

    run_step(graph, run_call, outputs)
    assert taken["image"] == {"LL1": "old", "HL1": "new", "LH1": "old", "HH1": "old"}
