"""Flow experts: their noise, guidance, and likelihood, and the images that a chain of exact ones makes."""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.generation.synthesiser import Draws, Synthesiser
from freqgan.model.chain import Condition
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.flow_expert import FlowExpert
from freqgan.model.probability_flow import exact_probes, log_density
from tests.support.flows import flow_model
from tests.support.gaussians import GaussianToy
from tests.support.models import pictures


def seen(model: Synthesiser, expert: FlowExpert, count: int) -> tuple[Tensor, Condition]:
    """Normalised bands (B, C, h, h) of an expert of pictures, and what it sees of them."""
    real = model.chain.real(pictures(model.settings, count, seed=3))
    return model.chain.stacked(expert.gan, real), model.chain.condition(expert.gan, real)


def test_a_chain_of_exact_experts_makes_images_of_the_mean_and_covariance_of_the_data() -> None:
    """All of it is affine, so that zero and a basis of the noises of all bands say mean and covariance exactly."""
    toy = GaussianToy(generation={"evaluations": 200})
    model = toy.exact_model()
    basis = torch.cat([torch.zeros(1, 64), torch.eye(64)])
    draws = Draws(basis.view(65, 4, 16).movedim(1, 0), None, {}, {name: torch.zeros(65, 0) for name in model.flows})
    images = model.draw(draws).images.flatten(1).double()
    matrix = (images[1:] - images[0]).mT
    scale = float(toy.images.covariance.max())
    torch.testing.assert_close(images[0], toy.images.mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(matrix @ matrix.mT, toy.images.covariance, atol=4e-3 * scale, rtol=0)


def test_rests_of_noise_differ_by_seed_lot_and_expert_and_are_the_same_again() -> None:
    model = flow_model(steps=0)
    low, high = model.flows["LL1"], model.flows["HL1"]
    assert low.rest(0, 0, 5).shape == (5, 3 * 64 - 16)
    assert torch.equal(low.rest(0, 0, 5), low.rest(0, 0, 5))
    others = [low.rest(1, 0, 5), low.rest(0, 1, 5), high.rest(0, 0, 5)]
    assert not any(torch.equal(low.rest(0, 0, 5), other) for other in others)
    noise = torch.randn(5, *low.noise_shape)
    torch.testing.assert_close(low.noise(*low.numbers(noise)), noise, atol=1e-5, rtol=0)


def test_guidance_leads_away_from_the_guide_and_from_no_label_in_proportion() -> None:
    model = flow_model(steps=6, classes=2, flow={"guide_at": 0.02, "drop": 0.5})
    expert = model.flows["HL1"]
    band, condition = seen(model, expert, 3)
    strength, labels = torch.zeros(3), torch.tensor([0, 1, 1])

    def velocity(**how: object) -> Tensor:
        return expert.velocity(condition, strength, labels, GenerationSettings.model_validate(how))(band, 0.4)

    plain = velocity()
    for change in ({"guidance": {"HL1": 1.0}}, {"label_guidance": 1.0}):
        moved = velocity(**change) - plain
        assert float(moved.abs().max()) > 1e-4
        (key, one), *_ = change.items()
        doubled = velocity(**{key: {"high": 2.0} if isinstance(one, dict) else 2.0}) - plain
        torch.testing.assert_close(doubled, 2 * moved, atol=1e-5, rtol=1e-4)
    assert torch.equal(velocity(guidance={"LL1": 1.0}), plain)
    assert expert.networks.guide is not None
    expert.networks.guide.load_state_dict(expert.networks.network.state_dict())
    torch.testing.assert_close(velocity(guidance={"HL1": 5.0}), plain)


def test_likelihoods_of_small_bands_are_exact_and_of_large_ones_unbiased() -> None:
    """Of 64 numbers the seed of the probes has no effect; of 192 it has, by no more than chance."""
    results: list[Tensor] = []
    for channels, numbers, seeds in ((1, 64, 2), (3, 192, 12)):
        model = flow_model(steps=6, channels=channels)
        expert = model.flows["HL1"]
        band, condition = seen(model, expert, 2)
        assert band[0].numel() == numbers
        found = [
            expert.log_likelihood(band, condition, torch.zeros(2), None, steps=2, probes=2, seed=seed).nats
            for seed in range(seeds)
        ]
        results.append(torch.stack(found))
    small, large = results
    assert torch.equal(small, small[:1].expand(2, 2))
    assert not torch.equal(large, large[:1].expand(12, 2))
    field = expert.velocity(condition, torch.zeros(2), None, GenerationSettings())
    expected = log_density(field, band, 2, exact_probes(band)).nats
    error = large.std(0) / 12**0.5
    assert bool(((large.mean(0) - expected).abs() < 5 * error + 1e-3).all())
