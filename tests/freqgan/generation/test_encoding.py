"""Real images as noises of all bands, and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.generation.editing import encode, redraw
from freqgan.pixels import from_pixels
from tests.support.flows import flow_model
from tests.support.gaussians import GaussianToy
from tests.support.models import TinyRun, pictures, tiny_settings

MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two levels, labels": {"levels": 2, "classes": 2},
    "rings": {"transform": "radial:1,3"},
    "biorthogonal, odd": {"transform": "dwt:bior4.4", "image_size": 19},
    "16 bits, ensemble": {"channels": 1, "bit_depth": 16, "noise": {"dimensions": 32}, "plan": {"low_gans": {1: 2}}},
    "long vectors": {"noise": {"dimensions": 256}},
    "euler": {"generation": {"solver": "euler", "evaluations": 4}},
    "two evaluations": {"generation": {"evaluations": 2}},
    "guided, noisy conditions": {
        "generation": {"condition_noise": 0.1, "shift": 2.0, "guidance": {"default": 1.0}},
        "flow": {"guide_at": 0.02},
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_from_the_noises_of_images_is_the_images(name: str) -> None:
    model = flow_model(steps=4, **MODELS[name])
    images = from_pixels(pictures(model.settings, 3, seed=9))
    labels = torch.tensor([0, 1, 1]) if model.settings.classes else None
    draws = encode(model, images, labels, seed=5, block=1)
    torch.testing.assert_close(model.draw(draws).images, images, atol=1e-3, rtol=0)
    if len(draws.choices):  # of an ensemble every member is encoded
        others = draws._replace(choices={band: 1 - choice for band, choice in draws.choices.items()})
        torch.testing.assert_close(model.draw(others).images, images, atol=1e-3, rtol=0)


def test_noises_of_samples_are_those_they_were_drawn_from() -> None:
    model = flow_model(steps=4, noise={"dimensions": 32})
    draws = model.draws(3, 4)
    found = encode(model, model.draw(draws).images)
    torch.testing.assert_close(found.noises, draws.noises, atol=1e-3, rtol=0)
    for name, rest in draws.rests.items():
        torch.testing.assert_close(found.rests[name], rest, atol=1e-3, rtol=0)


def test_noises_of_data_are_normal_where_the_experts_are_exact() -> None:
    """Their covariance over all bands is the identity: the chain takes the Gaussian of images to N(0, I)."""
    toy = GaussianToy(generation={"evaluations": 60})
    draws = encode(toy.exact_model(), toy.draw(64, seed=8))
    flat = [torch.cat([draws.noises[i], rest], dim=1) for i, rest in enumerate(draws.rests.values())]
    numbers = torch.cat(flat, dim=1)
    assert numbers.shape == (64, 64)
    assert abs(float(numbers.mean())) < 5 / 64
    assert abs(float(numbers.square().mean()) - 1) < 5 * 2**0.5 / 64
    products = (numbers.mT @ numbers / 64).fill_diagonal_(0)
    assert float(products.square().mean()) == pytest.approx(1 / 64, rel=0.2)  # that of independent normal numbers


def test_bands_of_real_images_are_drawn_anew_and_others_stay() -> None:
    model = flow_model(steps=4, levels=2)
    images = from_pixels(pictures(model.settings, 3, seed=9))
    after = redraw(model, encode(model, images), ["HL1"], model.draws(1, 3))
    old, new = (model.chain.transform.analyse(x) for x in (images, after))
    for band, x in old.items():
        assert torch.allclose(x, new[band], atol=1e-4) == (band != Band(1, "HL")), band


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": {"low": "flow"}}, "HL1, LH1, HH1 of this model are GANs"),
        ({"experts": {"low": "flow"}, "plan": {"bands": ["LL1", "HL1"]}}, "HL1 of this model is a GAN"),
        ({"experts": {"default": "flow"}, "plan": {"bands": ["LL1", "HL1"]}}, "no expert .* generates LH1, HH1"),
        ({"experts": {"default": "flow"}, "classes": 2}, "the model has targets"),
    ],
)
def test_what_cannot_encode_says_why(changes: dict[str, Any], message: str) -> None:
    from freqgan.generation.synthesiser import Synthesiser
    from freqgan.tensor_dicts import tensors_of
    from freqgan.training.experts import build_expert
    from tests.support.flows import flow_settings
    from tests.support.models import chain_of

    chain = chain_of(flow_settings(**changes))
    states = {gan.name: tensors_of(build_expert(chain, gan).state_dict()) for gan in chain.plan.gans}
    model = Synthesiser(chain.settings, chain.statistics, states)
    with pytest.raises(InputError, match=message):
        encode(model, torch.zeros(2, 3, 16, 16))


def test_a_model_of_gans_names_them_all() -> None:
    model = TinyRun(tiny_settings()).synthesiser()
    with pytest.raises(InputError, match="LL1, HL1, LH1, HH1, the image stage's generator of this model are GANs"):
        encode(model, torch.zeros(2, 3, 16, 16))
