"""What stages wait for: everything of GANs, nothing of flow experts, and what mixed chains need."""

from __future__ import annotations

from typing import Any

import pytest

from freqgan.errors import InputError
from freqgan.model.needs import Needs, feedback_receivers, stage_needs
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import stage_names
from freqgan.model.step_graph import step_graph

APART = {"image_stage": {"enabled": False}}
FLOWS: dict[str, Any] = {
    "levels": 2,
    "experts": {"default": "flow"},
    "plan": {"strict_nesting": True, "high_gans": {1: 1, 2: 1}},
    **APART,
}


def needs_of(**settings: Any) -> dict[str, Needs]:
    return stage_needs(ModelSettings.model_validate(settings))


def test_gans_wait_for_the_bands_before_them_and_for_feedback() -> None:
    needs = needs_of(levels=1)
    assert needs["LL1"] == Needs((), (), feedback=True)
    assert needs["LH1"] == Needs(("LL1", "HL1"), (), feedback=True)
    assert needs["image"] == Needs(("LL1", "HL1", "LH1", "HH1"), (), feedback=False)


def test_flow_experts_wait_for_nobody_and_give_nothing() -> None:
    settings = ModelSettings.model_validate(FLOWS)
    assert set(stage_needs(settings).values()) == {Needs()}
    assert stage_names(settings) == ["LL2", "HL-LH-HH2", "HL-LH-HH1"]
    graph = step_graph(settings)
    assert [(call.stage, call.inputs, call.has_output) for call in graph] == [
        (name, (), False) for name in stage_names(settings)
    ]
    assert not settings.feeds_back


def test_gans_above_a_flow_expert_see_the_real_band_in_its_place() -> None:
    needs = needs_of(levels=1, experts={"low": "flow"})
    assert needs["LL1"] == Needs()
    assert needs["HL1"] == Needs((), ("LL1",), feedback=True)
    assert needs["LH1"] == Needs(("HL1",), ("LL1",), feedback=True)
    assert needs["image"] == Needs(("HL1", "LH1", "HH1"), ("LL1",))


def test_samples_of_a_flow_expert_are_exchanged_where_they_are_asked_for() -> None:
    settings = ModelSettings.model_validate({"levels": 1, "experts": {"low": "flow"}, "flow": {"outputs": "samples"}})
    needs = stage_needs(settings)
    assert needs["LL1"] == Needs()
    assert needs["HL1"] == Needs(("LL1",), (), feedback=True)
    assert feedback_receivers(settings) == ["HL1", "LH1", "HH1"]


def test_a_sample_is_made_of_those_before_it() -> None:
    needs = needs_of(levels=1, experts={"LL1": "flow", "HL1": "flow"}, flow={"outputs": "samples"})
    assert needs["HL1"] == Needs(("LL1",))


def test_gans_on_real_conditions_alone_exchange_nothing() -> None:
    forced = {"start": 1, "end": 1}
    needs = needs_of(levels=1, teacher_forcing=forced, **APART)
    assert needs == {
        "LL1": Needs(), "HL1": Needs((), ("LL1",)), "LH1": Needs((), ("LL1", "HL1")),
        "HH1": Needs((), ("LL1", "HL1", "LH1")),
    }  # fmt: skip
    assert needs_of(levels=1, **APART)["HL1"] == Needs(("LL1",))
    assert needs_of(levels=1, teacher_forcing=forced)["HL1"] == Needs(("LL1",), (), feedback=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": {"LL3": "flow"}}, "experts: no expert or band is called 'LL3'.*did you mean LL2"),
        ({"experts": {"HL2": "flow"}, "plan": {"high_gans": {2: 1}}}, "HL-LH-HH2 generates HL2, LH2, HH2 together"),
        ({"experts": {"LL2": "flow"}, "plan": {"cycles": 2}}, "plan.cycles: 2 passes with experts of the kind flow"),
        ({"experts": {"default": "flow"}, **APART}, "LL1 is a flow expert, and refines .*strict_nesting=true"),
        ({"experts": {"default": "flow"}, "plan": {"strict_nesting": True}}, "image_stage.enabled: all experts"),
        ({**APART, "plan": {"bands": "none"}}, "nothing is left to train"),
        ({"generation": {"evaluations": 5}}, "generation.evaluations: 5 is odd"),
        ({"generation": {"guidance": {"LL7": 1.0}}}, "generation.guidance: no expert or band is called 'LL7'"),
        ({"flow": {"crop": {3: 16}}}, "flow.crop: level 3 does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        ModelSettings.model_validate({"levels": 2, **changes})


def test_the_closest_choice_counts() -> None:
    plan = ModelSettings.model_validate(
        {"levels": 2, "experts": {"default": "flow", "low": "gan", "HL-LH-HH1": "gan"}, "plan": {"high_gans": {1: 1}}}
    ).band_plan()
    kinds = {gan.name: gan.kind for gan in plan.gans}
    assert kinds == {"LL2": "gan", "HL2": "flow", "LH2": "flow", "HH2": "flow", "LL1": "gan", "HL-LH-HH1": "gan"}
