from __future__ import annotations

from typing import Any

import pytest
import torch

from freqgan.errors import InputError
from freqgan.generation.synthesiser import Draws, Synthesiser
from freqgan.pixels import to_pixels
from tests.support.flows import flow_model
from tests.support.models import TinyRun, tiny_settings


def trained(**changes: Any) -> TinyRun:
    run = TinyRun(tiny_settings(**changes))
    for step in range(2):
        run.step(step)
    return run


@pytest.mark.parametrize(
    "changes",
    [{}, {"levels": 2, "classes": 3}, {"plan": {"cycles": 2}}, {"plan": {"low_gans": {1: 2}}}, {"channels": 1}],
)
def test_a_sample_does_not_depend_on_how_many_are_made(changes: dict[str, Any]) -> None:
    model = trained(**changes).synthesiser()
    many = model.sample(seed=3, count=70)
    assert many.images.shape == (70, model.settings.channels, 16, 16)
    assert torch.equal(model.sample(seed=3, count=1).images, many.images[:1])
    assert torch.equal(model.sample(seed=3, count=7, first=61).images, many.images[61:68])
    assert torch.equal(model.sample(seed=3, count=70).images, many.images)
    assert not torch.equal(model.sample(seed=4, count=70).images, many.images)


@pytest.mark.parametrize("changes", [{}, {"levels": 2, "classes": 3}, {"channels": 1}])
def test_samples_outside_their_block_have_the_same_pixels_but_for_rounding(changes: dict[str, Any]) -> None:
    model = trained(**changes).synthesiser()
    whole = to_pixels(model.sample(seed=3, count=70).images).int()
    for first, count in ((0, 1), (5, 2), (60, 7), (0, 64), (63, 1)):
        alone = to_pixels(model.sample(3, count, first, whole_blocks=False).images).int()
        assert alone.shape[0] == count
        assert int((alone - whole[first : first + count]).abs().max()) <= 1


def test_samples_of_several_seeds_share_a_pass() -> None:
    model = trained(levels=2, classes=3).synthesiser()
    labels = torch.tensor([2, 0])
    requests: list[tuple[int, int, int, torch.Tensor | None]] = [(3, 2, 0, None), (4, 1, 70, None), (5, 2, 63, labels)]
    draws = [part for seed, count, first, t in requests for part in model.draws_by_block(seed, count, first, t)]
    together = to_pixels(model.draw(Draws.joined(draws)).images).int()
    alone = torch.cat([to_pixels(model.sample(seed, n, first, t).images) for seed, n, first, t in requests]).int()
    assert int((together - alone).abs().max()) <= 1
    assert not torch.equal(together[:2], together[2:4])


def test_samples_with_noise_on_conditions_keep_their_block() -> None:
    model = flow_model(levels=2, generation={"evaluations": 2, "condition_noise": 0.3})
    assert model.needs_blocks
    whole = model.sample(seed=3, count=70).images
    assert torch.equal(model.sample(3, 2, 63, whole_blocks=False).images, whole[63:65])


def test_draws_are_those_of_the_samples_up_to_a_block_of_them() -> None:
    model = trained().synthesiser()
    draws = model.draws(3, 64)
    assert torch.equal(model(draws.noises, draws.targets, draws.choices).images, model.sample(3, 64).images)
    with pytest.raises(InputError, match="65 samples were asked for, and 64 are drawn together"):
        model.draws(3, 65)


def test_images_are_the_blend_of_chain_and_other() -> None:
    run = trained(levels=2)
    model = run.synthesiser()
    out = model.sample(0, 4)
    alpha = model.alphas["alpha"]
    torch.testing.assert_close(out.images, alpha * out.frequency + (1 - alpha) * out.conventional, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.frequency, model.chain.image(out.sub_images))


def test_a_target_vector_decides_everything() -> None:
    model = trained().synthesiser()
    target = torch.randn(5, 16)
    first, second = model(target), model(target.clone())
    assert torch.equal(first.images, second.images)
    assert not torch.equal(model(-target).images, first.images)


def test_labels_can_be_chosen() -> None:
    run = TinyRun(tiny_settings(classes=2))
    for gan in run.gans:  # what training would do with time: let the embedding speak
        torch.nn.init.normal_(gan.trainer.average.get_parameter("style.embed.weight"), std=3)
    model = run.synthesiser()
    zeros = model.sample(0, 4, targets=torch.zeros(4, dtype=torch.int64)).images
    ones = model.sample(0, 4, targets=torch.ones(4, dtype=torch.int64)).images
    assert not torch.equal(zeros, ones)


def test_discriminators_are_stripped_and_nothing_can_be_trained() -> None:
    model = trained().synthesiser()
    assert not any("discriminator" in name for name, _ in model.named_modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_of_another_plan_is_refused() -> None:
    run = trained()
    with pytest.raises(InputError, match="no state for LL2, HL2"):
        Synthesiser(tiny_settings(levels=2), run.chain.statistics, run.states())


def test_to_pixels_rounds_and_clips() -> None:
    assert to_pixels(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]
    every = torch.arange(256)
    assert torch.equal(to_pixels(every / 127.5 - 1).long(), every)
