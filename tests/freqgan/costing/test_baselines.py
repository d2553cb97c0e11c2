"""Systems at equal cost: what a step costs is counted right, and widths are found that cost the same."""

from __future__ import annotations

import pytest
import torch

from freqgan.costing.baselines import VARIANTS, at_cost, variant
from freqgan.costing.operator_count import OperatorCount, training_cost
from freqgan.errors import InputError
from freqgan.model.flow_expert import FlowExpert, build_velocity_pair
from tests.support.companions import companion_of, companion_settings
from tests.support.mixtures import FLOW_BELOW_GAN, FLOWS, SAMPLED
from tests.support.models import chain_of, tiny_settings


@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_and_their_derivatives_are_counted(groups: int) -> None:
    layer = torch.nn.Conv2d(32, 32, 3, padding=1, groups=groups)
    x = torch.randn(2, 32, 8, 8, requires_grad=True)
    once = 2 * 32 * (32 // groups) * 9 * 64
    with OperatorCount() as count:
        y = layer(x)
    assert count.multiply_accumulates == once
    with OperatorCount() as count:
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert count.multiply_accumulates == once  # with respect to the input alone
    with OperatorCount() as count:
        torch.autograd.grad(slope.square().sum(), layer.weight)
    assert count.multiply_accumulates == 3 * once


def test_dense_layers_are_counted() -> None:
    layer = torch.nn.Linear(7, 5)
    with OperatorCount() as count:
        torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 6))
        layer(torch.ones(3, 7))
    assert count.multiply_accumulates == 2 * 3 * 4 * 6 + 3 * 7 * 5


def test_fused_attention_is_counted_as_its_products() -> None:
    query = torch.randn(2, 3, 5, 4, requires_grad=True)
    key, value = torch.randn(2, 3, 7, 4, requires_grad=True), torch.randn(2, 3, 7, 4, requires_grad=True)
    once = 2 * 3 * 5 * 7 * 4
    with OperatorCount() as count:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert count.multiply_accumulates == 2 * once
    with OperatorCount() as count:
        torch.autograd.grad(out.square().sum(), (query, key, value))
    assert count.multiply_accumulates == 5 * once


def test_the_cost_of_a_step_is_that_of_its_parts() -> None:
    costs = training_cost(tiny_settings())
    assert list(costs) == ["LL1", "HL1", "LH1", "HH1", "image"]
    assert all(cost > 0 for cost in costs.values())
    alone = training_cost(tiny_settings(feedback={"weight": 0.0}))
    assert all(alone[name] < costs[name] for name in ("LL1", "HL1", "LH1", "HH1"))
    rare = training_cost(tiny_settings(feedback={"weight": 0.0}, loss={"penalty_interval": 16}))
    assert sum(rare.values()) < sum(alone.values())


def test_variants_are_what_they_are_called() -> None:
    settings = tiny_settings(levels=2)
    assert variant(settings, "bands") == settings
    literal = variant(settings, "literal")
    assert (literal.feedback.weight, literal.band_discriminator.condition, literal.teacher_forcing.start) == (
        0,
        False,
        0,
    )
    assert [gan.name for gan in variant(settings, "joint-hf").band_plan().gans] == [
        "LL2", "HL-LH-HH2", "LL1", "HL-LH-HH1",
    ]  # fmt: skip
    single = variant(settings, "single")
    assert single.band_plan().gans == ()
    assert single.image_stage.solo_share == 1
    fusion = variant(settings, "fusion")
    assert (fusion.system, fusion.loss.kind, list(training_cost(fusion))) == ("fusion", "hinge", ["fusion"])
    flow, mixed = variant(settings, "flow"), variant(settings, "mixed")
    assert [(gan.name, gan.kind) for gan in flow.band_plan().gans] == [
        ("LL2", "flow"), ("HL-LH-HH2", "flow"), ("HL-LH-HH1", "flow"),
    ]  # fmt: skip
    assert not flow.image_stage.enabled
    assert [gan.kind for gan in mixed.band_plan().gans] == ["flow", *["gan"] * 7]
    assert mixed.image_stage.enabled
    assert [(gan.name, gan.kind) for gan in variant(settings, "single-flow").band_plan().gans] == [("LL0", "flow")]
    with pytest.raises(InputError, match=r"no system is called 'sinle' \(did you mean single"):
        variant(settings, "sinle")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in ("joint-hf", "literal", "mixed")))
        for name in VARIANTS
        if name != "bands"
    ],
)
def test_widths_are_found_that_cost_the_same(name: str) -> None:
    sizes = {"width": 16, "coarse_width": 24, "group_width": 8}
    names = ("coarse_generator", "coarse_discriminator", "band_generator", "band_discriminator")
    stage = {"image_stage": {"generator": sizes, "discriminator": sizes}}
    settings = tiny_settings(**dict.fromkeys(names, sizes), **stage)
    target = sum(training_cost(settings).values())
    scaled, cost = at_cost(variant(settings, name), target)
    assert cost == sum(training_cost(scaled).values())
    assert cost == pytest.approx(target, rel=0.08)  # widths this small come in coarse steps


def test_a_step_of_a_flow_expert_costs_three_passes_through_its_network() -> None:
    settings = tiny_settings(**FLOWS)
    costs = training_cost(settings)
    chain = chain_of(settings)
    assert list(costs) == ["LL1", "HL-LH-HH1"]
    for gan in chain.plan.gans:
        expert = FlowExpert(chain, gan, build_velocity_pair(chain, gan))
        bands = {band: torch.zeros(2, 3, 8, 8) for band in gan.seen}
        field = expert.velocity(chain.condition(gan, bands), torch.zeros(2), None, settings.generation)
        with torch.no_grad(), OperatorCount() as count:
            field(torch.zeros(2, *expert.noise_shape), 0.5)
        # The first layer's input has no gradient; fused attention computes its weights once more on the way back.
        assert 2.7 <= costs[gan.name] / (count.multiply_accumulates / 2) <= 3.3


@pytest.mark.parametrize("kind", ["vae", "diffusion", "flow", "autoregressive"])
def test_a_companion_alone_is_scaled_to_a_cost(kind: str) -> None:
    settings = variant(companion_settings(kind), "single")
    cost = sum(training_cost(settings).values())
    scaled, found = at_cost(settings, 3 * cost)
    assert 3 * cost <= found <= 4.5 * cost  # widths this small come in coarse steps
    assert scaled.image_stage.companion == kind


def test_samples_of_a_pool_are_shared_out_over_its_life() -> None:
    """Twice as many samples, or half as many steps, add as much again; none of it is in a single step."""
    pools = ({"size": 8, "every": 100}, {"size": 16, "every": 100}, {"size": 16, "every": 50})
    costs = [training_cost(companion_settings("diffusion", {"pool": pool}))["image"] for pool in pools]
    assert costs[1] - costs[0] > 0
    assert costs[2] - costs[1] == pytest.approx(2 * (costs[1] - costs[0]))
    network = companion_of("diffusion").requires_grad_(False)
    with OperatorCount() as count:
        network.sample(torch.zeros(1, network.numbers), None)
    assert costs[1] - costs[0] == pytest.approx(count.multiply_accumulates * 8 / 100 / 4, rel=0.02)  # batches of 4


def test_only_stages_that_give_samples_pay_for_them() -> None:
    real, sampled = (training_cost(tiny_settings(**changes)) for changes in (FLOW_BELOW_GAN, SAMPLED))
    assert list(real) == list(sampled) == ["LL1", "HL1", "image"]
    assert sampled["LL1"] > real["LL1"]
    assert sampled["HL1"] == pytest.approx(real["HL1"], rel=1e-3)


def test_variants_of_flow_experts_are_systems_of_gans_where_their_names_say_so() -> None:
    settings = tiny_settings(**FLOWS | {"generation": {"guidance": {"HL-LH-HH1": 1.0}}})
    for name in ("literal", "single"):
        other = variant(settings, name)
        assert all(gan.kind == "gan" for gan in other.band_plan().gans)
    assert variant(settings, "single").image_stage.enabled
    assert {gan.kind for gan in variant(settings, "joint-hf").band_plan().gans} == {"flow"}
    target = 2 * sum(training_cost(settings).values())
    scaled, cost = at_cost(settings, target)
    assert cost == sum(training_cost(scaled).values())
    assert target <= cost <= 1.6 * target  # widths this small come in coarse steps
    assert scaled.flow.band_network.width > settings.flow.band_network.width
    assert scaled.band_generator == settings.band_generator
