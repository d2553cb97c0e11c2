from __future__ import annotations

import pytest

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.model.plan import PlanSettings, build_plan
from freqgan.transforms import BandTransform, parse_transform


def haar(levels: int) -> BandTransform:
    return parse_transform("dwt:haar", levels)


def names(levels: int, **settings: object) -> list[str]:
    return [gan.name for gan in build_plan(haar(levels), PlanSettings.model_validate(settings)).gans]


def test_default_is_all_4l_gans_in_chain_order() -> None:
    assert names(2) == ["LL2", "HL2", "LH2", "HH2", "LL1", "HL1", "LH1", "HH1"]
    for levels in (1, 3, 4):
        assert len(names(levels)) == 4 * levels


def test_count_is_the_sum_of_s_q_and_w_q() -> None:
    plan = build_plan(haar(3), PlanSettings(low_gans={3: 2, 1: 0}, high_gans={3: 1, 2: 2, 1: 7}))
    assert len(plan.gans) == (2 + 1) + (1 + 2) + (0 + 7)


def test_high_gans_share_or_repeat_orientations() -> None:
    assert names(1, high_gans={1: 0}) == ["LL1"]
    assert names(1, high_gans={1: 1}) == ["LL1", "HL-LH-HH1"]
    assert names(1, high_gans={1: 2}) == ["LL1", "HL-LH1", "HH1"]
    assert names(1, high_gans={1: 4}) == ["LL1", "HL1", "HL1.2", "LH1", "HH1"]
    assert names(1, high_gans={1: 6}) == ["LL1", "HL1", "HL1.2", "LH1", "LH1.2", "HH1", "HH1.2"]


def test_members_of_an_ensemble_do_not_see_each_other() -> None:
    plan = build_plan(haar(1), PlanSettings(high_gans={1: 6}, low_gans={1: 2}))
    assert [gan.name for gan in plan.members(Band(1, "HL"))] == ["HL1", "HL1.2"]
    assert [gan.name for gan in plan.sources(plan.gan("HL1.2"))] == ["LL1", "LL1.2"]
    assert plan.gan("LL1.2").condition == ()


def test_chosen_bands_alone_get_gans() -> None:
    assert names(2, bands=["LL2", "HL1", "HL2"]) == ["LL2", "HL2", "HL1"]
    assert names(1, bands=["LL1", "HL1", "HH1"], high_gans={1: 1}) == ["LL1", "HL-HH1"]


def test_conditions_all_none_or_listed() -> None:
    every = build_plan(haar(2), PlanSettings())
    assert every.gan("LH1").condition == tuple(gan.bands[0] for gan in every.gans[:6])
    assert all(gan.condition == () for gan in build_plan(haar(2), PlanSettings(condition="none")).gans)
    some = build_plan(haar(2), PlanSettings(condition={"HH1": ["LL1", "HL1"]}))
    assert some.gan("HH1").condition == (Band(1, "LL"), Band(1, "HL"))
    assert [gan.name for gan in some.sources(some.gan("HH1"))] == ["LL1", "HL1"]
    assert len(some.gan("LH1").condition) == 6


def test_cycles_close_the_ring() -> None:
    plan = build_plan(haar(1), PlanSettings(cycles=2))
    assert plan.gan("LL1").condition == ()
    assert plan.gan("LL1").ring_condition == (Band(1, "HL"), Band(1, "LH"), Band(1, "HH"))
    assert plan.gan("HH1").ring_condition == ()
    assert [gan.name for gan in plan.sources(plan.gan("HL1"), ring=True)] == ["LH1", "HH1"]


def test_strict_nesting_leaves_one_low_gan_and_derives_the_others() -> None:
    plan = build_plan(haar(2), PlanSettings(strict_nesting=True))
    assert [gan.name for gan in plan.gans] == ["LL2", "HL2", "LH2", "HH2", "HL1", "LH1", "HH1"]
    assert plan.has_base(plan.gan("HL1"))
    assert not plan.has_base(plan.gan("LL2"))


def test_a_high_band_that_sees_nothing_has_no_base() -> None:
    plan = build_plan(haar(1), PlanSettings(condition={"HL1": []}))
    assert not plan.has_base(plan.gan("HL1"))
    assert plan.has_base(plan.gan("LH1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bands": ["LL1", "HL"]}, r"no band is called 'HL' \(did you mean HL1"),
        ({"bands": ["HL1"]}, "LL1 has no GAN, and the chain starts there"),
        ({"low_gans": {1: 0}}, "LL1 has no GAN"),
        ({"low_gans": {4: 1}}, "plan.low_gans: level 4 does not exist; levels are 1"),
        ({"high_gans": {1: 65}}, "65 GANs at level 1; give a number from 0 to 64"),
        ({"condition": {"HX1": []}}, r"no GAN is called 'HX1' \(did you mean"),
        ({"condition": {"LL1": ["HH1"]}}, "plan.condition.LL1: no band is called 'HH1'"),
    ],
)
def test_refusals_name_the_key_and_the_remedy(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_plan(haar(1), PlanSettings.model_validate(settings))


def test_a_band_may_not_see_a_later_one_without_cycles() -> None:
    with pytest.raises(InputError, match=r"plan\.condition\.HL1"):
        build_plan(haar(1), PlanSettings(condition={"HL1": ["LL1", "HH1"]}))
    assert build_plan(haar(1), PlanSettings(condition={"HL1": ["LL1", "HH1"]}, cycles=2)).gan("HL1").ring_condition
