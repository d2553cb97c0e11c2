"""The search for how flow experts generate best: what it tries, and what it ends with."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from cluster.evaluation.sampler_search import CONDITION_NOISES, SHIFTS, coordinate_search, search_axes
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.settings import ModelSettings
from tests.support.flows import flow_settings

Score = Callable[[GenerationSettings], float]


def guided(**changes: object) -> ModelSettings:
    return flow_settings(flow={"guide_at": 0.2}, **changes)


def valley(generation: GenerationSettings) -> float:
    """Lowest at a shift of 2, noise of 0.1 and guidance of 1, and the lower the more passes; heun is better."""
    shift = math.log2(generation.shift / 2) ** 2
    noise = (10 * (generation.condition_noise - 0.1)) ** 2
    guidance = (generation.guidance.get("default", 0) - 1) ** 2
    return 1 + shift + noise + guidance + 1 / generation.evaluations + (generation.solver == "euler")


def test_it_ends_at_the_lowest_point_and_tries_nothing_twice() -> None:
    tried: list[GenerationSettings] = []

    def score(generation: GenerationSettings) -> float:
        tried.append(generation)
        return valley(generation)

    start = GenerationSettings(evaluations=4, solver="euler", guidance={"default": 0.0})
    trials, best = coordinate_search(start, search_axes(guided(), 8), score)
    assert best.generation == GenerationSettings(
        evaluations=8, solver="heun", shift=2.0, condition_noise=0.1, guidance={"default": 1.0}
    )
    assert best.frechet == min(valley(generation) for generation in tried)
    assert [trial.generation for trial in trials] == tried
    assert tried[0] == start
    assert len({generation.model_dump_json() for generation in tried}) == len(tried) < 40


def test_what_gains_little_leaves_all_as_it_was() -> None:
    start = GenerationSettings(evaluations=8)
    axes = search_axes(flow_settings(), 8)
    _, best = coordinate_search(start, axes, lambda generation: 1 - 1e-3 * generation.shift)
    assert best.generation == start
    _, best = coordinate_search(start, axes, lambda generation: 1 - 2e-2 * generation.shift)
    assert best.generation.shift > 1


@pytest.mark.parametrize("most", [1, 2, 5, 7, 20])
def test_no_more_passes_than_allowed_and_an_even_number_for_heun(most: int) -> None:
    tried: list[GenerationSettings] = []

    def score(generation: GenerationSettings) -> float:
        tried.append(generation)
        return 1 / generation.evaluations + (generation.solver == "heun")

    start = GenerationSettings(evaluations=1, solver="euler")
    _, best = coordinate_search(start, search_axes(flow_settings(), most), score)
    assert (best.generation.evaluations, best.generation.solver) == (most, "euler")
    for generation in tried:
        assert 1 <= generation.evaluations <= most
        assert generation.solver == "euler" or generation.evaluations % 2 == 0


def test_what_is_searched_is_what_a_model_can_do() -> None:
    assert list(search_axes(guided(), 20)) == ["solver", "shift", "condition_noise", "guidance", "evaluations"]
    plain = search_axes(flow_settings(), 20)
    assert (plain["shift"], plain["condition_noise"]) == (list(SHIFTS), list(CONDITION_NOISES))
    assert plain["evaluations"] == [10, 14, 20]
    assert "guidance" not in plain
    weak = search_axes(flow_settings(flow={"condition_noise": 0.07}), 20)
    assert weak["condition_noise"] == [0.0, 0.05]
    assert "condition_noise" not in search_axes(flow_settings(levels=0), 20)  # one expert, which sees no band
    of_one_guide = guided(generation={"guidance": {"LL1": 2.0}})
    assert "guidance" not in search_axes(of_one_guide, 20)
