"""The training step of a flow expert: a pure function of its state, on every transform, in any number of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from freqgan.errors import DivergedError
from freqgan.recipe.settings import HealthSettings
from freqgan.tensor_dicts import State, tensors_of
from freqgan.training.flow_matching import FlowMatching
from freqgan.training.rollback import DivergenceGuard
from tests.support.flows import flow_settings, flow_stages, step_of, synthesiser_of
from tests.support.models import chain_of, pictures
from tests.support.thread_replicas import at_once, thread_shares

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "db2, two levels": {"transform": "dwt:db2", "levels": 2},
    "bior4.4, odd size": {"transform": "dwt:bior4.4", "image_size": 19},
    "dct": {"transform": "dct"},
    "shannon": {"transform": "fft:shannon"},
    "meyer": {"transform": "fft:meyer"},
    "rings, together": {"transform": "radial:1,3", "plan": {"high_gans": {1: 1}}},
    "packets": {"image_size": 32, "packets": {1: 1}, "noise": {"dimensions": 128}},
    "16 bits": {"channels": 1, "bit_depth": 16},
    "labels": {"classes": 3, "flow": {"drop": 0.5}},
    "crops": {"image_size": 32, "flow": {"crop": {1: 8}}},
    "crops of patches": {"image_size": 32, "flow": {"crop": {1: 8}, "band_network": {"width": 8, "patch": 2}}},
    "ensembles": {"plan": {"low_gans": {1: 2}, "high_gans": {1: 1}}},
    "guide": {"flow": {"guide_at": 0.02}},
    "bfloat16": {"precision": "bfloat16"},
    "no conditions": {"plan": {"condition": "none"}},
    "samples for others": {
        "image_stage": {"enabled": True},
        "flow": {"outputs": "samples", "output_evaluations": 2},
    },
}


def copied(stage: FlowMatching) -> State:
    return {name: x.clone() if isinstance(x, Tensor) else x for name, x in stage.state_dict().items()}


def same(first: State, second: State) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(torch.as_tensor(x), torch.as_tensor(second[name])) for name, x in first.items())


def step_all(stages: Sequence[FlowMatching], step: int) -> dict[str, Tensor]:
    """One step of every expert in the order of the chain; what each gives to others."""
    settings, outputs = stages[0].settings, dict[str, Tensor]()
    labels = torch.arange(settings.batch) % max(1, settings.classes)
    for stage in stages:
        before = {gan.name: outputs[gan.name] for gan in stage.chain.plan.sources(stage.gan) if gan.name in outputs}
        result = stage.step(step, pictures(settings, seed=100 + step), labels, before)
        assert torch.tensor(list(result.metrics.values())).isfinite().all()
        if result.output is not None:
            outputs[stage.name] = result.output
    return outputs


SHORT = ("bior4.4, odd size", "dct", "rings, together", "labels", "crops of patches", "guide", "samples for others")


@pytest.mark.parametrize("variant", [pytest.param(v, marks=[pytest.mark.long] * (v not in SHORT)) for v in VARIANTS])
def test_a_step_is_a_pure_function_of_the_state_and_replays_bit_exactly(variant: str) -> None:
    chain = chain_of(flow_settings(**VARIANTS[variant]))
    stages = flow_stages(chain)
    for step in range(2):
        step_all(stages, step)
    saved = [copied(stage) for stage in stages]
    outputs = step_all(stages, 2)

    again = flow_stages(chain_of(chain.settings))
    torch.rand(3)  # nothing is taken from torch's own generator
    for stage, state in zip(again, saved, strict=True):
        stage.load_state_dict(state)
        assert same(copied(stage), state)
    repeated = step_all(again, 2)
    assert all(same(copied(stage), copied(other)) for stage, other in zip(stages, again, strict=True))
    assert not any(same(copied(stage), state) for stage, state in zip(stages, saved, strict=True))
    assert outputs.keys() == repeated.keys() == ({s.name for s in stages} if variant == "samples for others" else set())
    assert all(torch.equal(x, repeated[name]) for name, x in outputs.items())


@pytest.mark.parametrize(
    "variant",
    ["rings, together", pytest.param("packets", marks=pytest.mark.long), "16 bits", "labels", "crops", "ensembles"],
)
def test_what_was_trained_generates(variant: str) -> None:
    chain = chain_of(flow_settings(**VARIANTS[variant]))
    stages = flow_stages(chain)
    step_all(stages, 0)
    images = synthesiser_of(chain, stages).sample(0, 3).images
    side = chain.settings.image_size
    assert images.shape == (3, chain.settings.channels, side, side)
    assert bool(images.isfinite().all())
    assert float(images.std(0).mean()) > 0.01


def test_every_weight_is_trained_but_that_of_no_label() -> None:
    chain = chain_of(flow_settings(levels=2, classes=2, batch=8, flow={"drop": 0.5}))
    for stage in flow_stages(chain):
        before = copied(stage)
        for step in range(6):  # layers behind one that starts at zero move later
            step_of(stage, step)
        after = stage.state_dict()
        still = [name for name, x in tensors_of(before).items() if torch.equal(x, torch.as_tensor(after[name]))]
        assert still == []


def test_a_guide_is_the_average_at_its_age() -> None:
    settings = flow_settings(images=40, flow={"guide_at": 0.5})  # 10 steps of 4: the guide ends with the fifth
    (stage, *_) = flow_stages(chain_of(settings))
    ages: list[State] = []
    for step in range(8):
        step_of(stage, step)
        ages.append({name: x.clone() for name, x in stage.average.network.state_dict().items()})
    assert stage.average.guide is not None
    assert same(dict(stage.average.guide.state_dict()), ages[4])
    assert not same(dict(stage.average.guide.state_dict()), ages[7])


def test_times_cover_their_distribution_and_strengths_their_range() -> None:
    """One time in each part of the distribution: quantiles are those of the logistic normal, to one part of B."""
    settings = flow_settings(batch=64, flow={"time_mean": 0.5, "time_deviation": 0.8, "condition_noise": 0.3})
    low, high, *_ = flow_stages(chain_of(settings))
    draws = high._draws(3, 64)
    logits = (torch.logit(draws.time.double()).sort().values - 0.5) / 0.8
    places = torch.special.ndtr(logits) * 64
    assert bool(((places >= torch.arange(64) - 0.01) & (places <= torch.arange(64) + 1.01)).all())
    assert float(draws.strength.max()) < 0.3
    assert 0.1 < float(draws.strength.mean()) < 0.2
    assert not low._draws(3, 64).strength.any()  # it sees nothing
    other = high._draws(4, 64)
    assert not torch.equal(draws.noise, other.noise)
    assert not torch.equal(draws.time, other.time)


def test_the_target_of_a_network_that_predicts_nothing_is_of_unit_size() -> None:
    """At the start the velocity is the best linear guess; what is left has the mean square of 1 / q^2."""
    chain = chain_of(flow_settings(batch=64))
    stage = flow_stages(chain)[0]
    loss = step_of(stage, 0, pictures(chain.settings, 64, seed=1))["loss"]
    time = stage._draws(0, 64).time
    expected = float((1 / (time.square() + (1 - time).square())).mean())
    assert loss == pytest.approx(expected, rel=0.15)


# -- divergence --------------------------------------------------------------------------------------


def poison(stage: FlowMatching) -> None:
    with torch.no_grad():
        next(stage.network.parameters()).fill_(float("nan"))


def test_a_loss_that_is_not_finite_changes_no_weight_and_is_rolled_back() -> None:
    stage = flow_stages(chain_of(flow_settings()))[1]
    step_of(stage, 0)
    guard = DivergenceGuard(stage, HealthSettings(every=1, most=1))
    good = copied(stage)
    poison(stage)
    before = copied(stage)
    with pytest.raises(
        DivergedError,
        match=r"HL1: the flow expert's .* not finite at step 1 .* a lower flow.optimiser.learning_rate \(now 0.001\)",
    ):
        step_of(stage, 1)
    average = {name: x for name, x in tensors_of(before).items() if name.startswith("average")}
    assert all(torch.equal(x, torch.as_tensor(stage.state_dict()[name])) for name, x in average.items())

    images, labels = pictures(stage.settings, seed=101), torch.zeros(4, dtype=torch.int64)
    result = guard.run(1, lambda: stage.step(1, images, labels, {}))
    assert result.metrics["set_back_diverged_to"] == 0
    assert all(x.isfinite().all() for x in tensors_of(stage.state_dict()).values())
    well = flow_stages(stage.chain)[1]
    well.load_state_dict(good)
    well.scale_rate(HealthSettings().rate)
    well.step(1, images, labels, {})
    assert same(copied(stage), copied(well))
    poison(stage)
    with pytest.raises(DivergedError):
        guard.run(2, lambda: stage.step(2, images, labels, {}))


# -- replicas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "labels", "crops", "samples for others"])
@pytest.mark.parametrize("count", [2, 4])
def test_replicas_equal_one_and_each_other(variant: str, count: int) -> None:
    settings = flow_settings(batch=8, **VARIANTS[variant])
    gan = chain_of(settings).plan.gan("HL1")
    one = FlowMatching(chain_of(settings), gan)
    many = [FlowMatching(chain_of(settings), gan, share) for share in thread_shares(count)]
    labels = torch.arange(8) % max(1, settings.classes)
    outputs = {"LL1": torch.randn(8, 3, *one.chain.band_size(1))} if one.gives_output else {}
    for step in range(4):
        images = pictures(settings, seed=100 + step)
        whole = one.step(step, images, labels, outputs)
        parts = at_once([partial(stage.step, step, images, labels, outputs) for stage in many])
        assert all(part.metrics == parts[0].metrics for part in parts)
        assert parts[0].metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-4)
        if whole.output is not None:
            joined = torch.cat([part.output for part in parts if part.output is not None])
            torch.testing.assert_close(joined, whole.output, atol=1e-3, rtol=2e-4)
    assert all(same(copied(stage), copied(many[0])) for stage in many)
    theirs = tensors_of(many[0].state_dict())
    for name, tensor in tensors_of(one.state_dict()).items():
        assert torch.allclose(theirs[name], tensor, rtol=2e-4, atol=2e-5), name
