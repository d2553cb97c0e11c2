"""Matching of features: zero for the same images, falls by descent, and is a part of the image stage's loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from freqgan.metrics.pooled_features import RandomNetwork
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.pixels import from_pixels
from freqgan.training.feature_matching import FeatureMatching, moment_distance
from tests.support.models import TinyRun, pictures, tiny_settings

FAST: dict[str, Any] = {"image_stage": {"feature_matching": {"weight": 1.0}}}


def images(seed: int, count: int = 16) -> torch.Tensor:
    return from_pixels(pictures(tiny_settings(), count, seed))


def test_its_features_are_those_that_are_pooled_elsewhere() -> None:
    stored = pictures(tiny_settings(), 4)
    layers = FeatureMatching(None).layers(from_pixels(stored))
    assert torch.equal(torch.cat(layers, 1), RandomNetwork().pooled(stored))


def test_moments_are_compared_in_deviations_of_the_real_ones() -> None:
    rng = torch.Generator().manual_seed(0)
    real = 100 + 10 * torch.randn(4000, 3, generator=rng)
    assert float(moment_distance(real, real)) < 1e-9
    moved = float(moment_distance(real, real + 20))
    assert moved == pytest.approx(4, rel=0.01)  # 2 deviations, squared
    wider = float(moment_distance(real, 100 + 2 * (real - 100)))
    assert wider == pytest.approx(3**2 / 3, rel=0.05)  # variances of 4 for 1, in 3 of 9 places
    mixed = real.clone()
    mixed[:, 1] = real[:, 0]  # every number is distributed as before, but two are one
    assert float(moment_distance(real, mixed)) == pytest.approx(2 / 9, rel=0.1)


def test_descent_brings_images_nearer() -> None:
    matching, real = FeatureMatching(None), images(0)
    assert float(matching(real, real)) < 1e-9
    made = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    adam = torch.optim.Adam([made], 0.05)
    begin = float(matching(real, made.detach()))
    for _ in range(60):
        loss = matching(real, made)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert float(matching(real, made.detach())) < 0.2 * begin
    assert not any(parameter.requires_grad for parameter in matching.parameters())


@pytest.mark.parametrize("changes", [{}, {"plan": {"bands": "none"}}, {"channels": 1}])
def test_the_image_stage_is_trained_by_it(changes: dict[str, Any]) -> None:
    plain, matched = TinyRun(tiny_settings(**changes)), TinyRun(tiny_settings(**changes, **FAST))
    for step in range(2):
        _, without = plain.step(step)
        _, numbers = matched.step(step)
    assert numbers[IMAGE_STAGE].keys() - without[IMAGE_STAGE].keys() == {"feature_matching"}
    assert numbers[IMAGE_STAGE]["feature_matching"] > 0
    states = [run.states()[IMAGE_STAGE] for run in (plain, matched)]
    assert states[0].keys() == states[1].keys()  # the network is no part of a checkpoint
    differs = [name for name, value in states[0].items() if isinstance(value, torch.Tensor)
               and not torch.equal(value, torch.as_tensor(states[1][name]))]  # fmt: skip
    assert differs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "fusion", "loss": {"kind": "hinge"}}, "system=fusion"),
        ({"plan": {"bands": "none"}, "companion": "vae"}, "a companion vae alone"),
        ({"enabled": False}, "no image stage"),
        ({"weight": 0, "network": "vgg.pth"}, "with weight 0 is not used"),
    ],
)
def test_where_there_is_nothing_to_match(changes: dict[str, Any], message: str) -> None:
    stage = {key: changes.pop(key) for key in ("companion", "enabled") if key in changes}
    matching = {"weight": changes.pop("weight", 1.0), "network": changes.pop("network", "")}
    with pytest.raises(ValidationError, match=message):
        tiny_settings(**changes, image_stage={**stage, "feature_matching": matching})
